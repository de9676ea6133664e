"""Hosts of their own on one machine: network namespaces joined by a bridge, with a Ray on each.

Everything that is made here is removed again by :meth:`Hosts.close`, whatever happened between.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

BIN = Path(sys.executable).parent
_NET = "10.77.{number}.{host}"


def why_not() -> str | None:
    """Say why namespaces cannot be had here; None where they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need ip (Debian's package iproute2)"
    probe = f"dyt-probe-{os.getpid()}"
    made = subprocess.run(
        ["ip", "netns", "add", probe], capture_output=True, text=True, check=False
    )
    if made.returncode:
        return f"network namespaces are not allowed here: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", probe], check=False)
    return None


def sweep():
    """Remove what a test process that was killed left behind."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=False)
    for name in re.findall(r"^dyt(?:\d+)-\d+", listed.stdout, re.MULTILINE):
        owner = int(name[3:].partition("-")[0])
        if not psutil.pid_exists(owner):
            remove(name)
            bridge = ["ip", "link", "del", f"dyb{owner}"]
            subprocess.run(bridge, capture_output=True, check=False)


def remove(name):
    """End every process of a namespace, then remove it: what lives there was started here."""
    for _ in range(50):
        listed = subprocess.run(
            ["ip", "netns", "pids", name], capture_output=True, text=True, check=False
        )
        pids = listed.stdout.split()
        if not pids:
            break
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        time.sleep(0.1)
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


class Hosts:
    """Some hosts that reach each other and nothing else."""

    def __init__(self, count, folder, rate=None, delay=None, programs=BIN):
        """Make them.

        Args:
            count: How many.
            folder: A short path for Ray's sockets and logs.
            programs: Folder of the ``python`` and ``ray`` that nodes are started with.
            rate, delay: Shape what each host sends, as ``tc`` writes it (1gbit, 0.1ms).
        """
        sweep()
        number = os.getpid() % 250
        self.bridge = f"dyb{os.getpid()}"
        self.names = [f"dyt{os.getpid()}-{index}" for index in range(count)]
        self.addresses = [_NET.format(number=number, host=10 + i) for i in range(count)]
        self.folder = Path(folder)
        self.programs = programs
        self.processes = []
        self.environment = {
            **os.environ,
            "RAY_USAGE_STATS_ENABLED": "0",
            "GLOO_SOCKET_IFNAME": "eth0",
            "RAY_AUTH_MODE": "disabled",
            "PATH": f"{programs}:{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
        }
        self.environment.pop("RAY_ADDRESS", None)
        try:
            self._make(rate, delay)
        except BaseException:
            self.close()
            raise

    def _make(self, rate, delay):
        run("ip", "link", "add", self.bridge, "type", "bridge")
        run("ip", "link", "set", self.bridge, "up")
        for index, (name, address) in enumerate(zip(self.names, self.addresses, strict=True)):
            outside = f"{self.bridge}-{index}"
            run("ip", "netns", "add", name)
            run("ip", "link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", name)
            run("ip", "link", "set", outside, "master", self.bridge, "up")
            inside = self.inside(index)
            run(*inside, "ip", "address", "add", f"{address}/24", "dev", "eth0")
            run(*inside, "ip", "link", "set", "eth0", "up")
            run(*inside, "ip", "link", "set", "lo", "up")
            if rate:
                shape = ["tbf", "rate", rate, "burst", "256kb", "latency", "50ms"]
                run(*inside, "tc", "qdisc", "add", "dev", "eth0", "root", "handle", "1:", *shape)
            if delay:
                parent = ["parent", "1:1"] if rate else ["root"]
                run(*inside, "tc", "qdisc", "add", "dev", "eth0", *parent, "netem", "delay", delay)

    def inside(self, host):
        """Return the words before a command that runs on a host."""
        return ["ip", "netns", "exec", self.names[host]]

    def join(self):
        """Let this machine reach the hosts, and them it; returns its address among them."""
        address = _NET.format(number=os.getpid() % 250, host=1)
        run("ip", "address", "add", f"{address}/24", "dev", self.bridge)
        return address

    def start(self, host, *command, log="log", environment=None, before=""):
        """Start a command on a host, in a process group of its own.

        Args:
            host: Index of the host.
            command: Words of the command.
            log: Name of the file below ``folder`` for its output.
            environment: More variables.
            before: Shell words to run first in the host's own mount namespace.
        """
        output = (self.folder / log).open("w")
        words = [str(word) for word in command]
        if before:
            words = ["sh", "-c", f'{before} && exec "$@"', "sh", *words]
        process = subprocess.Popen(
            [*self.inside(host), *words],
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            env={**self.environment, **(environment or {})},
            start_new_session=True,
        )
        output.close()
        self.processes.append(process)
        return process

    def ray(self, host, *, cpus=1, name=None, before=""):
        """Start a Ray node on a host: the head on the first; returns once it has answered."""
        name = name or f"n{host}"
        words = [self.programs / "ray", "start", "--block", f"--num-cpus={cpus}"]
        words += [
            "--disable-usage-stats",
            f"--node-ip-address={self.addresses[host]}",
            "--object-store-memory=100000000",
        ]
        words += [f"--temp-dir={self.folder / name}", "--include-dashboard=false"]
        if host == 0:
            words += ["--head", "--port=6379"]
        else:
            # A node's port would be the head's: another Ray of this machine does not matter here.
            words = [word for word in words if word != "--include-dashboard=false"]
            words += [f"--address={self.address}"]
        node = self.start(host, *words, log=f"{name}.log", before=before)
        deadline = time.monotonic() + 180
        while "Ray runtime started" not in (self.folder / f"{name}.log").read_text():
            if node.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.folder / f"{name}.log").read_text())
            time.sleep(0.1)
        return node

    @property
    def address(self):
        """Where the head is."""
        return f"{self.addresses[0]}:6379"

    def raylet(self, name):
        """Return the raylet's process of a node by the name of its folder."""
        for process in psutil.process_iter(["name", "cmdline"]):
            words = process.info["cmdline"] or []
            if process.info["name"] == "raylet" and any(
                str(self.folder / name) in w for w in words
            ):
                return process
        raise RuntimeError(f"node {name} has no raylet")

    def close(self):
        """End every process of the hosts, then remove the hosts."""
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        for name in self.names:
            remove(name)
        for process in self.processes:
            process.wait(10)
        subprocess.run(["ip", "link", "del", self.bridge], capture_output=True, check=False)


def run(*words):
    """Run a command that has to work."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
