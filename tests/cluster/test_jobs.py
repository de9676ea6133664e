"""A real head node in processes of its own; commands reach it through the Jobs API."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

pytestmark = pytest.mark.cluster

DYTRACK = [sys.executable, "-m", "dytrack_pipelines.cli"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """The address of a head's dashboard."""
    port, dashboard = free_port(), free_port()
    # Sockets live below this folder, and their paths may not be long.
    folder = Path("/tmp") / f"dytrack-head-{os.getpid()}"
    ray = Path(sys.executable).with_name("ray")
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = [ray, "start", "--head", "--block", "--num-cpus=2", f"--port={port}"]
    # Another Ray on this machine has the agent's usual port.
    command += [f"--dashboard-agent-listen-port={free_port()}", f"--dashboard-port={dashboard}"]
    command += [f"--temp-dir={folder}", "--disable-usage-stats"]
    log = (tmp_path_factory.mktemp("head") / "log").open("w")
    process = subprocess.Popen(
        command, stdout=log, stderr=log, env=environment, start_new_session=True
    )
    address = f"http://127.0.0.1:{dashboard}"
    deadline = time.monotonic() + 60
    while not answers(address):
        assert process.poll() is None, Path(log.name).read_text()
        assert time.monotonic() < deadline
        time.sleep(0.3)
    yield address
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    log.close()


def answers(address):
    try:
        with urllib.request.urlopen(f"{address}/api/version", timeout=2):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return error.code in (401, 403)  # it answers, and asks for its token
    except OSError:
        return False


def submit(address, *words):
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    return subprocess.run(
        [*DYTRACK, "submit", "--address", address, *words],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
        env=environment,
    )


def test_a_command_runs_as_a_job_and_its_log_streams_here(head):
    done = submit(head, "describe", "test", "--frames", "0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "exit after block" in done.stdout


def test_a_jobs_exit_code_is_the_commands_own(head, tmp_path):
    recipe = tmp_path / "wrong.yaml"
    recipe.write_text("name: x\nmodel: {exits: [8, 4]}\n")
    done = submit(head, "train", str(recipe))
    assert done.returncode == 2
    assert "model.exits: must rise strictly, got (8, 4)" in done.stdout


def test_data_is_prepared_on_the_cluster(head, made, tmp_path):
    out = tmp_path / "clips"
    words = ["prepare", "--dataset", "got10k", "--root", str(made), "--split", "train"]
    done = submit(head, *words, "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(out.rglob("part-*.parquet"))


def test_a_cluster_that_does_not_answer_is_named():
    done = submit(f"http://127.0.0.1:{free_port()}", "describe", "test")
    assert done.returncode == 1
    assert "no Ray dashboard takes jobs at http://127.0.0.1" in done.stderr
