"""Real services for a test: PostgreSQL, an S3-compatible store, and MLflow on both."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

DYTRACK = [sys.executable, "-m", "dytrack_pipelines.cli"]
BUCKET = "dytrack"
KEYS = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "hush",
    "AWS_DEFAULT_REGION": "us-east-1",
}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def ray_head(folder, log, environment, cpus):
    """Start a head in processes of its own; yields the address of its dashboard.

    Args:
        folder: A short path for Ray's sockets and logs.
        log: File for what it prints.
        environment: Its variables.
        cpus: How many it may give.
    """
    port, dashboard = free_port(), free_port()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ray = Path(sys.executable).with_name("ray")
    command = [ray, "start", "--head", "--block", f"--num-cpus={cpus}", f"--port={port}"]
    # Another Ray on this machine has the agent's usual port.
    command += [f"--dashboard-agent-listen-port={free_port()}", f"--dashboard-port={dashboard}"]
    command += [f"--temp-dir={folder}", "--disable-usage-stats"]
    with Path(log).open("w") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            env={**environment, "RAY_USAGE_STATS_ENABLED": "0", "PATH": path},
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{dashboard}"
    deadline = time.monotonic() + 90
    while not answers(address):
        assert process.poll() is None, Path(log).read_text()
        assert time.monotonic() < deadline
        time.sleep(0.3)
    yield address
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(address):
    """Say whether a dashboard answers, be it to ask for its token."""
    try:
        with urllib.request.urlopen(f"{address}/api/version", timeout=2):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return error.code in (401, 403)
    except OSError:
        return False


def postgres_tools():
    """Return the folder of PostgreSQL's programs; None where it is not installed."""
    found = shutil.which("initdb")
    if found:
        return Path(found).parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return versions[-1].parent if versions else None


def why_not():
    """Say why the services cannot be had here; None where they can."""
    if postgres_tools() is None:
        return "PostgreSQL needs Debian's package postgresql"
    if shutil.which("moto_server", path=Path(sys.executable).parent) is None:
        return "the S3-compatible store needs the package moto[server]"
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        return "PostgreSQL does not run as root, and setpriv is not there"
    return None


class Services:
    """Processes on loopback, each of which can be ended and started again."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.ports = {name: free_port() for name in ("postgres", "s3", "mlflow")}
        self.processes = {}
        self.environment = {
            **os.environ,
            **KEYS,
            "AWS_ENDPOINT_URL": self.s3,
            "AWS_ENDPOINT_URL_S3": self.s3,
            "MLFLOW_S3_ENDPOINT_URL": self.s3,
            "DYTRACK_JOURNALS": str(self.folder / "journals"),
        }
        for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
            self.environment.pop(name, None)

    @property
    def s3(self):
        return f"http://127.0.0.1:{self.ports['s3']}"

    @property
    def mlflow(self):
        return f"http://127.0.0.1:{self.ports['mlflow']}"

    @property
    def database(self):
        return f"postgresql://mlflow@127.0.0.1:{self.ports['postgres']}/postgres"

    def start_all(self):
        self.start("postgres")
        self.start("s3")
        import boto3

        client = boto3.client(
            "s3",
            endpoint_url=self.s3,
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
            region_name=KEYS["AWS_DEFAULT_REGION"],
        )
        client.create_bucket(Bucket=BUCKET)
        self.start("mlflow")
        return self

    def start(self, name):
        """Start a service; returns once it answers."""
        command = getattr(self, f"_{name}")()
        log = (self.folder / f"{name}.log").open("a")
        self.processes[name] = subprocess.Popen(
            [str(word) for word in command],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=self.environment,
            start_new_session=True,
        )
        log.close()
        deadline = time.monotonic() + 120
        while not self._answers(name):
            if self.processes[name].poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.folder / f"{name}.log").read_text()[-3000:])
            time.sleep(0.2)

    def kill(self, name):
        """End a service at once, as a machine that fails would."""
        process = self.processes.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)

    def close(self):
        for name in list(self.processes):
            self.kill(name)

    def _postgres(self):
        data, tools = self.folder / "postgres", postgres_tools()
        # PostgreSQL refuses to run as root.
        as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        before = as_nobody if os.geteuid() == 0 else []
        if not (data / "PG_VERSION").is_file():
            data.mkdir()
            self.folder.chmod(0o755)
            if before:
                os.chown(data, 65534, 65534)
            subprocess.run(
                [*before, tools / "initdb", "-D", data, "-U", "mlflow", "--auth=trust", "-N"],
                check=True,
                capture_output=True,
                cwd="/",
            )
        (data / "postmaster.pid").unlink(missing_ok=True)  # of one that was killed
        settings = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={data}"]
        return [*before, tools / "postgres", "-D", data, "-p", self.ports["postgres"], *settings]

    def _s3(self):
        server = Path(sys.executable).with_name("moto_server")
        return [server, "-H", "127.0.0.1", "-p", self.ports["s3"]]

    def _mlflow(self):
        words = ["mlflow", "up", "--folder", self.folder / "mlflow", "--backend", self.database]
        words += ["--artifacts", f"s3://{BUCKET}/mlflow", "--port", self.ports["mlflow"]]
        return [*DYTRACK, *words, "--workers", 1]

    def _answers(self, name):
        if name == "mlflow":
            return _get(f"{self.mlflow}/health")
        if name == "s3":
            return _get(f"{self.s3}/moto-api/")
        try:
            with socket.create_connection(("127.0.0.1", self.ports[name]), timeout=1):
                return True
        except OSError:
            return False


def _get(url):
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except (urllib.error.URLError, OSError):
        return False
