"""Run what broke other people's trackers: ``python -m tests.faults FOLDER``.

FOLDER holds a folder for each fault with its input files. Every case runs the command as a user
would, in a folder of its own, and its outcome is compared with what a user expects; a table says
which held. The exit code is 1 if one did not.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

CASES: dict[str, Callable[["Place"], None]] = {}


class Ended:
    """What became of a command."""

    def __init__(self, code: int, said: str) -> None:
        self.code, self.said = code, said

    def require(self, code: int | None, *parts: str, absent: str = "Traceback") -> "Ended":
        """Compare exit code and words; a code of None is any but 0."""
        assert absent not in self.said, self.said[-1500:]
        right = self.code != 0 if code is None else self.code == code
        assert right, f"exit code {self.code}, expected {code}: {self.said[-1500:]}"
        flat = " ".join(self.said.split())
        for part in parts:
            assert part in flat, f"{part!r} is not said: {self.said[-1500:]}"
        return self


class Place:
    """A folder for one case, with the fault's files, a tracker and a video."""

    def __init__(self, folder: Path, fault: Path, shared: Path) -> None:
        self.folder, self.fault = folder, fault
        self.tracker = shared / "tracker"
        self.made = shared / "made"
        shutil.copy(shared / "any.mp4", folder / "any.mp4")

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def copy(self, name: str, to: str | None = None) -> Path:
        source, target = self.fault / name, self.folder / (to or name)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)
        return target

    def own_tracker(self, name: str = "t") -> Path:
        return Path(shutil.copytree(self.tracker, self.folder / name))

    def start(self, *words: object, **environment: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "dytrack_pipelines.cli", *map(str, words)],
            cwd=self.folder,
            env={**os.environ, "COLUMNS": "200", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *words: object, **environment: str) -> Ended:
        process = self.start(*words, **environment)
        said, _ = process.communicate(timeout=600)
        return Ended(process.returncode, said)

    def track(self, video: str, *words: object) -> Ended:
        return self.run("track", video, "--init", "10,10,20,20", "--model", self.tracker, *words)


def case(function: Callable[[Place], None]) -> Callable[[Place], None]:
    """Take a function for the case of the fault that it is named after."""
    CASES[function.__name__] = function
    return function


@case
def checkpoint_save_deletes(at: Place) -> None:
    tracker = at.own_tracker()
    (tracker / "NOTES.md").write_text("notes")
    budget = ("--dataset", "got10k", "--root", at.made, "--split", "test", "--budget-gmacs", "0.2")
    at.run("calibrate", tracker, *budget).require(0)
    assert (tracker / "NOTES.md").read_text() == "notes"
    (at / "full").mkdir()
    (at / "full" / "thesis.txt").write_text("thesis")
    at.run("import-ostrack", tracker / "model.safetensors", "--out", "full").require(2)
    assert (at / "full" / "thesis.txt").read_text() == "thesis"


@case
def export_batch2_tracked(at: Place) -> None:
    at.run("export", at.tracker, "--out", "e", "--batch", 2).require(0)
    follow = ("track", "any.mp4", "--init", "10,10,20,20", "--model", "e")
    at.run(*follow).require(2, "was exported for batches of 2;", "export with --batch 1")
    at.run("export", at.tracker, "--out", "f").require(0)
    graph = sorted((at / "f").glob("stage*.onnx"))[0]
    graph.write_bytes(graph.read_bytes()[:2000])
    at.run(*follow[:-1], "f").require(2, f"{graph.name} is damaged; export again")


@case
def export_deletes_folder(at: Place) -> None:
    own = at.own_tracker("own")
    before = {path.name: path.read_bytes() for path in own.iterdir()}
    for name in ("out", "real"):
        (at / name).mkdir()
        (at / name / "thesis.txt").write_text("thesis")
    (at / "link").symlink_to("real")
    for target in ("out", "own", ".", "link"):
        at.run("export", own, "--out", target).require(2)
    assert {path.name: path.read_bytes() for path in own.iterdir()} == before
    assert (at / "out" / "thesis.txt").read_text() == "thesis"
    assert (at / "real" / "thesis.txt").read_text() == "thesis"


@case
def frame_size_changes(at: Place) -> None:
    at.copy("data")
    of = ("--dataset", "got10k", "--root", "data", "--split", "val")
    done = at.run("evaluate", *of, "--out", "out", "--model", at.tracker, "--point", "full")
    done.require(0, "2 sequences")
    at.run("calibrate", at.own_tracker(), *of, "--budget-gmacs", "1").require(0)


@case
def frames_prefixed_unpadded(at: Place) -> None:
    at.copy("data")
    of = ("--dataset", "video", "--root")
    at.run("evaluate", *of, "data", "--out", "out", "--tracker", "static").require(0)
    # The same frames with padded names give the same scores.
    padded = Path(shutil.copytree(at / "data", at / "padded"))
    for path in sorted(padded.rglob("*.jpg")):
        stem = path.stem.rstrip("0123456789")
        path.rename(path.with_name(f"{stem}{int(path.stem[len(stem) :]):06d}.jpg"))
    at.run("evaluate", *of, "padded", "--out", "out2", "--tracker", "static").require(0)
    import json

    one, two = (json.loads((at / f"{o}/summary.json").read_text()) for o in ("out", "out2"))
    assert one["baselines"][0]["success_auc"] == two["baselines"][0]["success_auc"]


