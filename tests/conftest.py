"""Fixtures for every tier."""

import gc
import io
import logging
import signal
import sys
from pathlib import Path
from typing import NamedTuple

import hypothesis
import pytest

from dytrack_pipelines import cli

# The same examples every time, and as long as it takes: machines are shared.
hypothesis.settings.register_profile("dytrack", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("dytrack")

ROOT = Path(__file__).resolve().parents[1]


def pytest_addoption(parser):
    parser.addoption(
        "--write-golden", action="store_true", help="write the golden files anew (tests/golden)"
    )


def pytest_configure(config):
    # Thousands of tests and what they import stay to the end: looking through them for what could
    # be collected, again and again, took a tenth of the tier's time.
    gc.disable()
    # A shell's background ignores Ctrl-C, and so would every program that a test starts and ends
    # by it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish(session):
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data that may lie beside the repository."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("the reference data folder ../shared is not here")
    return folder


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """Synthetic sequences in GOT-10k layout: a root with the splits train and test."""
    from dytrack_platform.datasets.synthetic import SynthConfig, make

    root = tmp_path_factory.mktemp("made")
    config = SynthConfig(frames=(12, 16), width=160, height=120, target_side=(20.0, 40.0))
    make(root, config, "train", 10, workers=1)
    make(root, config, "test", 3, workers=1)
    return root


@pytest.fixture(scope="session")
def made_clips(made, tmp_path_factory) -> Path:
    """The training split of the synthetic sequences as prepared clips, written without Ray."""
    from dytrack_platform.datasets.prepared.preparation import finish, plan_preparation
    from dytrack_platform.datasets.prepared.shards import write_shard
    from dytrack_platform.datasets.prepared.windows import ClipConfig

    out = tmp_path_factory.mktemp("clips")
    config = ClipConfig(search_size=128, frames=8)
    plan = plan_preparation("got10k", str(made), "train", str(out), config)
    return Path(finish(plan, {job.file: write_shard(job) for job in plan.jobs}).folder)


@pytest.fixture
def log():
    """What is logged from INFO on, a line each; pytest's own way costs every test a millisecond."""
    root, written = logging.getLogger(), io.StringIO()
    handler, level = logging.StreamHandler(written), root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield written
    root.setLevel(level)
    root.removeHandler(handler)


class Ended(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def dytrack(monkeypatch, capsys):
    """Run a command in this process, as the console script would."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["dytrack", *words])
        with pytest.raises(SystemExit) as ended:
            cli.command()
        return Ended(int(ended.value.code or 0), *capsys.readouterr())

    return run
