"""dytrack track: every kind of source, several targets, and the same boxes as in Python."""

import csv
import http.server
import json
import subprocess
import sys
import threading
import time

import cv2
import numpy as np
import pytest

from dytrack_model import Tracker
from dytrack_model import runtime as runtimes
from dytrack_pipelines.commands import track as commands
from dytrack_pipelines.media.overlay import Mark
from dytrack_pipelines.media.yolo import YoloFolder
from dytrack_platform.interop import rerun_recording
from tests.unit.platform.serving.test_faults import moving

GOLDEN = "tests/golden/tracker"
BOX = (40.0, 30.0, 30.0, 24.0)


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for k in range(12):
        cv2.imwrite(str(folder / f"frame{k}.png"), moving(k)[..., ::-1])
    return folder


def boxes_of(path, target=None):
    rows = [
        r
        for r in csv.DictReader(path.read_text().splitlines())
        if target in (None, r.get("target"))
    ]
    return np.array([[float(row[key]) for key in "xywh"] for row in rows])


def test_a_folder_and_a_pattern_give_the_boxes_that_python_gives(dytrack, pictures, tmp_path):
    tracker = Tracker.load(GOLDEN)
    frames = [pictures / f"frame{k}.png" for k in range(12)]
    expected = np.stack([BOX, *(one.box_xywh for one in tracker.track(frames, BOX))])
    init = ",".join(map(str, BOX))
    sources = (pictures, pictures / "frame*.png", pictures / "frame%d.png")
    for number, source in enumerate(map(str, sources)):
        out = tmp_path / f"{number}.csv"
        ended = dytrack("track", source, "--init", init, "--model", GOLDEN, "--csv", str(out))
        assert ended.returncode == 0, ended.stderr
        np.testing.assert_allclose(boxes_of(out), expected, atol=1e-3)
        assert "exits taken" in ended.stdout


@pytest.mark.parametrize("option", ["--csv", "--jsonl", "--mot"])
def test_rows_go_to_standard_output_alone(dytrack, pictures, tmp_path, option):
    words = ("track", str(pictures), "--init", ",".join(map(str, BOX)), "--model", GOLDEN)
    named = dytrack(*words, option, str(tmp_path / "rows"))
    piped = dytrack(*words, option, "-")
    assert piped.returncode == named.returncode == 0, piped.stderr
    assert piped.stdout.splitlines() == (tmp_path / "rows").read_text().splitlines()
    assert "exits taken" in piped.stderr
    assert "no file was asked for" not in piped.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--cvat", "-"), "--cvat -: is not written line by line; only --csv, --jsonl, --mot can"),
        (("--out", "-"), "--out -: is not written line by line"),
        (("--csv", "-", "--jsonl", "-"), "--csv - and --jsonl -: standard output takes one"),
        (("--csv", "-", "--json"), "--csv - and --json: standard output takes one of them"),
    ],
)
def test_standard_output_takes_one_kind_of_rows(dytrack, pictures, words, said):
    ended = dytrack("track", str(pictures), "--init", "1,1,9,9", "--model", GOLDEN, *words)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert ended.stdout == ""