@case
def groundtruth_header_row(at: Place) -> None:
    at.copy("data")
    done = at.run("data", "check", "--dataset", "video", "--root", "data")
    done.require(2, "passed over")
    assert "not four numbers" not in done.said
    assert "boxes for" not in done.said


@case
def groundtruth_semicolons(at: Place) -> None:
    at.copy("data")
    at.run("data", "check", "--dataset", "video", "--root", "data").require(0)


@case
def lasot_flags_short(at: Place) -> None:
    at.copy("data")
    done = at.run("data", "check", "--dataset", "lasot", "--root", "data")
    done.require(2, "full_occlusion.txt has 4 flags for 6 boxes")


@case
def mlflow_alias_after_upload(at: Place) -> None:
    store = f"sqlite:///{at / 'x.db'}"
    tracker = at.own_tracker()
    at.run("publish", tracker, "--alias", "v3", MLFLOW_TRACKING_URI=store).require(2)
    listed = at.run("models", MLFLOW_TRACKING_URI=store)
    assert "dytrack" not in listed.said.replace("dytrack publish", ""), listed.said


@case
def mlflow_publish_other_store(at: Place) -> None:
    run = at / "run"
    run.mkdir()
    shutil.copytree(at.tracker, run / "tracker")
    import json

    description = run / "tracker" / "tracker.json"
    content = json.loads(description.read_text())
    content["notes"]["run_id"] = content["notes"]["mlflow_run"] = "0123456789abcdef" * 2
    description.write_text(json.dumps(content))
    done = at.run("publish", run, MLFLOW_TRACKING_URI=f"sqlite:///{at / 'team.db'}")
    done.require(0, "models:/")


@case
def mlflow_two_at_once_fresh(at: Place) -> None:
    tracker = at.own_tracker()
    store = f"sqlite:///{at / 'x.db'}"
    words = [("publish", tracker, "--name", f"r{n}") for n in range(3)]
    some = [at.start(*one, MLFLOW_TRACKING_URI=store) for one in words]
    ended = [process.communicate(timeout=600)[0] for process in some]
    for process, said in zip(some, ended, strict=True):
        Ended(process.returncode, said).require(0)


@case
def mp4_fps_over_65(at: Place) -> None:
    for rate, suffix in ((105.611, "mp4"), (90_000.0, "webm"), (90_000.0, "mp4")):
        _film(at / "in.avi", 12, rate)
        out = f"o-{rate:.0f}.{suffix}"
        at.track("in.avi", "--out", out, "--csv", "o.csv").require(0)
        assert (at / out).is_file()
        assert len((at / "o.csv").read_text().splitlines()) == 13


@case
def name_with_colon(at: Place) -> None:
    shutil.copy(at / "any.mp4", at / "cam:1.mp4")
    at.track("cam:1.mp4", "--out", "a:b.mp4").require(0)
    assert (at / "a:b.mp4").is_file()


@case
def prepare_nothing(at: Place) -> None:
    inside = at / "o3" / "David" / "img"
    inside.mkdir(parents=True)
    for number in range(1, 13):
        cv2.imwrite(str(inside / f"{number:04d}.jpg"), np.zeros((48, 64, 3), np.uint8))
    (inside.parent / "groundtruth_rect.txt").write_text("5,5,20,20\n" * 471)
    at.run("prepare", "--dataset", "otb", "--root", "o3", "--out", "p").require(None, "o3")


@case
def recipe_duplicate_key(at: Place) -> None:
    at.run("train", at.copy("dup.yaml")).require(2, "line 3", "train stands twice")


@case
def recipe_tab_null(at: Place) -> None:
    at.run("train", at.copy("tab.yaml")).require(2, "line 3", "tabs cannot indent YAML")
    at.run("train", at.copy("null.yaml")).require(2, "train: has no keys")


@case
def result_with_bom(at: Place) -> None:
    at.copy("anno")
    at.copy("res")
    score = ("score", "--protocol", "lasot-matlab", "--annotations", "anno", "--results", "res")
    at.run(*score, "--json-file", "s.json").require(0)


@case
def search_ctrl_c(at: Place) -> None:
    from dytrack_pipelines import recipes

    clips = at / "clips"
    prepared = ("--dataset", "got10k", "--root", at.made, "--split", "test", "--out", clips)
    at.run("prepare", *prepared, "--search-size", 128).require(0)
    store = f"sqlite:///{at / 'm.db'}"
    process = at.start(
        "search",
        recipes.find("test"),
        "--set",
        f"data.train=[{{path: '{clips}'}}]",
        "--set",
        "data.validation_share=0.5",
        "--set",
        "train.batch_size=1",
        MLFLOW_TRACKING_URI=store,
    )
    time.sleep(30)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=300)
    Ended(process.returncode, said).require(130, "the same command")
    assert _status_of_runs(store) <= {"KILLED", "FINISHED"}


