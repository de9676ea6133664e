"""Preparation over Ray Data: the same bytes for any workers, after kills, and with damage."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from dytrack_platform.datasets.prepared.windows import ClipConfig
from dytrack_platform.datasets.synthetic import SynthConfig, make
from dytrack_platform.errors import FailureError, StorageError
from dytrack_platform.experiment import ingest

pytestmark = [
    pytest.mark.ray,
    # Ray Data warns of its own defaults.
    pytest.mark.filterwarnings("ignore:`use_:DeprecationWarning:ray.data.context"),
    pytest.mark.filterwarnings("ignore:`target_shuffle:UserWarning:ray.data.context"),
]

SMALL = replace(SynthConfig(), width=160, height=120, frames=(24, 30), target_side=(16.0, 40.0))
CLIPS = ClipConfig(search_size=64, frames=12, span=12, sequences_per_shard=1)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return str(make(tmp_path_factory.mktemp("source"), SMALL, "train", 24, workers=2).parent)


@pytest.fixture(scope="module")
def clean(ray_session, source, tmp_path_factory):
    out = tmp_path_factory.mktemp("clean")
    ingest.prepare("got10k", source, "train", str(out), CLIPS)
    return content(out)


def content(out):
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in out.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def test_every_sequence_is_prepared_and_progress_is_reported(ray_session, source, tmp_path):
    reports = []
    done = ingest.prepare("got10k", source, "train", str(tmp_path), CLIPS, report=reports.append)
    assert done.sequences == 24
    assert done.rejects == 0
    assert reports[0].shards == 0
    assert reports[-1].sequences == reports[-1].all_sequences == 24
    assert [r.shards for r in reports] == sorted(r.shards for r in reports)
    assert reports[-1].frames == done.frames


def test_over_ray_and_in_one_process_the_bytes_are_the_same(clean, source, tmp_path):
    from dytrack_platform.datasets.prepared.preparation import finish, plan_preparation
    from dytrack_platform.datasets.prepared.shards import write_shard

    plan = plan_preparation("got10k", source, "train", str(tmp_path), CLIPS)
    finish(plan, {job.file: write_shard(job) for job in reversed(plan.jobs)})
    assert content(tmp_path) == clean


def test_a_second_preparation_writes_no_shard_again(ray_session, source, tmp_path):
    ingest.prepare("got10k", source, "train", str(tmp_path), CLIPS)
    times = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("part-*")}
    reports = []
    ingest.prepare("got10k", source, "train", str(tmp_path), CLIPS, report=reports.append)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("part-*")} == times
    assert [r.sequences for r in reports] == [24]


def test_a_folder_that_cannot_be_written_fails_with_its_name(ray_session, source, tmp_path):
    from dytrack_platform.datasets.prepared.preparation import plan_preparation

    plan = plan_preparation("got10k", source, "train", str(tmp_path), CLIPS)
    for job in plan.jobs:  # folders where the files should go, even for the user root
        (Path(plan.partition.root) / job.file / "x").mkdir(parents=True)
    with pytest.raises(StorageError, match=r"part-\d+\.parquet: cannot be written"):
        ingest.prepare("got10k", source, "train", str(tmp_path), CLIPS)


def test_killed_ten_times_it_ends_with_the_bytes_of_one_clean_run(clean, source, tmp_path):
    program = (
        "import sys, os\n"
        "from dytrack_platform.datasets.prepared.windows import ClipConfig\n"
        "from dytrack_platform.experiment import ingest\n"
        "def report(p): print(p.shards, flush=True)\n"
        "config = ClipConfig(search_size=64, frames=12, span=12, sequences_per_shard=1)\n"
        "ingest.prepare('got10k', sys.argv[1], 'train', sys.argv[2], config, report=report)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    chance = random.Random(0)
    for _ in range(10):
        process = subprocess.Popen(
            [sys.executable, "-c", program, source, str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
            text=True,
        )
        # Sometimes before the first shard, sometimes after a few.
        for _ in range(chance.choice((1, 2, 3))):
            process.stdout.readline()
        time.sleep(chance.uniform(0, 0.3))
        os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()
        process.wait()
    ingest.prepare("got10k", source, "train", str(tmp_path), CLIPS)
    assert content(tmp_path) == clean


class Deadly:
    """Frames that end the process which reads them: once, or for as long as ``flag`` is None."""

    def __init__(self, frames, flag):
        self.frames, self.flag = frames, flag

    def __len__(self):
        return len(self.frames)

    def path(self, index):
        return self.frames.path(index)

    def read(self, index):
        if self.flag is None or not self.flag.exists():
            if self.flag is not None:
                self.flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.frames.read(index)


def spoil(monkeypatch, name, flag):
    """Let the frames of one sequence kill their worker."""
    from ray import cloudpickle

    from dytrack_platform.datasets import readers

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    read = readers.read

    def spoilt(*given):
        for sequence in read(*given):
            frames = Deadly(sequence.frames, flag) if sequence.name == name else sequence.frames
            yield replace(sequence, frames=frames)

    monkeypatch.setattr(readers, "read", spoilt)


def test_a_worker_that_dies_costs_nothing_but_time(clean, source, tmp_path, monkeypatch):
    spoil(monkeypatch, "train_000003", tmp_path / "flag")
    ingest.prepare("got10k", source, "train", str(tmp_path / "out"), CLIPS)
    assert (tmp_path / "flag").exists()
    assert content(tmp_path / "out") == clean


def test_frames_that_kill_every_worker_end_it_after_all_others_were_written(
    clean, source, tmp_path, monkeypatch
):
    spoil(monkeypatch, "train_000003", None)
    with pytest.raises(FailureError, match=r"workers died 3 times over part-\d+\.parquet .*kept"):
        ingest.prepare("got10k", source, "train", str(tmp_path), CLIPS)
    written = {name for name in content(tmp_path) if "part-" in name}
    assert len(written) == sum("part-" in name for name in clean) - 1


def test_two_preparations_at_once_give_what_one_gives(clean, source, tmp_path):
    program = (
        "import sys\n"
        "from dytrack_platform.datasets.prepared.windows import ClipConfig\n"
        "from dytrack_platform.experiment import ingest\n"
        "config = ClipConfig(search_size=64, frames=12, span=12, sequences_per_shard=1)\n"
        "ingest.prepare('got10k', sys.argv[1], 'train', sys.argv[2], config)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    other = subprocess.Popen(
        [sys.executable, "-c", program, source, str(tmp_path)],
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    while not list(tmp_path.rglob("part-*")) and other.poll() is None:
        time.sleep(0.05)  # the other one has begun
    ingest.prepare("got10k", source, "train", str(tmp_path), CLIPS)
    assert other.wait() == 0
    assert content(tmp_path) == clean


def test_damage_is_listed_exactly_and_leaves_the_rest_as_it_was(clean, source, tmp_path):
    """Ray's part is one run; ten seeds of damage are in the unit tests."""
    copy = tmp_path / "source"
    subprocess.run(["cp", "-r", source, str(copy)], check=True)
    broken = copy / "train" / "train_000005" / "00000003.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    done = ingest.prepare("got10k", str(copy), "train", str(tmp_path / "out"), CLIPS)
    assert done.rejects == 1
    (row,) = map(json.loads, Path(done.folder, "rejects.jsonl").read_text().splitlines())
    assert (row["sequence"], row["frame"]) == ("train_000005", 2)
    other = {k: v for k, v in content(tmp_path / "out").items() if "part-" in k}
    assert sum(clean[name] != found for name, found in other.items()) == 1
