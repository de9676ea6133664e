"""Real services for a test: PostgreSQL, an S3-compatible store, and MLflow on both."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil

from tests.cluster.bare import bare_environment, without_sources

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
    """Run a :class:`Head` while the body runs; yields the address of its dashboard."""
    head = Head(folder, log, environment, cpus)
    head.start()
    try:
        yield head.address
    finally:
        head.close()


class Head:
    """A head in processes of its own, which can be lost and started again at the same address.

    It has dytrack's dependencies and not dytrack, which jobs bring along.
    """

    def __init__(self, folder, log, environment, cpus, hosts=None):
        """Choose its ports.

        Args:
            folder: A short path for Ray's sockets and logs.
            log: File for what it prints.
            environment: Its variables.
            cpus: How many it may give.
            hosts: Two hosts: the head is on the first then, and another node with two CPUs on the
                second. None: all of it on this machine's loopback.
        """
        self._log = Path(log)
        programs = bare_environment()
        path = f"{programs}:{os.environ['PATH']}"
        own = {"RAY_USAGE_STATS_ENABLED": "0", "PATH": path}
        self._environment = {**without_sources(environment), **own}
        port, dashboard = free_port(), free_port()
        ip = "127.0.0.1" if hosts is None else hosts.addresses[0]
        start = [programs / "ray", "start", "--block", "--disable-usage-stats"]
        head = [*start, "--head", f"--num-cpus={cpus}", f"--port={port}", f"--temp-dir={folder}"]
        head += [f"--dashboard-port={dashboard}", f"--dashboard-host={ip}"]
        if hosts is None:
            # Another Ray on this machine has the agent's usual port.
            self._commands = [[*head, f"--dashboard-agent-listen-port={free_port()}"]]
        else:
            self._environment["GLOO_SOCKET_IFNAME"] = "eth0"
            node = [*start, f"--address={ip}:{port}", f"--temp-dir={folder}-node", "--num-cpus=2"]
            self._commands = [
                [*inside, *words, f"--node-ip-address={own}", "--object-store-memory=100000000"]
                for inside, words, own in zip(
                    map(hosts.inside, (0, 1)), (head, node), hosts.addresses, strict=True
                )
            ]
        self.address = f"http://{ip}:{dashboard}"
        self._processes = []

    def start(self):
        """Start it; returns once its dashboard answers, and its other node is there."""
        self._log.write_text("")
        for command in self._commands:
            with self._log.open("a") as output:
                process = subprocess.Popen(
                    command,
                    stdout=output,
                    stderr=output,
                    env=self._environment,
                    start_new_session=True,
                )
            self._processes.append(process)
            deadline = time.monotonic() + 90
            while not (self._up(len(self._processes)) and answers(self.address)):
                assert process.poll() is None, self._log.read_text()
                assert time.monotonic() < deadline, self._log.read_text()
                time.sleep(0.3)

    def _up(self, nodes):
        return self._log.read_text(errors="replace").count("Ray runtime started") >= nodes

    def lose(self):
        """End all of it at once, the jobs' commands too, as machines that fail would."""
        for command in self._processes:
            kill_all(command)
        self._processes = []

    def close(self):
        for process in reversed(self._processes):
            process.send_signal(signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def kill_all(command):
    """End a process and all below it at once, those in groups of their own too."""
    own = psutil.Process(command.pid)
    for process in [own, *own.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    command.wait(20)


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


def rclone():
    """Return a program that can serve S3 (rclone 1.65 or later); None where there is none."""
    beside = Path(sys.executable).with_name("rclone")
    found = str(beside) if beside.exists() else shutil.which("rclone")
    if found is None:
        return None
    asked = subprocess.run([found, "serve", "s3", "--help"], capture_output=True, check=False)
    return found if b"--auth-key" in asked.stdout else None


def why_not():
    """Say why the services cannot be had here; None where they can."""
    if postgres_tools() is None:
        return "PostgreSQL needs Debian's package postgresql"
    if shutil.which("moto_server", path=Path(sys.executable).parent) is None:
        return "the S3-compatible store needs the package moto[server]"
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        return "PostgreSQL does not run as root, and setpriv is not there"
    return None


class Gate:
    """A door before a service, where whoever calls can be sent away for a while."""

    def __init__(self, behind, address="127.0.0.1"):
        """Open it.

        Args:
            behind: Port of the service, on loopback.
            address: Where the door is.
        """
        self.port = free_port()
        self._behind, self._address = behind, address
        self._busy = False
        self._listener = None
        self._open = set()
        self.open()

    def open(self):
        """Let everybody through."""
        self._busy = False
        if self._listener is None:
            self._listener = socket.create_server((self._address, self.port))
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def be_busy(self):
        """Answer 503, as a store that has too much to do."""
        self._busy = True
        self._hang_up()

    def close(self):
        """Refuse connections, as a machine whose service is not there."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)  # closing alone wakes nobody
            self._listener.close()
            self._listener = None
        self._hang_up()

    def _hang_up(self):
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener):
        while True:
            try:
                caller, _ = listener.accept()
            except OSError:
                return
            handle = self._send_away if self._busy else self._join
            threading.Thread(target=handle, args=(caller,), daemon=True).start()

    def _send_away(self, caller):
        with caller, contextlib.suppress(OSError):
            caller.recv(65536)
            caller.sendall(
                b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            caller.shutdown(socket.SHUT_WR)
            while caller.recv(65536):  # what it still sends must not reset the answer
                pass

    def _join(self, caller):
        with (
            caller,
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self._behind)) as service,
        ):
            ends = {caller, service}
            self._open |= ends
            back = threading.Thread(target=_pump, args=(service, caller), daemon=True)
            back.start()
            _pump(caller, service)
            back.join()
            self._open -= ends


def _pump(source, target):
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


class Services:
    """Processes on loopback, each of which can be ended and started again.

    The store keeps all in its memory: it is not ended, but its ``gate`` can be closed.
    """

    def __init__(self, folder, address="127.0.0.1"):
        """Choose ports.

        Args:
            folder: For what they write.
            address: Where the store and MLflow are reached. Both are on loopback, behind a gate:
                MLflow's passwords cost tens of milliseconds of computing in each request.
        """
        self.folder = Path(folder)
        self.address = address
        self.ports = {name: free_port() for name in ("postgres", "s3", "mlflow")}
        self.gate = Gate(self.ports["s3"], address)
        self._door = Gate(self.ports["mlflow"], address)
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
        if address != "127.0.0.1":  # a cluster that others reach asks for its token
            token = self.folder / "token"
            token.touch(mode=0o600)
            token.write_text(secrets.token_hex(32))
            self.environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}

    @property
    def s3(self):
        return f"http://{self.address}:{self.gate.port}"

    @property
    def mlflow(self):
        return f"http://{self.address}:{self._door.port}"

    @property
    def database(self):
        return f"postgresql://mlflow@127.0.0.1:{self.ports['postgres']}/postgres"

    def start_all(self):
        self.start("postgres")
        self.start("s3")
        self.s3_client().create_bucket(Bucket=BUCKET)
        self.start("mlflow")
        return self

    def s3_client(self):
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.s3,
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
            region_name=KEYS["AWS_DEFAULT_REGION"],
        )

    def content(self, key):
        """Return an object of the bucket."""
        return self.s3_client().get_object(Bucket=BUCKET, Key=key)["Body"].read()

    def start(self, name):
        """Start a service; returns once it answers."""
        assert not self._answers(name), "another one is there still"
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
        kill_all(self.processes.pop(name))

    def close(self):
        self.gate.close()
        self._door.close()
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
            return _get(f"http://127.0.0.1:{self.ports['s3']}/moto-api/")
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