@case
def thermal_12bit_png(at: Place) -> None:
    at.copy("data")
    done = at.run("data", "check", "--dataset", "video", "--root", "data")
    done.require(2, "of its 16 bits")


@case
def track_ctrl_c(at: Place) -> None:
    _film(at / "long.mp4", 3904, 25)
    process = at.start(
        "track", "long.mp4", "--init", "10,10,20,20", "--model", at.tracker, "--csv", "o.csv"
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        beside = list(at.folder.glob(".o.csv.*"))
        if beside and beside[0].stat().st_size > 30_000:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    Ended(process.returncode, said).require(130, "wrote o.csv", "interrupted after")
    assert len((at / "o.csv").read_text().splitlines()) > 100


@case
def track_threads_0(at: Place) -> None:
    at.track("any.mp4", "--threads", 0).require(2)
    at.run("describe", at.tracker, "--threads", 0).require(2)
    at.run("ui", "--port", 99999).require(2)


@case
def video_cut_short(at: Place) -> None:
    _film(at / "whole.avi", 64, 25)
    content = (at / "whole.avi").read_bytes()
    (at / "cut.avi").write_bytes(content[: int(0.6 * len(content))])
    at.track("cut.avi", "--csv", "o.csv").require(
        None, "of the 64 frames that its header announces"
    )
    assert len((at / "o.csv").read_text().splitlines()) > 20


@case
def weights_html_lfs(at: Place) -> None:
    for name, what in (("page.pth", "web page"), ("lfs.pth", "Git LFS pointer")):
        done = at.run("import-ostrack", at.copy(name), "--out", "t").require(2, what)
        assert "weights_only" not in done.said


@case
def weights_prefixes_wrappers(at: Place) -> None:
    import torch

    from dytrack_model.errors import CheckpointError
    from dytrack_model.pretrained.files import read_tensors

    tensors = {"patch_embed.proj.weight": torch.zeros(8, 3, 4, 4), "pos_embed": torch.ones(1, 5, 8)}
    for prefix in ("_orig_mod.", "module.base_encoder.", "teacher.backbone."):
        torch.save({"model": {prefix + k: v for k, v in tensors.items()}}, at / "w.pth")
        assert set(read_tensors(at / "w.pth")) == set(tensors)
    for spoilt in (torch.full((1, 5, 8), float("nan")),):
        torch.save({**tensors, "pos_embed": spoilt}, at / "w.pth")
        try:
            read_tensors(at / "w.pth")
        except CheckpointError as error:
            assert "pos_embed" in str(error)  # noqa: PT017
        else:
            raise AssertionError("NaN was taken")


@case
def weights_safetensors_named_pth(at: Place) -> None:
    shutil.copy(at.tracker / "model.safetensors", at / "w.pth")
    at.run("import-ostrack", "w.pth", "--out", "t").require(2)


def _status_of_runs(store: str) -> set[str]:
    import mlflow

    runs = mlflow.MlflowClient(store).search_runs(["0", "1"])
    return {run.info.status for run in runs}


def _film(path: Path, frames: int, fps: float, size: tuple[int, int] = (96, 64)) -> None:
    """Write a video that any encoder could have written."""
    codec = {".avi": "MJPG", ".mp4": "mp4v"}[path.suffix]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, size)
    rng = np.random.default_rng(0)
    for _ in range(frames):
        writer.write(rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))
    writer.release()


def _shared(folder: Path) -> None:
    """Make what most cases need: a tracker, a video and a made dataset."""
    import torch

    from dytrack_model import checkpoint
    from dytrack_model.config import variant
    from dytrack_model.network import DyTrackNetwork
    from dytrack_model.policy import OperatingPoint
    from dytrack_platform.datasets.synthetic import SynthConfig, make

    torch.manual_seed(0)
    points = [OperatingPoint(name="balanced", thresholds=(0.5, 0.5))]
    checkpoint.save(folder / "tracker", DyTrackNetwork(variant("test")), points)
    _film(folder / "any.mp4", 24, 25)
    make(folder / "made", SynthConfig.from_dict({"frames": [12, 16]}), "test", 3, workers=1)


def main() -> int:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="a folder of faults")
    parser.add_argument("names", nargs="*", help="some of them; all where left out")
    options = parser.parse_args()
    there = sorted(path.name for path in options.folder.iterdir() if path.is_dir())
    failed = 0
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        shared = Path(name) / "shared"
        shared.mkdir()
        _shared(shared)
        for fault in options.names or there:
            began, verdict = time.monotonic(), "as expected"
            folder = Path(name) / fault
            folder.mkdir()
            if fault not in CASES:
                verdict = "NOT TRIED: no case of this name"
            else:
                try:
                    CASES[fault](Place(folder, options.folder / fault, shared))
                except (AssertionError, subprocess.TimeoutExpired, OSError) as error:
                    verdict = f"FAILED: {error}"
            failed += verdict != "as expected"
            print(f"{fault:32} {time.monotonic() - began:6.1f} s  {verdict}", flush=True)
    print(f"{failed} of {len(options.names or there)} are not as expected")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
