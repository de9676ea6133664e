"""Track a video from the command line: what is kept, whatever goes wrong."""

import csv
import math
import os
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import torch

from dytrack_model import checkpoint
from dytrack_model.config import variant
from dytrack_model.network import DyTrackNetwork
from dytrack_model.policy import OperatingPoint
from dytrack_pipelines.media import video as videos
from dytrack_pipelines.media.video import VideoWriter, count_frames, writable_rate


@pytest.fixture(scope="module")
def tracker(tmp_path_factory):
    torch.manual_seed(0)
    points = [OperatingPoint(name="balanced", thresholds=(0.0, math.inf))]
    folder = tmp_path_factory.mktemp("model") / "tracker"
    return str(checkpoint.save(folder, DyTrackNetwork(variant("test")), points))


def _film(path, frames=12, fps=25.0, size=(96, 64)):
    rng = np.random.default_rng(0)
    with VideoWriter(path, fps) as writer:
        for _ in range(frames):
            writer.write(rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))
    return path


def _rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def film(tmp_path):
    return _film(tmp_path / "in.mp4")


INIT = ("--init", "20,20,24,20")


def test_a_table_and_a_video_of_every_frame(dytrack, tracker, film, tmp_path):
    out, table = tmp_path / "out.mp4", tmp_path / "out.csv"
    for _ in range(2):  # and again over its own files
        done = dytrack(
            "track", str(film), *INIT, "--model", tracker, "--out", str(out), "--csv", str(table)
        )
        assert done.returncode == 0, done.stderr
    assert len(_rows(table)) == count_frames(out) == 12
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.csv", "out.mp4"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--out", "in.mp4"], "--out in.mp4: is what is read"),
        (["--csv", "in.mp4"], "--csv in.mp4: is what is read"),
        (["--out", "a.avi", "--csv", "a.avi"], "--csv a.avi: is also what --out names"),
        (["--csv", "thesis.txt"], "thesis.txt: is there, and dytrack did not write it"),
        (["--out", "thesis.mp4"], "thesis.mp4: is there, and dytrack did not write it"),
        (["--csv", "."], "--csv .: is a folder"),
    ],
)
def test_nothing_is_overwritten_that_dytrack_did_not_write(
    dytrack, tracker, film, tmp_path, monkeypatch, words, sentence
):
    monkeypatch.chdir(tmp_path)
    for name in ("thesis.txt", "thesis.mp4"):
        (tmp_path / name).write_bytes(b"years of work")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    done = dytrack("track", "in.mp4", *INIT, "--model", tracker, *words)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_file_that_is_cut_short_is_said_and_its_frames_are_kept(dytrack, tracker, tmp_path):
    whole = _film(tmp_path / "whole.avi", frames=40)
    cut, table = tmp_path / "cut.avi", tmp_path / "cut.csv"
    content = whole.read_bytes()
    cut.write_bytes(content[: int(len(content) * 0.6)])
    done = dytrack("track", str(cut), *INIT, "--model", tracker, "--csv", str(table))
    kept = len(_rows(table))
    assert 10 < kept < 38
    assert done.returncode == 2
    assert f"{kept} of the 40 frames that its header announces decode" in done.stderr


@pytest.mark.parametrize(
    ("fps", "written"),
    [(105.611, 105.61), (90_000.0, 1000.0), (29.97, 29.97), (0.0, 25.0), (math.nan, 25.0)],
)
def test_rates_are_what_the_containers_hold(fps, written):
    assert writable_rate(fps) == pytest.approx(written)


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".avi"])
@pytest.mark.parametrize("fps", [105.611, 90_000.0, 23.976, 0.2])
def test_every_rate_can_be_written_and_read(tmp_path, capfd, suffix, fps):
    path = _film(tmp_path / f"a:b{suffix}", fps=fps)
    reader = cv2.VideoCapture(str(path))
    frames = 0
    while reader.read()[0]:
        frames += 1
    assert frames == 12
    assert capfd.readouterr().err == ""


def test_a_rate_that_is_changed_is_said(dytrack, tracker, film, tmp_path, monkeypatch):
    from dytrack_model import images

    class Fast(images.VideoReader):
        def __init__(self, path):
            super().__init__(path)
            self.fps = 90_000.0

    monkeypatch.setattr(images, "VideoReader", Fast)
    out = tmp_path / "o.mp4"
    done = dytrack("track", str(film), *INIT, "--model", tracker, "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "says 90000 frames/s" in done.stdout
    assert "is written at 1000" in done.stdout


def test_the_table_is_written_whatever_becomes_of_the_video(
    dytrack, tracker, film, tmp_path, monkeypatch
):
    monkeypatch.setattr(videos, "count_frames", lambda _: 3)  # as on a full disk
    out, table = tmp_path / "o.mp4", tmp_path / "o.csv"
    done = dytrack(
        "track", str(film), *INIT, "--model", tracker, "--out", str(out), "--csv", str(table)
    )
    assert done.returncode == 1
    assert "not all 12 frames could be written" in done.stderr
    assert len(_rows(table)) == 12
    assert not out.exists()


def test_names_with_a_colon_are_read_and_written(dytrack, tracker, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _film(tmp_path / "cam:1.mp4")
    done = dytrack("track", "cam:1.mp4", *INIT, "--model", tracker, "--out", "a:b.mp4")
    assert done.returncode == 0, done.stderr
    assert count_frames(tmp_path / "a:b.mp4") == 12


@pytest.mark.parametrize("words", [["--threads", "0"], ["--threads", "-1"], ["--threads", "1e9"]])
def test_threads_have_bounds(dytrack, tracker, film, words):
    assert dytrack("track", str(film), *INIT, "--model", tracker, *words).returncode == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_was_tracked_is_kept_when_a_signal_ends_it(tracker, tmp_path, number):
    film = _film(tmp_path / "long.mp4", frames=4000)
    out, table = tmp_path / "o.mp4", tmp_path / "o.csv"
    command = [sys.executable, "-m", "dytrack_pipelines.cli", "track", str(film), *INIT]
    command += ["--model", tracker, "--out", str(out), "--csv", str(table)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as process:
        deadline = time.monotonic() + 60
        unfinished: list = []
        while time.monotonic() < deadline and process.poll() is None:
            unfinished = list(tmp_path.glob(".o.csv.*"))
            if unfinished and unfinished[0].stat().st_size > 20_000:
                break
            time.sleep(0.05)
        process.send_signal(number)
        said, complained = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    kept = len(_rows(table))
    assert 100 < kept < 4000
    assert count_frames(out) == kept
    assert not list(tmp_path.glob(".o*"))
    if number == signal.SIGINT:
        assert f"interrupted after {kept} of 4000 frames" in said
        assert "interrupted" in complained
