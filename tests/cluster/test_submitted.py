"""A training that was submitted, on two hosts with a token, from a third that is a laptop.

The hosts have dytrack's dependencies and not dytrack, which jobs bring along.

Raylets die, links are cut, the submitting process is killed: the training ends all the same, and
whoever attaches hears its true end. Nothing listens further than it has to, and no secret is told.
"""

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
import yaml

from tests.cluster.bare import bare_environment
from tests.cluster.hosts import Hosts, run, why_not

pytestmark = pytest.mark.cluster

DYTRACK = [sys.executable, "-m", "dytrack_pipelines.cli"]
HEAD, NODE, LAPTOP = 0, 1, 2
MLFLOW = "http://127.0.0.1:5000"
SOON = {  # a host that is gone is noticed after seconds, not after a minute and a half
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}


class Place:
    """Two hosts with Ray and MLflow, and one without."""

    def __init__(self, folder):
        self.folder = folder
        self.runs = folder / "runs"
        self.token = secrets.token_hex(32)
        self.secrets = {
            "AWS_SECRET_ACCESS_KEY": f"hush-{secrets.token_hex(8)}",
            "MLFLOW_TRACKING_PASSWORD": f"hush-{secrets.token_hex(8)}",
        }
        token = folder / "token"
        token.touch(mode=0o600)
        token.write_text(self.token)
        self.hosts = Hosts(3, folder, programs=bare_environment())
        for name in ("RAY_AUTH_TOKEN", "MLFLOW_TRACKING_URI"):
            self.hosts.environment.pop(name, None)
        self.hosts.environment |= {**SOON, "RAY_AUTH_MODE": "token"}
        self.laptop = dict(self.hosts.environment) | {
            "MLFLOW_TRACKING_URI": MLFLOW,
            "RAY_AUTH_TOKEN_PATH": str(token),
            "HOME": str(folder / "home"),
        }
        # The nodes have the secrets; the laptop names them.
        self.hosts.environment |= {
            **self.secrets,
            "MLFLOW_TRACKING_USERNAME": "me",
            "RAY_AUTH_TOKEN_PATH": str(token),
        }

    @property
    def address(self):
        return f"http://{self.hosts.addresses[HEAD]}:8265"

    def start(self):
        hosts, ip = self.hosts, self.hosts.addresses[HEAD]
        up = [*DYTRACK, "mlflow", "up", "--folder", self.folder / "mlflow", "--workers", "1"]
        hosts.start(HEAD, *up, log="mlflow.log")
        words = [
            self.hosts.programs / "ray",
            "start",
            "--head",
            "--block",
            "--num-cpus=1",
            "--port=6379",
        ]
        words += [f"--node-ip-address={ip}", f"--dashboard-host={ip}", "--disable-usage-stats"]
        words += [f"--temp-dir={self.folder / 'n0'}", "--object-store-memory=100000000"]
        hosts.start(HEAD, *words, log="n0.log")
        until(lambda: "Ray runtime started" in self.said("n0.log"), 90, "n0.log", self)
        hosts.ray(NODE)
        until(lambda: self.inside(HEAD, "ss", "-ltnH").count(":5000 ") > 0, 90, "mlflow.log", self)
        until(self.answers, 60, "n0.log", self)
        return self

    def answers(self):
        """Say whether the dashboard asks the laptop for its token."""
        code = (
            "import sys, urllib.request, urllib.error\n"
            "try: urllib.request.urlopen(sys.argv[1] + '/api/version', timeout=2)\n"
            "except urllib.error.HTTPError as error: print(error.code)\n"
            "except OSError: pass"
        )
        return self.inside(LAPTOP, sys.executable, "-c", code, self.address).strip() == "401"

    def inside(self, host, *words):
        command = [*self.hosts.inside(host), *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def dytrack(self, *words, **environment):
        """Run a command on the laptop to its end."""
        command = [*self.hosts.inside(LAPTOP), *DYTRACK, *map(str, words)]
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
            stdin=subprocess.DEVNULL,
            env=self.laptop | environment,
        )

    def follow(self, log, *words):
        """Start a command on the laptop; its output goes to a file of the folder."""
        return self.hosts.start(
            LAPTOP, *DYTRACK, *map(str, words), log=log, environment=self._only_the_laptops()
        )

    def _only_the_laptops(self):
        gone = dict.fromkeys(self.secrets, "")
        return {**gone, **self.laptop}

    def link(self, host, state):
        run("ip", "link", "set", f"{self.hosts.bridge}-{host}", state)

    def said(self, log):
        path = self.folder / log
        return path.read_text(errors="replace") if path.exists() else ""

    def steps(self, name, after=0.0):
        """Return the steps that a run has reported since a time, as often as it did."""
        journal = self.runs / name / "journal.jsonl"
        if not journal.exists():
            return []
        entries = [json.loads(line) for line in journal.read_text().splitlines() if line[-1] == "}"]
        reports = [e for e in entries if "train/loss" in e.get("metrics", {})]
        return [e["step"] for e in reports if e["time"] / 1000 >= after]

    def wait_for_step(self, name, step, log, after=0.0):
        """Wait until a step, or a later one, was reported since a time."""
        until(lambda: max(self.steps(name, after), default=0) >= step, 120, log, self)

    def status(self, name):
        """Ask MLflow what became of a run."""
        code = (
            "import json, sys, urllib.request\n"
            "asked = {'experiment_ids': sys.argv[2].split(), "
            "'filter': f\"attributes.run_name = '{sys.argv[1]}'\"}\n"
            "request = urllib.request.Request('http://127.0.0.1:5000/api/2.0/mlflow/runs/search', "
            "json.dumps(asked).encode(), {'Content-Type': 'application/json'})\n"
            "found = json.load(urllib.request.urlopen(request, timeout=10))['runs']\n"
            "print(*(run['info']['status'] for run in found))"
        )
        return self.inside(HEAD, sys.executable, "-c", code, name, "0 1 2").strip()

    def secret_words(self):
        return [word for name in self.secrets for word in ("--secret", name)]