@pytest.mark.slow
def test_rows_come_frame_by_frame_and_a_reader_may_leave(pictures):
    words = ("track", str(pictures), "--init", ",".join(map(str, BOX)), "--model", GOLDEN)
    command = [sys.executable, "-m", "dytrack_pipelines.cli", *words, "--csv", "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout.readline().startswith(b"frame,x,y,w,h,")
        assert running.stdout.readline().startswith(b"0,40.0000,30.0000,")
        running.stdout.close()
        assert b"Traceback" not in running.stderr.read()


def test_the_summary_counts_what_the_table_says(dytrack, pictures, tmp_path, monkeypatch):
    # The target is gone after twelve frames.
    for k in range(12, 30):
        cv2.imwrite(str(pictures / f"frame{k}.png"), np.full((96, 128, 3), 5 * k % 200, np.uint8))
    monkeypatch.setattr(commands, "find_spec", lambda name: None)
    words = ("track", str(pictures), "--init", ",".join(map(str, BOX)))
    ended = dytrack(*words, "--model", "reference-tiny", "--csv", str(tmp_path / "b.csv"))
    assert ended.returncode == 0, ended.stderr
    rows = list(csv.DictReader((tmp_path / "b.csv").read_text().splitlines()))
    states = [row["state"] for row in rows]
    counts = [states.count(state) for state in ("doubtful", "lost")]
    assert min(counts) > 0
    assert f"doubtful in {counts[0]}, lost in {counts[1]}\n" in ended.stdout
    assert f"frame {states.index('lost')}: lost" in ended.stdout
    assert "runtime torch, fp32, 1 thread\npip install 'dytrack[export]'" in ended.stdout
    chosen = dytrack(*words, "--model", GOLDEN, "--runtime", "torch")
    assert "pip install" not in chosen.stdout


def test_an_interrupted_frame_counts_for_nobody(dytrack, pictures, monkeypatch):
    step, calls = Tracker.step, []

    def interrupted(tracker, frame):
        calls.append(frame)
        if len(calls) == 6:  # the second target's third frame
            raise KeyboardInterrupt
        return step(tracker, frame)

    monkeypatch.setattr(Tracker, "step", interrupted)
    boxes = ("--init", "40,30,30,24", "--init", "60,20,24,24")
    ended = dytrack("track", str(pictures), *boxes, "--model", GOLDEN, "--json")
    assert ended.returncode == 130
    said = json.loads(ended.stdout)
    assert said["frames"] == 2
    assert sum(said["exits"].values()) == 4


@pytest.mark.slow
def test_a_long_video_runs_on_the_quickest_runtime(dytrack, tmp_path, monkeypatch):
    film = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 30, (96, 64))
    for k in range(20):
        film.write(np.full((64, 96, 3), 10 * k, np.uint8))
    film.release()
    words = ("track", str(tmp_path / "v.avi"), "--init", "30,20,20,20", "--model", GOLDEN)
    assert "runtime torch" in dytrack(*words).stdout
    monkeypatch.setattr(runtimes, "WORTH_CONVERTING", 20)
    said = dytrack(*words).stdout
    assert f"opening {GOLDEN} on openvino\n" in said
    assert "runtime openvino" in said
    assert "runtime torch" in dytrack(*words, "--runtime", "torch").stdout


@pytest.mark.slow
def test_several_targets_are_followed_as_each_alone(dytrack, pictures, tmp_path):
    second = (60.0, 20.0, 24.0, 24.0)
    start = [{"id": "a", "box": BOX}, {"id": "b", "box": second}]
    (tmp_path / "start.json").write_text(json.dumps(start))
    words = ("track", str(pictures), "--model", GOLDEN)
    both = tmp_path / "both.csv"
    given = ("--init-from", str(tmp_path / "start.json"), "--csv", str(both))
    film = tmp_path / "film.mp4"
    ended = dytrack(*words, *given, "--out", str(film), "--lasot", str(tmp_path / "l.txt"))
    assert ended.returncode == 0, ended.stderr
    assert "of 2 targets" in ended.stdout
    for name, box in (("a", BOX), ("b", second)):
        alone = tmp_path / f"{name}.csv"
        init = ",".join(map(str, box))
        assert dytrack(*words, "--init", init, "--csv", str(alone)).returncode == 0
        np.testing.assert_allclose(boxes_of(both, name), boxes_of(alone), atol=1e-3)
        text = np.loadtxt(tmp_path / f"l-{name}.txt", delimiter=",")
        np.testing.assert_allclose(text, boxes_of(alone), atol=1e-3)
    assert film.stat().st_size > 1000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "one way"),
        (("--init", "1,2,3,4", "--init-from", "x.json"), "one way"),
        (("--init", "1,2,3"), "four numbers"),
        (("--init-from", "nowhere.json"), "cannot be read"),
        (("--select",), "dytrack serve draws boxes in a browser"),
    ],
)
def test_first_boxes_are_given_one_way(dytrack, pictures, words, said):
    ended = dytrack("track", str(pictures), "--model", GOLDEN, *words)
    assert ended.returncode in (1, 2)
    assert said in " ".join(ended.stderr.split())


def test_a_lasot_file_of_a_target_is_not_written_over_somebodys(dytrack, pictures, tmp_path):
    (tmp_path / "l-2.txt").write_text("mine")
    words = ("--init", "40,30,30,24", "--init", "60,20,24,24", "--lasot", str(tmp_path / "l.txt"))
    ended = dytrack("track", str(pictures), "--model", GOLDEN, *words)
    assert ended.returncode == 2
    assert "dytrack did not write it" in ended.stderr
    assert (tmp_path / "l-2.txt").read_text() == "mine"


