"""From training to a served model that is rolled back under load, on two replicas of Ray Serve."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from dytrack_model import checkpoint
from dytrack_platform.errors import DyTrackError
from dytrack_platform.experiment.registry import promotion
from dytrack_platform.experiment.runs import tracking
from dytrack_platform.experiment.serve.sources import make_source
from tests.unit.platform.serving.browser import CHROMIUM, page
from tests.unit.platform.serving.conftest import client

pytestmark = pytest.mark.ray


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def command(*words):
    return [sys.executable, "-m", "dytrack_pipelines.cli", *words]


class Served:
    """``dytrack serve`` in a process of its own."""

    def __init__(self, folder, *words):
        self.port = free_port()
        self.url = f"ws://127.0.0.1:{self.port}/v1/track"
        self.page = f"http://127.0.0.1:{self.port}/"
        self.log = folder / "serve.log"
        words = command("serve", "--port", str(self.port), "--poll-s", "0.5", *words)
        with self.log.open("w") as out:
            self.process = subprocess.Popen(words, stdout=out, stderr=subprocess.STDOUT, cwd=folder)
        until = time.monotonic() + 120
        while "serving " not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.2)

    def get(self, path):
        with urllib.request.urlopen(self.page + path, timeout=10) as answer:
            return answer.read().decode()

    def replicas(self):
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if "Replica" in " ".join(child.cmdline())]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def run(folder, *words):
    done = subprocess.run(
        command(*words), capture_output=True, text=True, cwd=folder, check=False, timeout=300
    )
    return done.returncode, done.stdout + done.stderr


def scored(folder, shift, blocks):
    """An evaluation of one point over eight sequences, ``shift`` away from the first one's."""
    rows = {f"s{k}": {"success_auc": 0.3 + 0.05 * k + shift} for k in range(8)}
    point = {"name": "balanced", "exit_share": [0.5, 0.5], "success_auc": 0.475 + shift}
    point |= {"gmacs": 0.01, "per_sequence": rows}
    summary = {"dataset": "made", "protocol": "lasot", "data": "d"}
    folder.mkdir()
    summary |= {"points": [point], "exit_blocks": blocks}
    (folder / "summary.json").write_text(json.dumps(summary))
    return str(folder)


@pytest.fixture
def trained(store, values, recipe_file, tmp_path):
    """A tracker that was trained here, in a process of its own."""
    code, told = run(tmp_path, "train", str(recipe_file))
    assert code == 0, told
    return tmp_path / "runs" / "tiny"


async def follow(url, box, until, pause=0.02):
    """Follow a moving patch until told to stop; returns every answer."""
    from tests.unit.platform.serving.test_faults import moving

    async with client(url) as one:
        await one.start(("a", box))
        answers = []
        while not until.is_set():
            answers.append(await one.ask(moving(one.number)))
            await asyncio.sleep(pause)
        return answers


def test_train_publish_gate_serve_browser_and_back_under_load(trained, tmp_path):
    # Publish: nobody is champion yet; a worse one is refused, a better one promoted.
    blocks = list(checkpoint.read_config(trained).exits)
    anyhow = ("--slower", "100")
    first = scored(tmp_path / "e1", 0.0, blocks)
    code, told = run(tmp_path, "publish", str(trained), "--evaluation", first, "--promote", *anyhow)
    assert code == 0, told
    worse = scored(tmp_path / "e2", -0.1, blocks)
    code, told = run(tmp_path, "publish", str(trained), "--evaluation", worse, "--promote", *anyhow)
    assert code == 3, told
    assert "the gate refuses version 2" in told
    better = scored(tmp_path / "e3", 0.1, blocks)
    code, told = run(
        tmp_path, "publish", str(trained), "--evaluation", better, "--promote", *anyhow
    )
    assert code == 0, told
    # Serve champion, look at it in a browser, and roll back while streams run.
    served = Served(tmp_path, "--model", "models:/dytrack@champion", "--replicas", "2")
    try:
        asyncio.run(_look_and_roll_back(served, tmp_path))
        asyncio.run(_lose_a_replica(served))
        _move_to_what_is_broken(served)
        _send_too_fast(served)
    finally:
        code = served.stop()
    assert code == 0
    assert "stopped" in served.log.read_text()


