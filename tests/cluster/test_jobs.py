"""A real head node in processes of its own; commands reach it through the Jobs API."""

import os
import re
import shlex
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from dytrack_platform.experiment.cluster import client, jobs, session, shipment
from tests.cluster.services import DYTRACK, free_port, ray_head

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """The address of a head's dashboard."""
    # Sockets live below this folder, and their paths may not be long.
    folder = Path("/tmp") / f"dytrack-head-{os.getpid()}"
    log = tmp_path_factory.mktemp("head") / "log"
    with ray_head(folder, log, os.environ, cpus=2) as address:
        yield address


def run(*words, **environment):
    known = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")}
    return subprocess.run(
        [*DYTRACK, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**known, **environment},
        stdin=subprocess.DEVNULL,
    )


def submit(address, *words, **environment):
    return run("submit", "--address", address, *words, **environment)


def test_a_command_runs_as_a_job_and_its_log_streams_here(head):
    done = submit(head, "describe", "test", "--frames", "0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "exit after block" in done.stdout
    assert "3 packages travel" in done.stdout
    assert f"{head}/#/jobs/describe-" in done.stdout
    again = submit(head, "describe", "test", "--frames", "0")  # it has ended: a new one starts
    assert again.returncode == 0
    listed = run("jobs", "list", "--address", head).stdout
    names = set(re.findall(r"describe-[0-9a-f]{12}(?:\.\d+)?", listed))
    assert len(names) == 2, listed


def test_a_jobs_exit_code_is_the_commands_own(head):
    done = submit(head, "describe", "no-such-tracker")
    assert done.returncode == 2
    assert "no-such-tracker: no such tracker" in done.stdout


def test_recipes_of_one_name_arrive_both(head, tmp_path):
    for folder, text in (("a", "first"), ("b", "second")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "r.yaml").write_text(text)
    script = "import sys; print([open(w.partition('=')[2] or w).read() for w in sys.argv[1:]])"
    words = [str(tmp_path / "a" / "r.yaml"), f"--other={tmp_path / 'b' / 'r.yaml'}"]
    (tmp_path / "job").mkdir()
    packed = shipment.pack(words, session.packages(), tmp_path / "job")
    job = jobs.connect(head).submit_job(
        entrypoint=shlex.join(["python", "-c", script, *packed.words]),
        runtime_env={"working_dir": str(tmp_path / "job")},
    )
    said = []
    assert jobs.follow(jobs.Job(id=job, address=head), said.append) == 0
    assert "['first', 'second']" in "".join(said)


def test_data_is_prepared_on_the_cluster(head, made, tmp_path):
    out = tmp_path / "clips"
    words = ["prepare", "--dataset", "got10k", "--root", str(made), "--split", "train"]
    lost = submit(head, *words, "--out", "clips")
    assert lost.returncode == 2
    assert "--out: clips would lie in the job's own folder" in lost.stdout
    done = submit(head, *words, "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(out.rglob("part-*.parquet"))


@pytest.mark.parametrize(
    ("recipe", "store", "sentence"),
    [
        ("name: x\n", "", "MLFLOW_TRACKING_URI: a job's records go to a server"),
        ("name: x\n", "sqlite:///m.db", "MLFLOW_TRACKING_URI: a job's records go to a server"),
        ("name: x\n", "http://127.0.0.1:1", "train.storage: runs is a folder of this machine"),
        ("name: x\nmodel: {exits: [8, 4]}\n", "http://127.0.0.1:1", "model.exits: must rise"),
    ],
)
def test_what_would_be_lost_is_refused_before_it_is_sent(head, tmp_path, recipe, store, sentence):
    path = tmp_path / "r.yaml"
    path.write_text(recipe)
    settings = {"MLFLOW_TRACKING_URI": store} if store else {}
    done = submit(head, "train", path, **settings)
    assert done.returncode == 2
    assert sentence in " ".join(done.stderr.split())


def test_secrets_do_not_travel(head):
    told = submit(head, "--env", "AWS_SECRET_ACCESS_KEY=hush", "describe", "test")
    assert told.returncode == 2
    assert "a job's record shows its environment to everybody" in " ".join(told.stderr.split())
    url = {"MLFLOW_TRACKING_URI": "http://me:hush@server"}
    assert submit(head, "describe", "test", **url).returncode == 2
    url = submit(head, "prepare", "--root", "s3://me:hush@data", "--dataset", "got10k")
    assert url.returncode == 2
    assert "hush" not in url.stdout + url.stderr
    began = time.monotonic()
    lacks = submit(head, "--secret", "NO_SUCH_SECRET", "describe", "test")
    assert time.monotonic() - began < 20
    assert lacks.returncode == 2
    assert "NO_SUCH_SECRET: the job needs this secret and its node does not" in lacks.stdout
    assert "hush" not in run("jobs", "list", "--address", head).stdout


def test_a_running_job_is_found_again_and_stopped(head):
    jobs.connect(head).submit_job(
        entrypoint="python -c 'import time; print(\"ready\", flush=True); time.sleep(600)'",
        submission_id="endless",
        metadata={"dytrack": "another", "command": "sleep"},
    )
    began = time.monotonic()
    other = submit(head, "--name", "endless", "describe", "test")
    assert time.monotonic() - began < 20
    assert other.returncode == 2
    said = " ".join(other.stderr.split())
    assert "a job endless runs another command (sleep); choose another --name" in said
    watcher = subprocess.Popen(
        [*DYTRACK, "jobs", "attach", "endless", "--address", head],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    assert watcher.stdout is not None
    while (line := watcher.stdout.readline()) and line.strip() != "ready":
        pass  # Ray says first that it sets the job up
    assert line
    watcher.send_signal(signal.SIGINT)  # nobody can be asked: the job goes on
    rest, _ = watcher.communicate(timeout=180)
    assert watcher.returncode == 130
    assert "goes on: dytrack jobs attach endless" in rest
    assert "ready" in run("jobs", "logs", "endless", "--address", head).stdout
    stopped = run("jobs", "stop", "endless", "--address", head)
    assert stopped.returncode == 0, stopped.stderr
    assert "STOPPED" in run("jobs", "list", "--address", head).stdout


def test_two_at_once_start_one_job(head):
    words = [*DYTRACK, "submit", "--address", head, "--detach", "describe", "test", "--frames", "1"]
    both = [
        subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert len({re.search(r"job (describe-\S+?)(?: runs already)?:", one)[1] for one in said}) == 1
    assert sum("runs already" in one for one in said) == 1


def test_a_file_as_store_needs_a_cluster_of_this_machine(head, tmp_path):
    """Which this head is, and one behind a forwarded port is not."""
    assert client.same_machine(jobs.connect(head), head)


def test_a_job_that_is_not_there_is_said(head):
    done = run("jobs", "attach", "nobody", "--address", head)
    assert done.returncode == 2
    assert f"knows no such job; dytrack jobs list --address {head} shows" in " ".join(
        done.stderr.split()
    )


def test_a_cluster_that_does_not_answer_is_named():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for port, sentence in (
            (free_port(), "nobody answers at --address http://127.0.0.1"),
            (silent.getsockname()[1], "takes connections and has not answered for 10 s"),
        ):
            began = time.monotonic()
            done = submit(f"http://127.0.0.1:{port}", "describe", "test")
            assert time.monotonic() - began < 20
            assert done.returncode == 2
            assert sentence in " ".join(done.stderr.split())
