import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from dytrack_pipelines.commands.data import data_app
from dytrack_platform.datasets.prepared.preparation import finish, plan_preparation
from dytrack_platform.datasets.prepared.shards import write_shard
from dytrack_platform.datasets.prepared.windows import ClipConfig
from dytrack_platform.errors import ConfigurationError, DataError

KNOBS = ("width=96", "height=72", "frames=[8,10]", "target_side=[12,24]")


def run(*words):
    result = CliRunner().invoke(data_app, list(map(str, words)), catch_exceptions=True)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def synth(out, sequences=4, *more):
    knobs = [word for knob in KNOBS for word in ("--set", knob)]
    return run("synth", "--out", out, "--sequences", sequences, "--workers", 1, *knobs, *more)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    assert synth(root).exit_code == 0
    return root


@pytest.fixture(scope="module")
def clips(made, tmp_path_factory):
    out = tmp_path_factory.mktemp("clips")
    config = ClipConfig(search_size=128, frames=4, span=10)
    plan = plan_preparation("got10k", str(made), "train", str(out), config)
    return finish(plan, {job.file: write_shard(job) for job in plan.missing}).folder


@pytest.fixture
def damaged(made, tmp_path):
    import shutil

    root = tmp_path / "source"
    shutil.copytree(made, root)
    image = root / "train/train_000002/00000003.jpg"
    image.write_bytes(image.read_bytes()[:100])
    (root / "train/train_000003/groundtruth.txt").unlink()
    return root


def test_made_sequences_can_be_inspected(made):
    shown = run("inspect", "--dataset", "got10k", "--root", made, "--split", "train").stdout
    assert "4 sequences" in shown
    assert "target size, pixels" in shown
    assert "motion a frame, target sizes" in shown
    assert "blob" in shown


def test_prepared_clips_can_be_inspected(clips):
    shown = run("inspect", "--prepared", clips).stdout
    assert "4 sequences, 16 frames" in shown
    assert "motion a frame, target sizes" in shown
    assert "target size, pixels" in shown


def test_a_whole_source_and_whole_clips_have_no_fault(made, clips):
    for words in (("--dataset", "got10k", "--root", made), ("--prepared", clips)):
        result = run("check", *words)
        assert result.exit_code == 0
        assert ", 0 faults" in result.stdout


def test_every_fault_of_a_source_is_listed(damaged):
    result = run("check", "--dataset", "got10k", "--root", damaged, "--split", "train")
    assert result.exit_code == 2
    assert "train_000002 frame 2" in result.stdout
    assert "00000003.jpg: the image is cut short" in result.stdout
    assert "groundtruth.txt: cannot be read" in result.stdout
    assert "4 checked, 2 faults" in result.stdout


def test_annotations_can_be_checked_without_decoding(damaged):
    result = run("check", "--dataset", "got10k", "--root", damaged, "--no-frames")
    assert "1 faults" in result.stdout


def test_damage_to_prepared_clips_is_listed(clips, tmp_path):
    import shutil

    copy = tmp_path / "clips"
    shutil.copytree(clips, copy)
    shards = sorted(copy.glob("part-*.parquet"))
    shards[0].write_bytes(b"gone")
    whole = shards[1].read_bytes()
    place = whole.find(b"\xff\xd8\xff")  # the first window's beginning
    shards[1].write_bytes(whole[:place] + bytes(8) + whole[place + 8 :])
    result = run("check", "--prepared", copy)
    assert result.exit_code == 2
    assert f"{shards[0].name}: is missing or is not Parquet" in result.stdout
    assert "does not decode as an image" in result.stdout
    assert ", 2 faults" in result.stdout


def test_an_unfinished_preparation_is_a_fault(made, tmp_path):
    plan = plan_preparation("got10k", str(made), "train", str(tmp_path), ClipConfig())
    result = run("check", "--prepared", plan.partition.root)
    assert result.exit_code == 2
    assert "was not finished" in result.stdout


@pytest.mark.parametrize("suffix", ["png", "html"])
def test_a_preview_shows_the_pairs_of_a_recipe(clips, tmp_path, suffix):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "name: preview\nmodel: {variant: test}\ntrain: {batch_size: 4}\n"
        f"data: {{pairs_per_epoch: 16, train: [{{path: {clips}}}]}}\n"
    )
    out = tmp_path / f"pairs.{suffix}"
    assert run("preview", recipe, "--out", out, "--pairs", 6).exit_code == 0
    if suffix == "png":
        sheet = cv2.imread(str(out))
        assert sheet.shape == (2 * 136, 4 * (64 + 4 + 128 + 8), 3)
        assert (np.abs(sheet.astype(int) - (90, 230, 60)).sum(axis=2) == 0).sum() > 100  # boxes
    else:
        page = out.read_text()
        assert page.count("<figure>") == 6
        assert "got10k/train_00000" in page
        assert "http" not in page


def test_a_preview_of_another_kind_is_refused(clips, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"name: p\nmodel: {{variant: test}}\ndata: {{train: [{{path: {clips}}}]}}\n"
        "train: {batch_size: 4}\n"
    )
    with pytest.raises(ConfigurationError, match=r"pairs\.gif: a preview is a \.png or an \.html"):
        run("preview", recipe, "--out", tmp_path / "pairs.gif", "--pairs", 4)


@pytest.mark.parametrize(
    ("knob", "message"),
    [
        ("speed=3", "speed: no such knob; known: width, height"),
        ("width=wide", "width: must be of type int, got 'wide'"),
        ("occlusion=high", "occlusion: must be a number, got 'high'"),
        ("frames=7", "frames: must be a list of 2 numbers, got 7"),
        ("rotation=2", r"rotation: must lie in \[0, 1\], got 2"),
    ],
)
def test_a_wrong_knob_is_refused_by_name(tmp_path, knob, message):
    with pytest.raises(ConfigurationError, match=message):
        run("synth", "--out", tmp_path, "--set", knob)
    assert list(tmp_path.iterdir()) == []


def test_a_source_needs_a_dataset_and_a_root(made):
    result = run("inspect", "--root", made)
    assert result.exit_code == 2
    with pytest.raises(DataError, match="is not known"):
        run("inspect", "--dataset", "nosuch", "--root", made)
