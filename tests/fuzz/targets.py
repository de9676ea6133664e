"""What is fuzzed: everything that reads what somebody else wrote.

A target takes bytes. It may refuse them with an error of ours; anything else is a finding.
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from dytrack_model.errors import DyTrackError


def _folder() -> Path:
    """Return a folder of this process, in memory where the system has that."""
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="fuzz-", dir=memory if memory.is_dir() else None))


_PLACE = _folder()


def boxes(data: bytes) -> None:
    """Annotations, flags and results: one reader of numbers for all of them."""
    from dytrack_platform.datasets.io.text import parse_labels, parse_rows
    from dytrack_platform.evaluation.scoring.result_files import parse_boxes

    text = data.decode("utf-8-sig", errors="replace")
    table = parse_rows(text)
    assert table.values.shape[1] == 4
    for read in (lambda: parse_labels(text), lambda: parse_boxes(Path("a.txt"), text)):
        _allowed(read)


def regions(data: bytes) -> None:
    """VOT's regions: rectangles, polygons and run-length masks."""
    from dytrack_platform.datasets.io.regions import parse_region

    text = data.decode("utf-8", errors="replace")
    try:
        parse_region(text)
    except ValueError:  # what the function says of itself
        return


def recipes(data: bytes) -> None:
    """Recipes, from text to a checked configuration."""
    from dytrack_platform.config import load

    path = _PLACE / "recipe.yaml"
    path.write_bytes(data)
    load(path)


def weights(data: bytes) -> None:
    """Weights of others: safetensors, ONNX, torch's archives, and what is none of these."""
    from dytrack_model.pretrained.files import read_tensors

    path = _PLACE / "weights.pth"
    path.write_bytes(data)
    read_tensors(path)


def images(data: bytes) -> None:
    """Images, their headers, and archives of them."""
    from dytrack_model.images import RGB
    from dytrack_platform.datasets.io.frames import decode
    from dytrack_platform.storage.tree import Tree

    _allowed(lambda: decode(data, "a"))
    (_PLACE / "a.zip").write_bytes(data)
    (_PLACE / "a.png").write_bytes(data)
    _allowed(lambda: RGB.open(_PLACE / "a.png"))

    def archive() -> None:
        from dytrack_platform.datasets.io.archives import ZipFrames, _opened

        _opened.cache_clear()
        frames = ZipFrames.open(Tree(str(_PLACE)), "a.zip")
        for index in range(min(3, len(frames))):
            _allowed(lambda: frames.read(index))  # noqa: B023

    _allowed(archive)


def trackers(data: bytes) -> None:
    """The description of a saved tracker."""
    from dytrack_model import checkpoint

    folder = _PLACE / "tracker"
    folder.mkdir(exist_ok=True)
    (folder / checkpoint.DESCRIPTION).write_bytes(data)
    checkpoint.read_config(folder)


def annotations(data: bytes) -> None:
    """COCO's annotation file, and GOT-10k's small ones."""
    from dytrack_platform.datasets.readers import read

    for name in ("annotations", "val2017", "val/one"):
        (_PLACE / name).mkdir(parents=True, exist_ok=True)
    (_PLACE / "annotations" / "instances_val2017.json").write_bytes(data)
    _allowed(lambda: list(read("coco", str(_PLACE), "val", [])))
    (_PLACE / "val" / "list.txt").write_text("one\n")
    (_PLACE / "val" / "one" / "00000001.jpg").write_bytes(b"")
    for name in ("groundtruth.txt", "meta_info.ini", "absence.label", "attributes.json"):
        (_PLACE / "val" / "one" / name).write_bytes(data)
    _allowed(lambda: list(read("got10k", str(_PLACE), "val", [])))


def protocol(data: bytes) -> None:
    """What a client of the server sends: commands, frames, and their pictures."""
    from dytrack_platform.serving.messages import Refused, read_command, read_frame

    text = data.decode("utf-8", errors="replace")
    for read in (lambda: read_command(text), lambda: read_frame(data)):
        said = "understood"
        try:
            read()
        except Refused as refused:
            said = str(refused) if refused.code else ""
        assert said.strip()


def _allowed(call: Callable[[], object]) -> None:
    try:
        call()
    except DyTrackError as error:
        _is_sentence(error)


def _is_sentence(error: DyTrackError) -> None:
    """Refuse an error that says nothing, or that shows Python's insides."""
    assert str(error).strip()
    assert "Traceback" not in str(error)


def run(target: Callable[[bytes], None], data: bytes) -> None:
    """Give one input to a target."""
    _allowed(lambda: target(data))


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (boxes, regions, recipes, weights, images, trackers, annotations, protocol)
}


def seeds(name: str) -> list[bytes]:
    """Return inputs that are right or nearly so, to begin with."""
    import cv2
    import numpy as np
    import torch
    from safetensors.torch import save

    from dytrack_model.config import variant

    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    if name == "weights":
        path = _PLACE / "seed.pth"
        torch.save({"net": {"a": torch.zeros(2)}, "epoch": 3}, path)
        return [save({"a": torch.ones(2, 3)}), path.read_bytes(), b"version https://git-lfs"]
    if name == "images":
        kinds = [
            cv2.imencode(kind, image)[1].tobytes() for kind in (".jpg", ".png", ".bmp", ".webp")
        ]
        return [*kinds, kinds[1][:33] + b"\xfb\0\0\0IEND"]  # a chunk of 4 GB
    if name == "recipes":
        return [b"name: a\ntrain:\n  epochs: 3\nmodel: {variant: tiny, exits: [2, 6, 12]}\n"]
    if name == "trackers":
        model = {"format": 2, "model": variant("test").to_dict(), "points": [], "notes": {}}
        return [json.dumps(model).encode()]
    if name == "annotations":
        one = {"id": 1, "image_id": 1, "bbox": [1, 2, 3, 4]}
        coco = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [one]}
        return [json.dumps(coco).encode(), b"object_class: cat\n", b'{"attributes": ["OV"]}']
    if name == "protocol":
        target = {"id": "a", "box": [1, 2, 3, 4]}
        start = {"type": "start", "targets": [target], "point": "fast", "budget_ms": 20}
        others = [{"type": "move", **target}, {"type": "remove", "ids": ["a"]}, {"type": "stop"}]
        return [json.dumps(one).encode() for one in (start, *others)] + [b"\0" * 16 + b"\xff\xd8"]
    return [b"1,2,3,4\n5\t6\t7\t8\n", b"x,y,w,h\n1;2;3;4\n\nnan,nan,nan,nan\n", b"m10,5,3,4,1,2,3"]
