"""Files of boxes are read back as their formats' readers would."""

import csv
import errno
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import cv2
import numpy as np
import pytest

from dytrack_model.errors import BoxError
from dytrack_model.target_state import TargetState
from dytrack_pipelines.media.boxes import read_boxes, typed
from dytrack_pipelines.media.overlay import Mark
from dytrack_pipelines.media.results import FORMATS, BoxFiles, LasotFile
from dytrack_pipelines.media.video import VideoWriter
from dytrack_platform.errors import ConfigurationError, StorageError
from dytrack_platform.storage.outputs import is_ours

SIZE = (320, 240)


def mark(k, lost=False):
    return Mark(
        box_xywh=np.array([10.0 + k, 20.0, 30.5, 40.25]),
        depth=2 if k else 0,
        exit_index=0,
        predicted_iou=0.5,
        state=TargetState.LOST if lost else TargetState.TRACKING,
    )


def paths(folder):
    return {option: folder / f"boxes{option}" for option in FORMATS}


def write(folder, targets=("a", "b"), frames=3, error=None, names=()):
    files = paths(folder)
    with BoxFiles(files, targets, SIZE, "video.mp4", names) as tables:
        for k in range(frames):
            tables.write({name: mark(k, lost=name == "b" and k == 1) for name in targets}, SIZE)
        if error is not None:
            raise error
    return files


def test_csv_has_a_row_for_each_frame_and_target(tmp_path):
    rows = list(csv.DictReader(write(tmp_path)["--csv"].read_text().splitlines()))
    assert [row["target"] for row in rows] == ["a", "b"] * 3
    assert rows[3]["lost"] == "1"
    assert float(rows[4]["x"]) == 12.0
    (tmp_path / "one").mkdir()
    alone = write(tmp_path / "one", ("a",))
    assert "target" not in alone["--csv"].read_text()


def test_json_lines_say_what_they_are_and_then_the_frames(tmp_path):
    lines = [json.loads(line) for line in write(tmp_path)["--jsonl"].read_text().splitlines()]
    assert lines[0]["targets"] == ["a", "b"]
    assert [line["frame"] for line in lines[1:]] == [0, 1, 2]
    assert lines[2]["targets"]["b"]["state"] == "lost"


def test_mot_counts_from_one_and_leaves_lost_targets_out(tmp_path):
    rows = np.loadtxt(write(tmp_path)["--mot"], delimiter=",")
    assert rows[:, 0].tolist() == [1, 1, 2, 3, 3]
    assert rows[:, 1].tolist() == [1, 2, 1, 1, 2]
    assert rows.shape[1] == 10


def test_lasot_is_one_file_for_each_target(tmp_path):
    path = write(tmp_path)["--lasot"]
    places = LasotFile.places(path, ["a", "b"])
    assert not path.exists()
    for place in places.values():
        assert np.loadtxt(place, delimiter=",").shape == (3, 4)
    assert LasotFile.places(path, ["a"]) == {"a": path}


def test_cvat_says_outside_where_a_target_is_lost(tmp_path):
    root = ET.parse(write(tmp_path)["--cvat"]).getroot()
    tracks = root.findall("track")
    assert [track.get("source") for track in tracks] == ["a", "b"]
    boxes = tracks[1].findall("box")
    assert [box.get("outside") for box in boxes] == ["0", "1", "0"]
    assert float(boxes[2].get("xbr")) == pytest.approx(42.5)
    assert root.find("meta/task/original_size/width").text == "320"


def test_coco_annotations_belong_to_images_and_tracks(tmp_path):
    whole = json.loads(write(tmp_path)["--coco"].read_text())
    images = {image["id"]: image for image in whole["images"]}
    assert [image["frame_id"] for image in images.values()] == [0, 1, 2]
    rows = whole["annotations"]
    assert [(images[r["image_id"]]["frame_id"], r["track_id"]) for r in rows] == [
        (0, 1), (0, 2), (1, 1), (2, 1), (2, 2),
    ]  # fmt: skip
    assert len({row["id"] for row in rows}) == len(rows)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("a frame")])
def test_what_was_written_stays_whatever_ends_it(tmp_path, error):
    with pytest.raises(type(error)):
        write(tmp_path, error=error)
    assert len(json.loads((tmp_path / "boxes--coco").read_text())["images"]) == 3
    assert not list(tmp_path.glob(".*")), "nothing unfinished is left"


def test_yolo_labels_are_read_back_as_first_boxes(tmp_path):
    folder = write(tmp_path)["--yolo"]
    labels = sorted(folder.glob("*.txt"))
    assert [label.stem for label in labels] == ["000000", "000001", "000002"]
    found = read_boxes(labels[2], SIZE)
    np.testing.assert_allclose(found["1"], mark(2).box_xywh, atol=1e-3)
    assert len(labels[1].read_text().splitlines()) == 1, "b is lost there"
    assert json.loads((folder / "dytrack.json").read_text())["frames"] == 3
    write(tmp_path, frames=1)
    assert len(list(folder.glob("*.txt"))) == 1, "labels of an earlier run are gone"


def test_frames_that_are_files_keep_their_names(tmp_path):
    names = ("img-4.png", "img-7.png", "img-9.png")
    files = write(tmp_path, names=names)
    images = json.loads(files["--coco"].read_text())["images"]
    assert [image["file_name"] for image in images] == list(names)
    labels = sorted(label.name for label in files["--yolo"].glob("*.txt"))
    assert labels == ["img-4.txt", "img-7.txt", "img-9.txt"]
    write(tmp_path, frames=1, names=names[1:])
    assert [label.name for label in files["--yolo"].glob("*.txt")] == ["img-7.txt"]


