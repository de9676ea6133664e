import dataclasses
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from dytrack_model import checkpoint
from dytrack_model.config import variant
from dytrack_model.network import DyTrackNetwork
from dytrack_model.policy import OperatingPoint
from dytrack_pipelines.media import panels
from dytrack_platform.evaluation.peers import catalogue
from dytrack_platform.experiment.evaluate import versus

# A runner that keeps the first box, and one whose tracker dies.
FAKE = """
import json, sys
kind = json.loads(sys.argv[1])["kind"]
print(json.dumps({"ready": "fake"}), flush=True)
for line in sys.stdin:
    job = json.loads(line)
    for k in range(job["frames"]):
        if kind == "KCF" and k == 2:
            sys.exit("Killed")
        print(json.dumps({"frame": k, "box": job["box"], "score": 0.5, "lost": False, "exit": -1,
                          "ms": 2.0, "decode_ms": 1.0, "size": [160, 120]}), flush=True)
    print(json.dumps({"done": True}), flush=True)
"""


@pytest.fixture(scope="module")
def tracker(tmp_path_factory):
    torch.manual_seed(0)
    points = [OperatingPoint(name="balanced", thresholds=(0.4, 0.4))]
    folder = tmp_path_factory.mktemp("model") / "tracker"
    return str(checkpoint.save(folder, DyTrackNetwork(variant("test")), points))


@pytest.fixture(scope="module")
def video(made, tmp_path_factory):
    from dytrack_pipelines.commands.demo import film

    return film(made, tmp_path_factory.mktemp("video") / "video.mp4")


@pytest.fixture
def fake_runner(monkeypatch, tmp_path):
    script = tmp_path / "fake.py"
    script.write_text(FAKE)
    monkeypatch.setattr(catalogue, "runner", SimpleNamespace(__file__=str(script)))


@pytest.mark.slow
def test_a_dataset_with_truth(dytrack, made, tracker, tmp_path, fake_runner):
    numbers = tmp_path / "numbers.json"
    words = ["versus", "--model", tracker, "--point", "exit-2", "--dataset", "got10k"]
    words += ["--root", str(made), "--split", "test", "--peer", "mil", "--peer", "kcf"]
    done = dytrack(*words, "--out", str(tmp_path / "out"), "--json-file", str(numbers))
    assert done.returncode == 0, done.stderr
    found = json.loads(numbers.read_text())
    assert [row["name"] for row in found["trackers"]] == ["exit-2", "kcf", "mil"]
    ours, dead, fake = found["trackers"]
    assert ours["about"] == "torch, fp32"
    assert ours["exit_share"] == [0.0, 1.0]
    assert ours["failed"] == {}
    assert ours["lost"] is not None
    assert len(dead["failed"]) == found["sequences"] == 3
    assert dead["iou"] < fake["iou"]
    assert found["best_peer"] == "mil"
    assert "* kcf: failed on 3 of 3 sequences" in done.stdout
    assert catalogue.TRAINED_ON in done.stdout
    assert re.search(r"│ exit-2 +│ +0\.\d{3} │", done.stdout)
    assert (tmp_path / "out/versus.html").is_file()
    assert (tmp_path / "out/versus.png").is_file()


@pytest.fixture
def quick(fake_runner, monkeypatch):
    """Our own process, whose start takes seconds, runs in the slow test above."""

    def ours(folder, names, how, *, memory_bytes):
        (entry,) = catalogue.peer_entries(["csrt"])
        return [dataclasses.replace(entry, name=names[0], ours=True)]

    monkeypatch.setattr(versus, "our_entries", ours)


def test_a_video_without_truth(dytrack, video, tracker, quick):
    path, box = video
    init = ",".join(f"{value:g}" for value in box)
    words = ["versus", "--model", tracker, "--point", "balanced", "--peer", "mil"]
    done = dytrack(*words, "--video", str(path), "--init", init)
    assert done.returncode == 0, done.stderr
    assert "agreement" in done.stdout
    assert "no truth" in done.stdout
    assert "mean IoU" not in done.stdout


def frames_of(path):
    capture = cv2.VideoCapture(str(path))
    rate, shown = capture.get(cv2.CAP_PROP_FPS), []
    while (read := capture.read())[0]:
        shown.append(read[1][..., ::-1])
    return rate, np.array(shown)