def until(condition, seconds, log, place):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, place.said(log)[-4000:]
        time.sleep(0.2)


@pytest.fixture(scope="module")
def place():
    reason = why_not()
    if reason:
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="dytj", dir="/tmp"))  # sockets' paths may not be long
    (folder / "home").mkdir()
    place = Place(folder)
    try:
        yield place.start()
    finally:
        place.hosts.close()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def recipe(made_clips, place, tmp_path):
    def write(name, **train):
        values = {
            "name": name,
            "model": {"variant": "test", "depth": 2, "exits": [1, 2], "width": 32, "heads": 2},
            "data": {
                "train": [{"path": str(made_clips)}],
                "pairs_per_epoch": 160,
                "validation_pairs": 8,
                "pairs_per_clip": 4,
            },
            "train": {
                "batch_size": 8,
                "storage": str(place.runs),
                "checkpoint_steps": 10,
                "report_steps": 1,
                "sample_images": 0,
                **train,
            },
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(values))
        return path

    return write


def test_a_job_without_the_token_or_with_another_is_refused(place):
    submit = ("submit", "--address", place.address, "describe", "test", "--frames", "0")
    began = time.monotonic()
    nothing = place.dytrack(*submit, RAY_AUTH_MODE="disabled")
    assert nothing.returncode == 2
    assert "asks for its token" in " ".join(nothing.stderr.split())
    other = place.folder / "other"
    other.write_text("f" * 64)
    wrong = place.dytrack(*submit, RAY_AUTH_TOKEN_PATH=str(other))
    assert wrong.returncode == 2
    assert "token" in " ".join(wrong.stderr.split())
    assert time.monotonic() - began < 40, "two answers, 20 s each at the most"
    assert "describe-" not in place.dytrack("jobs", "list", "--address", place.address).stdout


def test_who_submitted_may_go_and_come_back(place, recipe):
    """The submitting process is killed; sent again the command is followed, over a cut link."""
    path = recipe("alone", epochs=10)
    submit = ["submit", "--address", place.address, "--name", "alone", *place.secret_words()]
    submit += ["train", path]
    first = place.follow("first.log", *submit)
    place.wait_for_step("alone", 5, "first.log")
    os.killpg(first.pid, signal.SIGKILL)
    first.wait(10)
    reached = max(place.steps("alone"))
    second = place.follow("second.log", *submit)
    until(lambda: "runs already" in place.said("second.log"), 60, "second.log", place)
    place.wait_for_step("alone", reached + 5, "second.log")
    place.link(LAPTOP, "down")
    try:
        time.sleep(4)
        assert second.poll() is None, "a stream that is cut is no end"
    finally:
        place.link(LAPTOP, "up")
    assert second.wait(150) == 0, place.said("second.log")
    assert sorted(set(place.steps("alone"))) == list(range(1, 201))
    assert max(place.steps("alone")) > reached, "it went on while nobody looked"
    listed = place.dytrack("jobs", "list", "--address", place.address).stdout
    # A row of a table, or, where a path is too long for one, a block below "job".
    assert len(re.findall(r"^\W*(?:job )?alone\b", listed, re.MULTILINE)) == 1, listed


