"""A cluster for the doctor: a sound host, one with many faults, a laptop, and two MLflow servers.

Every host has its own processes, mounts and name, as machines have. Faults are real: what is
mounted is small, what is told is wrong, what runs twice runs twice.
"""

import contextlib
import json
import secrets
import subprocess
import sys
import time
import urllib.request
from base64 import b64encode
from pathlib import Path
from typing import NamedTuple

import psutil

from tests.cluster.hosts import BIN, Hosts
from tests.cluster.services import DYTRACK

HEAD, SICK, LAPTOP = 0, 1, 2
APART = ["unshare", *("--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc")]
READER = "reader:a-long-password"
_UNSET = ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_API_SERVER_ADDRESS", "RAY_TMPDIR")
_FAULTS = """
echo "127.0.1.1 $(hostname)" > {folder}/own-hosts
mount --bind {folder}/own-hosts /etc/hosts
mount -t tmpfs -o size=256m tmpfs /dev/shm
mount -t tmpfs -o size=2g tmpfs {folder}/small
mount -t tmpfs tmpfs {folder}/runs
mount -t tmpfs tmpfs {folder}/data
export PYTHONPATH={folder}/versions:$PYTHONPATH
unset GLOO_SOCKET_IFNAME
"""
"""Shell words that make a host sick before its Ray starts; ``folder`` is the ward's."""


class Seen(NamedTuple):
    """What a ``dytrack doctor --json`` came to."""

    returncode: int
    checks: list[dict]
    seconds: float
    said: str

    def wrong(self):
        return {check["check"]: check for check in self.checks if not check["ok"]}


def install(folder, **versions):
    """Let importlib.metadata find versions of packages below a folder."""
    for name, version in versions.items():
        named = name.replace("_", "-")
        about = Path(folder) / f"{name}-{version}.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {named}\nVersion: {version}\n"
        )