def test_all_trackers_are_filmed_side_by_side(dytrack, video, tracker, quick, tmp_path):
    path, (x, y, w, h) = video
    out = tmp_path / "films" / "all.mp4"
    words = ["versus", "--model", tracker, "--point", "balanced", "--peer", "mil", "--peer", "kcf"]
    words += ["--video", str(path), "--init", f"{x:g},{y:g},{w:g},{h:g}", "--out-video", str(out)]
    done = dytrack(*words, "--json")
    assert done.returncode == 0, done.stderr
    assert f"video: {out}" in done.stderr
    assert [row["name"] for row in json.loads(done.stdout)["trackers"]] == [
        *("balanced", "kcf", "mil"),
    ]
    rate, shown = frames_of(out)
    before, source = frames_of(path)
    assert rate == pytest.approx(before)
    assert len(shown) == len(source)
    # Three panels in a row, each at least 240 pixels wide: the video's 160 are enlarged.
    assert shown.shape[1:] == (180 + panels.HEAD, 720, 3)
    # The frame is in every panel; KCF's box is gone after it died in the third frame.
    mine, dead, fake = np.split(shown[5, panels.HEAD :].astype(int), 3, axis=1)
    larger = cv2.resize(source[5], (240, 180), interpolation=cv2.INTER_AREA)
    assert np.abs(dead - larger).mean() < 6
    assert np.abs(mine - fake).mean() < 6
    assert np.abs(mine - larger).mean() > np.abs(dead - larger).mean() + 0.5


@pytest.mark.slow
def test_a_film_is_made_for_each_of_several_sequences(dytrack, made, tracker, quick, tmp_path):
    words = ["versus", "--model", tracker, "--point", "balanced", "--peer", "mil"]
    words += ["--dataset", "got10k", "--root", str(made), "--split", "test"]
    done = dytrack(*words, "--out-video", str(tmp_path / "film.webm"))
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.glob("film*")) == [
        *("film.test_000001.webm", "film.test_000002.webm", "film.test_000003.webm"),
    ]


def test_a_film_replaces_no_input_and_nobodys_file(dytrack, video, tracker, quick, tmp_path):
    path, box = video
    before = path.read_bytes()
    words = ["versus", "--model", tracker, "--point", "balanced", "--peer", "mil"]
    words += ["--video", str(path)]
    words += ["--init", ",".join(map(str, box)), "--out-video"]
    done = dytrack(*words, str(path))
    assert done.returncode == 2
    assert "is what is read; name another file" in done.stderr
    (tmp_path / "mine.mp4").write_bytes(b"mine")
    done = dytrack(*words, str(tmp_path / "mine.mp4"))
    assert done.returncode == 2
    assert "dytrack did not write it" in done.stderr
    done = dytrack(*words, str(tmp_path / "film.gif"))
    assert done.returncode == 2
    assert "a video's name must end in .mp4, .webm, .avi" in done.stderr
    assert path.read_bytes() == before


def mistakes():
    data = ["--dataset", "got10k", "--root", "ROOT", "--split", "test"]
    film = ["--video", "VIDEO", "--init"]
    model = ["--model", "MODEL"]
    yield [*data, "--peer", "nanov2"], r"--peer: must be"  # the tracker that comes with dytrack
    yield ["--model", "gone", *data], r"gone: no such tracker"
    yield [*model, "--peer", "nanov2", *data], r"--peer: must be .* did you mean nano-v2\?"
    yield [*model, "--peers", "EMPTY", *data], r"--peers: .* holds none of the files"
    yield [*model, "--peers", "gone", *data], r"--peers: gone: no such folder"
    yield [*model, "--contrib-python", "gone", *data], r"--contrib-python: gone: no such inter"
    yield [*model, "--point", "exit-7", *data], r"exit-7: this tracker has no such exit; it has e"
    yield model, r"give --video FILE with --init x,y,w,h, or --dataset NAME with --root FOLDER"
    yield [*model, *data, *film, "1,2,3,4"], r"--video: give videos or a --dataset, not both"
    yield [*model, *data, "--sequence", "x"], r"--sequence x: .* has no sequence of that name"
    yield [*model, "--video", "VIDEO"], r"--init: give one for each --video: 1 videos, 0 boxes"
    yield [*model, *film, "1,2,3"], r"--init: expected four numbers"
    yield [*model, *film, "500,500,9,9"], r"--init: box 500,500,9,9 has no area or lies outside"
    yield [*model, "--video", "gone.mp4", "--init", "1,2,3,4"], r"gone.mp4: no such video"
    yield [*model, *data, "--protocol", "x"], r"protocol: must be one of"


@pytest.mark.parametrize(("words", "sentence"), list(mistakes()))
def test_a_mistake_is_one_sentence_and_code_2(
    dytrack, made, tracker, video, tmp_path, words, sentence
):
    (tmp_path / "empty").mkdir()
    places = {"ROOT": made, "MODEL": tracker, "VIDEO": video[0], "EMPTY": tmp_path / "empty"}
    done = dytrack("versus", *(str(places.get(word, word)) for word in words))
    assert done.returncode == 2
    assert re.match(f"error: .*{sentence}", done.stderr), done.stderr
    assert done.stderr.count("\n") == 1


def test_all_points_and_exits_are_taken_where_none_is_named(tracker):
    entries = versus.our_entries(Path(tracker))
    assert [entry.name for entry in entries] == ["balanced", "exit-1", "exit-2", "exit-4"]
    assert all(entry.ours and entry.command[0] == sys.executable for entry in entries)
