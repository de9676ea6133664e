"""A lock in an object store: one machine at a time, and a dead owner's is taken over."""

import os
import threading
import time
import urllib.request
import uuid

import pytest

from dytrack_platform.errors import StorageError
from dytrack_platform.experiment.runs.store_lock import Pace, store_lock
from dytrack_platform.storage import files

PACE = Pace(beat=0.2, dead=1.0, settle=0.1)


@pytest.fixture(scope="module")
def s3():
    """Address of an S3-compatible store on loopback, with a bucket ``runs``."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    urllib.request.urlopen(
        urllib.request.Request(f"http://{host}:{port}/runs", method="PUT")
    ).close()
    yield f"{host}:{port}"
    server.stop()


@pytest.fixture(params=["memory", pytest.param("s3", marks=pytest.mark.slow)])
def location(request, monkeypatch):
    if request.param == "s3":
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://{request.getfixturevalue('s3')}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        monkeypatch.setenv("AWS_REGION", "us-east-1")
    return f"{request.param}://runs/{uuid.uuid4().hex}/search.lock"


@pytest.fixture
def machine(tmp_path, location):
    """Return a function that takes the lock on a machine with a folder of its own."""

    def take(name, said=None):
        (tmp_path / name).mkdir(exist_ok=True)
        return store_lock(location, tmp_path / name, ([] if said is None else said).append, PACE)

    return take


def keep_asking(require, seconds=10):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        require()
        time.sleep(0.05)


def test_another_machine_is_refused_while_the_owner_lives(machine, location):
    with machine("one") as require:
        for _ in range(2):
            with (
                pytest.raises(StorageError, match=rf"process {os.getpid()} of .* is at work there"),
                machine("two"),
            ):
                pass
        require()
    assert not files.exists(location)
    with machine("two") as require:
        require()


def test_a_dead_owners_lock_is_taken_over_and_its_own_machine_does_not_wait(machine, location):
    with machine("one"):
        dead = files.read_json(location)
    files.write_json(location, dead)  # as if it had been killed
    said, began = [], time.monotonic()
    with machine("one", said):
        assert time.monotonic() - began < PACE.dead
    assert said == []
    files.write_json(location, dead)
    began = time.monotonic()
    with machine("two", said) as require:
        assert time.monotonic() - began >= PACE.dead
        require()
    assert len(said) == 1
    assert "is still at work there" in said[0]


def test_one_that_was_out_of_reach_ends_when_another_took_over(machine, location):
    with machine("one") as require:
        other = {**files.read_json(location), "token": "other", "host": "elsewhere", "process": 7}
        files.write_json(location, other)
        with pytest.raises(StorageError, match="process 7 of elsewhere took over"):
            keep_asking(require)
    assert files.read_json(location) == other  # it is not freed by who lost it


def test_of_two_that_begin_in_the_same_moment_one_goes_on(machine):
    start, let_go, outcomes = threading.Barrier(2), threading.Event(), []

    def begin(name):
        start.wait()
        try:
            with machine(name) as require:
                let_go.wait(3 * PACE.dead)
                require()
                outcomes.append("held")
        except StorageError:
            outcomes.append("refused")
            let_go.set()

    threads = [threading.Thread(target=begin, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["held", "refused"]


def test_a_folder_of_this_machine_needs_no_object(tmp_path):
    with store_lock(str(tmp_path / "search.lock"), tmp_path, print) as require:
        require()
        assert not list(tmp_path.iterdir())