def test_a_folder_of_labels_is_not_somebodys(dytrack, pictures, tmp_path):
    words = ("track", str(pictures), "--model", GOLDEN, "--init", "40,30,30,24")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "000001.txt").write_text("0 1 1 1 1")
    ended = dytrack(*words, "--yolo", str(tmp_path / "mine"))
    assert ended.returncode == 2
    assert "dytrack did not write it" in ended.stderr
    for _ in range(2):
        assert dytrack(*words, "--yolo", str(tmp_path / "ours")).returncode == 0
    assert len(list((tmp_path / "ours").glob("*.txt"))) == 12
    # Somebody's label in our folder stays, whatever it is called.
    (tmp_path / "ours" / "000100.txt").write_text("0 1 1 1 1")
    ended = dytrack(*words, "--yolo", str(tmp_path / "ours"))
    assert ended.returncode == 2
    assert "holds 000100.txt, which is not among the labels that dytrack noted" in ended.stderr
    assert (tmp_path / "ours" / "000100.txt").read_text() == "0 1 1 1 1"


def test_labels_of_a_run_that_was_killed_are_known_as_ours(tmp_path):
    mark = Mark(box_xywh=np.array([1.0, 2, 3, 4]))
    killed = YoloFolder(tmp_path / "l", ["target"], (64, 48), "v.avi")
    for _ in range(3):
        killed.write({"target": mark}, (64, 48))
    again = YoloFolder(tmp_path / "l", ["target"], (64, 48), "v.avi")
    again.write({"target": mark}, (64, 48))
    again.close()
    assert [path.name for path in sorted((tmp_path / "l").glob("*.txt"))] == ["000000.txt"]


def test_nothing_of_a_source_is_replaced(dytrack, pictures, tmp_path):
    before = (pictures / "frame3.png").read_bytes()
    for option in ("--csv", "--coco", "--mot"):
        out = str(pictures / "frame3.png")
        ended = dytrack(
            "track",
            str(pictures / "*.png"),
            "--model",
            GOLDEN,
            "--init",
            "40,30,30,24",
            option,
            out,
        )
        assert ended.returncode == 2
    assert (pictures / "frame3.png").read_bytes() == before


def test_a_camera_that_is_not_there_is_told(dytrack):
    ended = dytrack("track", "97", "--model", GOLDEN, "--init", "1,2,3,4")
    assert ended.returncode == 2
    assert "camera 97" in ended.stderr


class Camera(http.server.BaseHTTPRequestHandler):
    """Sends pictures one by one, as a network camera does (multipart JPEG), at 25 a second."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for k in range(300):
            _, jpeg = cv2.imencode(".jpg", moving(k % 12)[..., ::-1])
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            self.wfile.write(head.encode() + jpeg.tobytes() + b"\r\n")
            time.sleep(0.04)

    def log_message(self, *_):
        """Say nothing."""


@pytest.mark.slow
def test_a_network_camera_is_followed_to_its_end(dytrack, tmp_path):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Camera) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        where = f"http://127.0.0.1:{server.server_port}/camera.mjpg"
        out = tmp_path / "live.csv"
        words = ("--model", GOLDEN, "--init", "40,30,30,24", "--csv", str(out))
        ended = dytrack("track", where, *words)
        server.shutdown()
    assert ended.returncode == 0, ended.stderr
    assert "runtime openvino" in ended.stdout  # who knows how long it goes on
    assert 50 < len(boxes_of(out)) <= 300


def test_a_box_that_is_mostly_outside_is_doubted(dytrack, pictures):
    """Corners given as x,y,width,height reach outside on the right and below."""
    done = dytrack("track", str(pictures), "--init", "100,60,70,84", "--model", GOLDEN)
    assert done.returncode == 0, done.stderr
    assert "only 17% of the box 100,60,70,84 lies inside the 128x96 frame" in done.stdout
    assert "no file was asked for: --out VIDEO draws the boxes" in done.stdout
    huge = dytrack("track", str(pictures), "--init", "1,1,1e300,1e300", "--model", GOLDEN)
    assert huge.returncode == 2
    assert "is many times as large as the image" in huge.stderr


def test_what_is_not_installed_is_told_before_anything_is_opened(
    dytrack, pictures, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "rerun", None)
    monkeypatch.setattr(rerun_recording, "find_spec", lambda name: None)
    words = ("--init", ",".join(map(str, BOX)), "--model", GOLDEN, "--mot", str(tmp_path / "m.txt"))
    done = dytrack("track", str(pictures), *words, "--rerun", str(tmp_path / "r.rrd"))
    assert done.returncode == 1
    assert "--rerun: needs pip install 'dytrack[interop]'" in done.stderr
    assert not list(tmp_path.glob("*.txt"))