def test_a_host_may_die_and_a_link_be_cut_under_a_submitted_training(place, recipe):
    path = recipe("storm", epochs=8, workers=2, min_workers=1, start_timeout_s=12)
    submit = ("submit", "--address", place.address, "--name", "storm", "train", path)
    process = place.follow("storm.log", *submit)
    place.wait_for_step("storm", 15, "storm.log")
    place.hosts.raylet("n1").send_signal(signal.SIGKILL)
    killed = time.time()
    place.hosts.ray(NODE, name="n1b")
    # What was under way is still told for a moment.
    place.wait_for_step("storm", 1, "storm.log", after=killed + 2)
    until(lambda: "continuing from step" in place.said("storm.log"), 30, "storm.log", place)
    place.link(NODE, "down")
    try:
        assert process.wait(200) == 0, place.said("storm.log")
    finally:
        place.link(NODE, "up")
    assert sorted(set(place.steps("storm"))) == list(range(1, 161))


def test_a_training_that_is_stopped_saves_first_and_is_told_as_killed(place, recipe):
    path = recipe("gentle", epochs=200)
    submit = ("submit", "--address", place.address, "train", path)
    process = place.follow("gentle.log", *submit)
    place.wait_for_step("gentle", 5, "gentle.log")
    stopped = place.dytrack("jobs", "stop", "train-gentle", "--address", place.address)
    assert stopped.returncode == 0, stopped.stderr
    assert process.wait(60) == 143, place.said("gentle.log")
    assert "the same command continues from there" in place.said("gentle.log")
    assert place.status("gentle") == "KILLED"


def test_a_training_that_does_not_stop_is_told_as_killed_all_the_same(place, recipe):
    path = recipe("deaf", epochs=200)
    submit = ["submit", "--address", place.address, "--env", "RAY_JOB_STOP_WAIT_TIME_S=3"]
    process = place.follow("deaf.log", *submit, "train", path)
    place.wait_for_step("deaf", 5, "deaf.log")
    (driver,) = [
        one
        for one in psutil.process_iter(["cmdline"])
        if "0-deaf.yaml" in (one.info["cmdline"] or []) and one.info["cmdline"][0] != "/bin/sh"
    ]
    driver.suspend()
    stopped = place.dytrack("jobs", "stop", "train-deaf", "--address", place.address)
    assert stopped.returncode == 0, stopped.stderr
    assert process.wait(60) == 143, place.said("deaf.log")
    until(lambda: place.status("deaf") == "KILLED", 60, "deaf.log", place)


def test_what_a_command_starts_listens_on_loopback_only(place):
    """``dytrack mlflow up`` on the head, and a Ray that a command starts for itself."""
    server = [line for line in listening(place, HEAD) if line.endswith(":5000")]
    assert server
    assert all(address.startswith("127.0.0.1:") for address in server)
    assert not listening(place, LAPTOP), "nothing was started here yet"
    code = (
        "import sys\n"
        "from dytrack_platform.experiment.cluster import session\n"
        "with session.ray_session(cpus=1, dashboard=True):\n"
        "    print('ready', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [*place.hosts.inside(LAPTOP), sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={k: v for k, v in place.laptop.items() if not k.startswith("RAY_AUTH")},
    )
    assert process.stdout is not None
    try:
        while (line := process.stdout.readline()) and line.strip() != "ready":
            pass
        assert line
        found = listening(place, LAPTOP)
    finally:
        process.communicate(timeout=180)
    assert found
    outside = [a for a in found if not a.startswith(("127.", "[::1]", "[::ffff:127."))]
    assert not outside, outside


def listening(place, host):
    """Return address:port of everything that listens on a host."""
    return [line.split()[3] for line in place.inside(host, "ss", "-ltnH").splitlines()]


def test_no_secret_is_told(place):
    """After all of it: no log, record of a job, file of a run or row of MLflow has one."""
    words = [*place.secret_words(), "--address", place.address]
    done = place.dytrack("submit", *words, "describe", "test", "--frames", "0")
    assert done.returncode == 0, done.stdout + done.stderr
    code = (
        "import os, sys, urllib.request\n"
        "request = urllib.request.Request(sys.argv[1] + '/api/jobs/')\n"
        "request.add_header('Authorization', 'Bearer ' + open(sys.argv[2]).read())\n"
        "print(urllib.request.urlopen(request, timeout=10).read().decode())"
    )
    records = place.inside(
        LAPTOP, sys.executable, "-c", code, place.address, place.folder / "token"
    )
    assert "DYTRACK_SECRETS" in records, "names travel"
    told = {"what was printed": (done.stdout + done.stderr).encode(), "records": records.encode()}
    for one in place.folder.rglob("*"):
        if one.is_file() and not one.is_symlink() and one.name != "token":
            told[str(one)] = one.read_bytes()
    assert any(name.endswith("mlflow.db") for name in told)
    assert any("job-driver-" in name for name in told)
    for secret in (*place.secrets.values(), place.token):
        found = [name for name, content in told.items() if secret.encode() in content]
        assert not found, found
