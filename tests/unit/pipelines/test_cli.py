import re
import subprocess
import sys

import pytest
import torch
import typer

from dytrack_model import checkpoint
from dytrack_model.config import variant
from dytrack_model.cost import exit_gmacs
from dytrack_model.network import DyTrackNetwork
from dytrack_model.policy import OperatingPoint, find_point
from dytrack_pipelines.cli import app


def commands():
    return sorted(typer.main.get_command(app).commands)


@pytest.mark.parametrize("name", commands())
def test_every_option_is_explained(name):
    command = typer.main.get_command(app).commands[name]
    assert command.help
    silent = [p.name for p in command.params if p.name != "help" and not getattr(p, "help", None)]
    assert silent == []


def test_a_mistake_in_a_recipe_ends_with_one_sentence_and_code_2(dytrack, tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("name: x\nmodel: {exits: [8, 4]}\n")
    done = dytrack("train", str(recipe))
    assert done.returncode == 2
    assert done.stderr == "error: model.exits: must rise strictly, got (8, 4)\n"
    assert done.stdout == ""


def test_debug_shows_the_traceback_wherever_it_stands(tmp_path):
    words = ["train", str(tmp_path / "gone.yaml"), "--debug"]
    command = [sys.executable, "-m", "dytrack_pipelines.cli", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    assert "Traceback" in done.stderr


@pytest.fixture(scope="module")
def tracker(tmp_path_factory):
    torch.manual_seed(0)
    points = [OperatingPoint(name="balanced", thresholds=(0.4, 0.4))]
    folder = tmp_path_factory.mktemp("model") / "tracker"
    return checkpoint.save(folder, DyTrackNetwork(variant("test")), points)


@pytest.fixture(scope="module")
def video(made, tmp_path_factory):
    from dytrack_pipelines.commands.demo import film

    return film(made, tmp_path_factory.mktemp("video") / "video.mp4")


def test_track_writes_a_video_and_a_table(dytrack, video, tracker, tmp_path):
    from dytrack_model.images import VideoReader

    path, box = video
    init = ",".join(f"{value:g}" for value in box)
    out, table = tmp_path / "new" / "out.mp4", tmp_path / "boxes.csv"
    words = ["track", str(path), "--init", init, "--model", str(tracker)]
    done = dytrack(*words, "--out", str(out), "--csv", str(table))
    assert done.returncode == 0, done.stderr
    frames = len(list(VideoReader(path).frames()))
    assert len(list(VideoReader(out).frames())) == frames
    lines = table.read_text().splitlines()
    assert lines[0] == "frame,x,y,w,h,exit,predicted_iou,lost,state"
    assert len(lines) == frames + 1
    assert re.fullmatch(
        r"1,(-?\d+\.\d{4},){4}[124],[01]\.\d{4},[01],(tracking|doubtful|lost)", lines[2]
    )
    assert sorted(p.name for p in out.parent.iterdir()) == ["out.mp4"]


@pytest.mark.slow
def test_tracking_with_a_folder_touches_neither_mlflow_nor_ray(video, tracker, tmp_path):
    path, box = video
    init = ",".join(f"{value:g}" for value in box)
    words = ["dytrack", "track", str(path), "--init", init, "--model", str(tracker)]
    code = (
        f"import sys; sys.argv = {words!r}\n"
        "from dytrack_pipelines import cli\n"
        "try:\n    cli.command()\nexcept SystemExit as ended:\n    assert not ended.code\n"
        "assert 'torch' in sys.modules\n"
        "sys.exit(bool({'mlflow', 'ray'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, timeout=120)


_PROCESS = """
import atexit, sys
from dytrack_pipelines import cli

class Kept:
    def __del__(self):
        print("torn down")

def command():
    atexit.register(print, "handled")
    run()

kept, run, cli.command = Kept(), cli.command, command
sys.argv = ["dytrack", "train", "nowhere.yaml"]
cli.main()
"""


def test_a_process_ends_with_its_code_as_soon_as_its_exit_handlers_ran():
    words = [sys.executable, "-c", _PROCESS]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "nowhere.yaml" in done.stderr
    assert done.stdout == "handled\n"


@pytest.mark.parametrize(
    ("init", "sentence"),
    [
        ("1,2,3", "--init: expected four numbers x,y,w,h in pixels, got '1,2,3'"),
        ("a,b,c,d", "--init: expected four numbers"),
        ("1,2,nan,4", "--init: expected four numbers"),
        ("10,10,0,5", "has no area"),
        ("900,10,5,5", "outside the image of 160x120"),
    ],
)
def test_a_box_that_is_no_target_is_named(dytrack, video, tracker, init, sentence):
    done = dytrack("track", str(video[0]), "--init", init, "--model", str(tracker))
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_video_that_does_not_open_is_named(dytrack, tracker, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a video")
    for path, sentence in ((broken, "OpenCV does not open it"), (tmp_path / "x.mp4", "no such")):
        done = dytrack("track", str(path), "--init", "1,1,5,5", "--model", str(tracker))
        assert done.returncode == 2
        assert sentence in done.stderr


def test_a_video_format_that_cannot_be_written_is_named_before_tracking(dytrack, video, tracker):
    words = ["--init", "10,10,20,20", "--model", str(tracker), "--out", "out.xyz"]
    done = dytrack("track", str(video[0]), *words)
    assert done.returncode == 2
    assert "out.xyz: a video's name must end in .mp4, .webm, .avi" in done.stderr


def test_an_unknown_point_names_the_known_ones(dytrack, video, tracker):
    words = ["--init", "10,10,20,20", "--model", str(tracker), "--point", "best"]
    done = dytrack("track", str(video[0]), *words)
    assert done.returncode == 2
    assert "this tracker has balanced" in done.stderr


def test_describe_shows_costs_and_points(dytrack, tracker):
    done = dytrack("describe", str(tracker), "--frames", "0")
    assert done.returncode == 0, done.stderr
    for gmacs in exit_gmacs(checkpoint.load(tracker).network):
        assert f"{gmacs:.4f}" in done.stdout
    assert "operating point balanced: leave where the predicted IoU reaches 0.4, 0.4" in done.stdout


def test_a_port_in_use_is_named(dytrack):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = dytrack("ui", "--port", str(port))
    assert done.returncode == 1
    assert f"127.0.0.1:{port} is in use" in done.stderr


@pytest.fixture
def full_disk(tmp_path):
    """A folder on a disk of its own with no space left."""
    folder = tmp_path / "full"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", "size=16k", "none", str(folder)]
    mounted = subprocess.run(["mount", *options], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("this user may not mount a disk of its own")
    (folder / "filler").write_bytes(bytes(12 * 1024))
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize(("option", "name"), [("--csv", "boxes.csv"), ("--out", "out.mp4")])
def test_a_full_disk_is_named_and_nothing_is_half_written(
    dytrack, video, tracker, full_disk, option, name
):
    (full_disk / "more").write_bytes(bytes(4 * 1024))
    init = ",".join(f"{value:g}" for value in video[1])
    words = ["track", str(video[0]), "--init", init, "--model", str(tracker)]
    done = dytrack(*words, option, str(full_disk / name))
    assert done.returncode == 1
    assert name in done.stderr
    assert "space" in done.stderr
    assert not (full_disk / name).exists()


def test_a_published_ostrack_becomes_a_tracker(dytrack, tmp_path):
    from tests.unit.model.pretrained.test_ostrack import published

    torch.save({"net": published()}, tmp_path / "OSTrack_ep0300.pth.tar")
    words = ["import-ostrack", str(tmp_path / "OSTrack_ep0300.pth.tar")]
    out = tmp_path / "tracker"
    done = dytrack(*words, "--out", str(out), "--exits", "1,3")
    assert done.returncode == 0, done.stderr
    assert "133 tensors loaded, 1 ignored, 16 to be trained" in done.stdout
    assert re.search(r"backbone\.pos_embed +│ +1 │ +ignored", done.stdout)
    saved = checkpoint.load(out)
    assert find_point(saved.points, "accurate", 2).thresholds == (float("inf"),)
    assert dytrack("describe", str(out), "--frames", "0").returncode == 0
    for exits, message in (("1,x", "expected block numbers"), ("1,2", "the last one must be")):
        done = dytrack(*words, "--out", str(tmp_path / "other"), "--exits", exits)
        assert (done.returncode, message in done.stderr) == (2, True)
    assert not (tmp_path / "other").exists()