def test_a_label_that_is_not_ours_is_not_written_over(tmp_path):
    folder = paths(tmp_path)["--yolo"]
    folder.mkdir()
    (folder / "img-7.txt").write_text("0 .5 .5 1 1\n")
    (folder / "classes.txt").write_text("dog\n")
    (folder / ".dytrack-files").write_text("../outside.txt\n")
    (tmp_path / "outside.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match=r"holds img-7.txt, which is not among"):
        write(tmp_path, names=("img-4.png", "img-7.png", "img-9.png"))
    assert (tmp_path / "outside.txt").read_text() == "mine"
    assert not [*tmp_path.glob(".*unfinished*")], "what was opened before is gone"
    write(tmp_path)
    assert (folder / "classes.txt").read_text() == "dog\n"


def test_sizes_follow_the_frame_and_labels_end_at_its_border(tmp_path):
    files = {"--yolo": tmp_path / "y", "--coco": tmp_path / "c.json"}
    reaches_out = Mark(box_xywh=np.array([-30.0, 60.0, 40.0, 40.0]))
    outside = Mark(box_xywh=np.array([500.0, 60.0, 40.0, 40.0]))
    with BoxFiles(files, ["a", "b"], SIZE, "v") as tables:
        tables.write({"a": reaches_out, "b": outside}, (320, 240))
        tables.write({"a": mark(0)}, (160, 120))
    assert (tmp_path / "y/000000.txt").read_text() == "0 0.015625 0.333333 0.031250 0.166667\n"
    row = [float(value) for value in (tmp_path / "y/000001.txt").read_text().split()]
    assert row[1] == pytest.approx((10 + 30.5 / 2) / 160, abs=1e-6)
    sizes = [(i["width"], i["height"]) for i in json.loads(files["--coco"].read_text())["images"]]
    assert sizes == [(320, 240), (160, 120)]


def test_a_full_disk_leaves_nothing_unfinished_and_names_every_file(tmp_path, monkeypatch):
    wanted = {option: tmp_path / f"b{option}" for option in ("--csv", "--cvat", "--coco")}
    tables = BoxFiles(wanted, ["a"], SIZE, "v")

    def full(part, _):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(StorageError) as told, tables:
        tables.write({"a": mark(0)}, SIZE)
    assert all(str(path) in str(told.value) for path in wanted.values())
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_cannot_be_closed_is_dropped(tmp_path, monkeypatch):
    tables = BoxFiles({"--csv": tmp_path / "b.csv"}, ["a"], SIZE, "v")
    (file,) = tables._files
    part, text = file._open[""]
    text.close()
    full = Path("/dev/full").open("w")  # noqa: SIM115  (closed below, which fails)
    full.write("x")
    file._open[""] = (part, full)
    with pytest.raises(StorageError, match=r"b.csv: cannot be written \(No space"), tables:
        pass
    assert list(tmp_path.iterdir()) == []


def test_files_that_can_say_so_are_known_as_ours(tmp_path):
    files = write(tmp_path)
    assert all(is_ours(files[name]) for name in ("--csv", "--jsonl", "--cvat", "--coco"))


def test_a_folder_that_cannot_be_written_is_told_before_the_first_frame(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="cannot be written"):
        BoxFiles({"--csv": tmp_path / "file" / "b.csv"}, ["a"], SIZE, "v")


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("b.json", "[[1, 2, 3, 4], [5, 6, 7, 8]]", {"1": (1, 2, 3, 4), "2": (5, 6, 7, 8)}),
        ("b.json", '[{"id": "dog", "bbox": [1, 2, 3, 4]}]', {"dog": (1, 2, 3, 4)}),
        ("b.json", '{"a": [1, 2, 3, 4]}', {"a": (1, 2, 3, 4)}),
        ("b.json", '{"targets": [{"id": "a", "box": [1, 2, 3, 4]}]}', {"a": (1, 2, 3, 4)}),
        ("b.txt", "0 0.5 0.5 0.25 0.5\n", {"1": (120, 60, 80, 120)}),
    ],
)
def test_boxes_are_read_in_the_forms_that_people_have(tmp_path, name, text, expected):
    (tmp_path / name).write_text(text)
    assert read_boxes(tmp_path / name, SIZE) == expected


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "[[1, 2, 3]]", '[{"id": "a"}]', '{"../a": [1, 2, 3, 4]}', "7", "null"]
)
def test_a_file_that_holds_no_boxes_is_told(tmp_path, text):
    (tmp_path / "b.json").write_text(text)
    with pytest.raises(BoxError, match="--init-from"):
        read_boxes(tmp_path / "b.json", SIZE)
    with pytest.raises(BoxError, match="--init: expected four numbers"):
        typed(["1,2,3"])


def test_a_film_that_cannot_be_begun_is_told_by_its_own_name(tmp_path, monkeypatch):
    def refuse(part, *, missing_ok):
        raise OSError(errno.EROFS, "Read-only file system", str(part))

    monkeypatch.setattr(cv2.VideoWriter, "isOpened", lambda _: False)
    monkeypatch.setattr(Path, "unlink", refuse)
    film = VideoWriter(tmp_path / "film.mp4", 25.0)
    with pytest.raises(StorageError, match=r"film\.mp4: OpenCV cannot write it; free space or"):
        film.write(np.zeros((32, 32, 3), np.uint8))