async def _look_and_roll_back(served, tmp_path):
    assert json.loads(served.get("v1/model"))["version"] == "3"
    if CHROMIUM is not None:
        async with page(served.page, tmp_path / "profile") as one:
            await one.until("document.body.dataset.ready === 'yes'")
            await one.value("document.getElementById('sample').click()")
            await one.until("document.body.dataset.source === 'sample'")
            await one.drag((311, 123, 50, 31))
            before = await one.value("[...targets.values()][0].box")
            await one.value("document.getElementById('go').click()")
            await one.until("Number(document.body.dataset.frames) > 10", 60)
            assert await one.value("[...targets.values()][0].box") != before
            assert one.complaints == []
    done = asyncio.Event()
    load = [asyncio.create_task(follow(served.url, [40 + k, 30, 30, 24], done)) for k in range(4)]
    await asyncio.sleep(1)
    code, told = await asyncio.to_thread(run, tmp_path, "rollback")
    assert code == 0, told
    await asyncio.sleep(6)
    done.set()
    for answers in await asyncio.gather(*load):
        assert [answer["frame"] for answer in answers] == list(range(len(answers)))
        versions = [answer["model"] for answer in answers]
        assert versions == sorted(versions, reverse=True)
        assert set(versions) == {"3", "1"}
        assert {answer["type"] for answer in answers} == {"result"}


async def _lose_a_replica(served):
    """A killed replica: the client goes on from its token, and is told so."""
    from tests.unit.platform.serving.test_faults import moving

    async with client(served.url) as one:
        await one.start(("a", [40, 30, 30, 24]))
        for k in range(5):
            last = await one.ask(moving(k))
        token = await one.token()
        for replica in served.replicas():
            os.kill(replica.pid, signal.SIGKILL)
        with pytest.raises((ConnectionClosed, TimeoutError, OSError)):
            await _follow_on(one, moving)
    for _ in range(120):
        try:
            async with client(served.url) as two:
                two.number = 5
                await two.say("start", resume=token)
                await two.send(moving(5))
                assert (await two.hear("resumed"))["frame"] == 5
                answer = await two.hear()
                assert answer["type"] == "result"
                before, after = last["targets"]["a"]["box"], answer["targets"]["a"]["box"]
                assert max(abs(a - b) for a, b in zip(before, after, strict=True)) < 60
                return
        except (OSError, InvalidHandshake, ConnectionClosed, TimeoutError) as error:
            reason = error
            await asyncio.sleep(0.5)
    raise AssertionError(f"no replica came back: {reason}")


async def _follow_on(one, moving):
    for k in range(100):
        await one.ask(moving(5 + k))
        await asyncio.sleep(0.1)


def _move_to_what_is_broken(served):
    """An alias that leads to a version without weights: refused, and the old one stays."""
    import mlflow

    tracking.connect()  # this process may still look at an earlier test's store
    client_ = mlflow.MlflowClient()
    broken = client_.get_model_version("dytrack", "2").source
    folder = Path(mlflow.artifacts.download_artifacts(broken))
    for weights in folder.rglob("model.safetensors"):
        weights.write_bytes(b"not weights")
    client_.set_registered_model_alias("dytrack", "champion", "2")
    for _ in range(60):
        about = json.loads(served.get("v1/model"))
        if "refused" in about["models"][0]:
            break
        time.sleep(0.5)
    assert about["version"] == "1"
    assert about["models"][0]["refused"]["version"] == "2"


def _send_too_fast(served):
    """Ray Serve's proxy holds no client back: the replica bounds what waits, and says so."""
    from tests.unit.platform.serving.test_faults import flood

    heard = asyncio.run(flood(served.url, 400, 500_000))
    assert [one["code"] for one in heard if one["type"] == "error"] == ["too_fast"]
    assert heard[-1]["reason"] == "too_fast"


def test_an_alias_that_nobody_has_is_refused_before_ray_starts(store):
    tracking.connect()
    assert promotion.holder("nobody", "champion") is None
    source = make_source("models:/nobody@champion", None, "auto", "cpu", 1)
    with pytest.raises(DyTrackError, match="nobody has this alias"):
        source.version()