class Ward:
    """Hosts and services, and the doctor on any of them."""

    def __init__(self, folder):
        self.folder = Path(folder)
        for name in ("small", "runs", "data"):
            (self.folder / name).mkdir()
        (self.folder / "data" / "clips").mkdir()
        install(self.folder / "versions", dytrack="9.9.9", torch="1.2.3")
        token = self.folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        self.hosts = Hosts(3, self.folder)
        self.hosts.join()  # to see whether MLflow answers, and to tell it who there is
        environment = self.hosts.environment
        for name in [n for n in environment if n in _UNSET or n.startswith(("MLFLOW_", "AWS_"))]:
            del environment[name]
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        ip, other = self.hosts.addresses[:2]
        self.ray, self.client = f"{ip}:6379", f"ray://{ip}:10001"
        self.open_ray = f"{other}:6380"
        self.closed_mlflow, self.open_mlflow = f"http://{ip}:5001", f"http://{ip}:5002"

    def close(self):
        self.hosts.close()

    def start(self):
        """Start the sound host's Ray, and MLflow's two servers on it; returns once they answer."""
        up = [*DYTRACK, "mlflow", "up", "--auth", "--folder", self.folder / "mlflow", "--workers"]
        self.hosts.start(HEAD, *up, 1, "--host", "0.0.0.0", "--port", 5001, log="closed.log")
        # As our own command does not start one: with no password, for everybody who reaches it.
        words = [sys.executable, "-m", "mlflow", "server", "--host", "0.0.0.0", "--port", 5002]
        words += ["--backend-store-uri", f"sqlite:///{self.folder}/open.db", "--workers", 1]
        settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        server = [*words, "--allowed-hosts", "*"]
        self.hosts.start(HEAD, *server, log="open.log", environment=settings)
        start = ["--head", "--port=6379", f"--temp-dir={self.folder}/head"]
        script = f"hostname sound; {self._ray(HEAD, *start)}; exec sleep infinity"
        self._head = self._started(HEAD, script, "head.log", 1)
        for port in (5001, 5002):
            self._wait(
                lambda port=port: self._answers(f"http://{self.hosts.addresses[HEAD]}:{port}")
            )

    def admit(self):
        """Have the host with all the faults join; a second Ray without a token starts on it too."""
        join = self._ray(SICK, f"--address={self.ray}", f"--temp-dir={self.folder}/small/ray")
        second = self._ray(SICK, "--head", "--port=6380", f"--temp-dir={self.folder}/second")
        faults = _FAULTS.format(folder=self.folder)
        script = f"hostname sick; set -e; {faults} {join}; RAY_AUTH_MODE=disabled {second}"
        self._started(SICK, f"{script}; exec sleep infinity", "sick.log", 2)

    def add_reader(self):
        """Let the closed server know somebody who may read only."""
        name, password = READER.split(":")
        asked = [("users/create", {"username": name, "password": password})]
        asked += [("experiments/create", {"name": "dytrack"})]
        for what, body in asked:
            request = urllib.request.Request(
                f"{self.closed_mlflow}/api/2.0/mlflow/{what}",
                json.dumps(body).encode(),
                {"Content-Type": "application/json", "Authorization": self._basic()},
            )
            with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(request):
                pass  # the experiment may be there

    def doctor(self, *words, host=HEAD, before="", program=DYTRACK, **settings):
        """Run the command on a host, after shell words that plant a fault for it alone."""
        if host == HEAD:
            (inside,) = psutil.Process(self._head.pid).children()
            where = ["nsenter", "-t", str(inside.pid), "-m", "-u", "-n", "-p", "unshare", "--mount"]
        else:
            where = [*self.hosts.inside(host), *APART]
        environment = {"MLFLOW_TRACKING_URI": f"sqlite:///{self.folder}/own.db", **settings}
        known = self.hosts.environment | environment
        began = time.monotonic()
        done = subprocess.run(
            [*where, "sh", "-ec", f'{before}\nexec "$@"', "sh", *program, "doctor", "--json"]
            + [str(word) for word in words],
            env={name: str(value) for name, value in known.items() if value is not None},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        took = time.monotonic() - began
        said = done.stdout + done.stderr
        checks = json.loads(done.stdout) if done.stdout.startswith("[") else []
        return Seen(done.returncode, checks, took, said)

    def admin(self):
        """Return the settings of who may do all on the closed server."""
        password = (self.folder / "mlflow" / "admin.password").read_text()
        return {
            "MLFLOW_TRACKING_URI": self.closed_mlflow,
            "MLFLOW_TRACKING_USERNAME": "admin",
            "MLFLOW_TRACKING_PASSWORD": password,
        }

    def _basic(self):
        known = f"admin:{self.admin()['MLFLOW_TRACKING_PASSWORD']}"
        return f"Basic {b64encode(known.encode()).decode()}"

    def _ray(self, host, *words):
        start = [str(BIN / "ray"), "start", "--num-cpus=1", "--disable-usage-stats"]
        start += [f"--node-ip-address={self.hosts.addresses[host]}", *words]
        start += ["--object-store-memory=100000000"]
        return " ".join(start + ["--include-dashboard=false"] * ("--head" in words))

    def _started(self, host, script, log, rays):
        process = self.hosts.start(host, *APART, "sh", "-c", script, log=log)
        said = self.folder / log
        self._wait(
            lambda: said.read_text().count("Ray runtime started") >= rays,
            lambda: process.poll() is not None,
            said,
        )
        return process

    def _wait(self, there, failed=lambda: False, log=None):
        deadline = time.monotonic() + 90
        while not there():
            told = log.read_text() if log else "; ".join(self._logs())
            if failed() or time.monotonic() > deadline:
                raise RuntimeError(told)
            time.sleep(0.2)

    def _logs(self):
        return [path.read_text()[-2000:] for path in self.folder.glob("*.log")]

    def _answers(self, address):
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=2):
                return True
        except OSError:
            return False


def can():
    """Say why there is no ward here; None where there can be one."""
    tried = subprocess.run([*APART, "true"], capture_output=True, text=True, check=False)
    return f"namespaces are not allowed here: {tried.stderr.strip()}" if tried.returncode else None


HAS_GPU = Path("/dev/nvidia0").exists()
