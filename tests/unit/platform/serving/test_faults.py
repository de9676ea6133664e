"""What goes wrong with clients and models; each row of the fault table in docs/serving.md."""

import asyncio
import contextlib
import gc
import json
import struct
import time
import zlib
from dataclasses import replace

import cv2
import numpy as np
import psutil
import pytest
from websockets.exceptions import ConnectionClosed

from dytrack_model import checkpoint
from dytrack_model.checkpoint import SavedTracker
from dytrack_model.images import RGB
from dytrack_model.network import DyTrackNetwork
from dytrack_model.online import Tracker
from dytrack_model.policy import find_point
from dytrack_model.target_state import STATES
from dytrack_platform.errors import CheckpointError, ConfigurationError
from dytrack_platform.serving.batching import open_served
from dytrack_platform.serving.limits import Limits
from dytrack_platform.serving.messages import Refused
from dytrack_platform.serving.models import Source
from dytrack_platform.serving.targets import Target

from .conftest import BOX, GOLDEN, POINTS, client, network, packed, png


def moving(number):
    """A frame (96, 128, 3) of a bright patch that swings over noise."""
    frame = np.random.default_rng(0).integers(0, 120, (96, 128, 3), dtype=np.uint8)
    x, y = 40 + int(15 * np.sin(number / 9)), 30 + int(10 * np.sin(number / 7))
    frame[y : y + 24, x : x + 30] = 230
    return frame


def bomb(width, height):
    """A PNG that says it is large, and unpacks to as much of nothing."""

    def chunk(kind, body):
        whole = kind + body
        return struct.pack(">I", len(body)) + whole + struct.pack(">I", zlib.crc32(whole))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    packer = zlib.compressobj(9)
    row = b"\0" * (1 + 3 * width)
    body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


def jpeg_that_says(width, height):
    """A small JPEG whose header says another size."""
    data = bytearray(cv2.imencode(".jpg", moving(0))[1].tobytes())
    place = data.find(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", height, width)
    return bytes(data)


GARBAGE = {
    "nothing": b"",
    "noise": bytes(range(256)) * 4,
    "cut jpeg": cv2.imencode(".jpg", moving(0))[1].tobytes()[:900],
    "cut png": png(moving(0))[:900],
    "a gif": b"GIF89a" + bytes(100),
    "hundred megapixels": jpeg_that_says(12000, 9000),
    "bomb": bomb(6000, 6000),
    "no size": jpeg_that_says(0, 0),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_bytes_that_are_no_frame_are_told_and_the_stream_goes_on(serve, frames, name):
    running = serve()
    before = psutil.Process().memory_info().rss

    async def story():
        async with client(running.url) as one:
            await one.start()
            await one.ask(frames[0])
            await one.socket.send(packed(7, GARBAGE[name]))
            return await one.hear(), await one.ask(frames[1])

    refused, answer = asyncio.run(story())
    assert refused["type"] == "error"
    assert refused["code"] in ("image", "too_large", "frame")
    assert "/" not in refused["message"], "no path and no trace leaves the server"
    assert answer["type"] == "result"
    assert psutil.Process().memory_info().rss - before < 60 * 2**20, "it was decoded"


def test_a_message_too_short_for_a_header_is_told(serve, frames):
    running = serve()

    async def story():
        async with client(running.url) as one:
            await one.start()
            await one.socket.send(b"\0" * 12)
            first = await one.hear()
            await one.socket.send(struct.pack("<Qd", 1, float("nan")) + png(frames[0]))
            return first, await one.hear()

    for refused in asyncio.run(story()):
        assert refused["code"] == "frame"


@pytest.mark.slow
def test_a_client_that_goes_in_the_middle_of_a_frame_leaves_nothing_behind(serve, frames):
    running = serve()

    async def story():
        for _ in range(5):
            async with client(running.url) as one:
                await one.start()
                for frame in frames:
                    await one.send(frame)
                one.socket.transport.abort()
        async with client(running.url) as one:
            await one.start()
            answer = await one.ask(frames[0])
            await asyncio.sleep(0.5)
            return answer, running.get("/metrics")[1]

    answer, text = asyncio.run(story())
    assert answer["type"] == "result"
    assert "dytrack_streams 1.0" in text
    assert 'dytrack_ended_total{reason="client_gone"} 5.0' in text


@pytest.mark.slow
def test_a_thousand_idle_connections_leave_room_for_who_tracks(serve, frames):
    running = serve(limits=Limits(connections=1010))

    async def story():
        from websockets.asyncio.client import connect

        idle = []
        for _ in range(10):
            idle += await asyncio.gather(
                *(connect(running.url, ping_interval=None) for _ in range(100))
            )
        async with client(running.url) as one:
            await one.start()
            began = time.perf_counter()
            answers = await one.follow(frames)
            took = time.perf_counter() - began
        await asyncio.gather(*(socket.close() for socket in idle))
        return answers, took

    answers, took = asyncio.run(story())
    assert all(answer["type"] == "result" for answer in answers)
    assert took < 10


def test_connections_and_streams_are_counted(serve, frames):
    running = serve(limits=Limits(connections=3, streams=1))

    async def story():
        async with client(running.url) as one, client(running.url) as two:
            await one.start()
            await one.ask(frames[0])
            await two.start()
            busy = await two.hear()
            async with client(running.url):
                with pytest.raises(Exception, match="403"):
                    async with client(running.url):
                        pass
            await one.say("stop")
            await one.hear("end")
            await asyncio.sleep(0.2)
            await two.start()
            return busy, await two.ask(frames[0])

    busy, answer = asyncio.run(story())
    assert busy["code"] == "busy"
    assert answer["type"] == "result"


@pytest.mark.slow
def test_a_client_that_never_reads_is_let_go_and_costs_no_memory(serve, frames):
    running = serve(limits=Limits(send_s=0.5, idle_s=5))

    async def story():
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port, limit=1024)
        writer.write(
            b"GET /v1/track HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()

        def message(kind, body):
            mask = b"\0\0\0\0"
            size = len(body)
            length = bytes([0x80 | size]) if size < 126 else b"\xfe" + struct.pack(">H", size)
            return bytes([0x80 | kind]) + length + mask + body

        start = {"type": "start", "targets": [{"id": "a", "box": BOX}]}
        writer.write(message(1, json.dumps(start).encode()))
        small = cv2.imencode(".jpg", moving(0))[1].tobytes()
        try:
            for k in range(3000):
                writer.write(message(2, packed(k, small)))
                await asyncio.wait_for(writer.drain(), 5)
        except (OSError, TimeoutError):
            pass
        for _ in range(100):
            text = running.get("/metrics")[1]
            if "dytrack_streams 0.0" in text:
                break
            await asyncio.sleep(0.1)
        writer.transport.abort()
        return text

    text = asyncio.run(story())
    assert "dytrack_streams 0.0" in text


async def flood(url, count, size):
    """Send so many frames without waiting; returns what is heard until the end."""
    frame = packed(0, cv2.imencode(".jpg", moving(0))[1].tobytes() + bytes(size))
    heard = []
    async with client(url, ping_interval=None) as one:
        await one.start()
        with contextlib.suppress(ConnectionClosed):
            for _ in range(count):
                await one.socket.send(frame)
            await one.say("stop")
        while not heard or heard[-1]["type"] != "end":
            heard.append(await one.hear())
    return heard


def test_a_client_that_sends_too_fast_is_let_go_where_nothing_holds_it_back(serve):
    running = serve(limits=Limits(waiting_bytes=2**20), holds_back=False)
    *results, error, end = asyncio.run(flood(running.url, 400, 40_000))
    assert all(one["type"] == "result" for one in results)
    assert len(results) < 400
    assert (error["type"], error["code"]) == ("error", "too_fast")
    assert end["reason"] == "too_fast"
    assert 'dytrack_ended_total{reason="too_fast"} 1.0' in running.get("/metrics")[1]


def test_a_client_that_sends_too_fast_is_held_back_where_not_reading_does_it(serve):
    running = serve(limits=Limits(waiting_bytes=2**20))
    *results, end = asyncio.run(flood(running.url, 60, 40_000))
    assert [one["frame"] for one in results] == [0] * 60
    assert end["reason"] == "stopped"


def test_nothing_but_what_waits_counts_against_a_client(serve, frames):
    running = serve(limits=Limits(waiting_bytes=60_000), holds_back=False)

    async def story():
        async with client(running.url) as one:
            await one.start()
            answers = [await one.ask(frames[k % 12]) for k in range(12)]
            await one.say("stop")
            return answers, await one.hear("end")

    answers, end = asyncio.run(story())
    assert sum(len(png(frame)) for frame in frames) > 60_000
    assert [answer["frame"] for answer in answers] == list(range(12))
    assert end["reason"] == "stopped"


def test_frames_of_another_size_are_told(serve, frames):
    running = serve()

    async def story():
        async with client(running.url) as one:
            await one.start()
            await one.ask(frames[0])
            return await one.ask(frames[1][:50]), await one.ask(frames[2])

    refused, answer = asyncio.run(story())
    assert refused["code"] == "frame_size"
    assert answer["type"] == "result"


class Registry:
    """An alias that can be moved."""

    def __init__(self, versions):
        self.versions, self.now = versions, next(iter(versions))

    def source(self):
        return Source("made", lambda: self.now, self._load)

    async def move(self, version):
        """Move the alias, and wait until the server has looked."""
        self.now = version
        await asyncio.sleep(0.6)

    def _load(self, version):
        found = self.versions[version]
        if isinstance(found, Exception):
            raise found
        return found


@pytest.fixture(scope="module")
def others():
    saved = SavedTracker(network=network(1), points=POINTS)
    nan = network(2)
    for parameter in nan.heads.parameters():
        parameter.data.fill_(float("nan"))
    return open_served(saved, rounds=1), open_served(SavedTracker(network=nan), rounds=1)


@pytest.mark.slow
def test_a_new_champion_takes_over_under_load_and_no_frame_is_lost(serve, served, others):
    registry = Registry({"1": served, "2": others[0]})
    running = serve([registry.source()], poll_s=0.1)
    done = asyncio.Event()

    async def one(box):
        async with client(running.url) as stream:
            await stream.start(("a", box), point="fast")
            answers = []
            while not done.is_set():
                answers.append(await stream.ask(moving(stream.number)))
            answers += await stream.follow([moving(k) for k in range(3)])
            return answers

    async def story():
        tasks = [asyncio.create_task(one([40.0, 30.0, 30.0, 24.0 + k])) for k in range(4)]
        await asyncio.sleep(0.4)
        registry.now = "2"
        await asyncio.sleep(1.2)
        done.set()
        return await asyncio.gather(*tasks), json.loads(running.get("/v1/model")[1])

    streams, about = asyncio.run(story())
    for answers in streams:
        assert [answer["frame"] for answer in answers] == list(range(len(answers)))
        versions = [answer["model"] for answer in answers]
        assert versions == sorted(versions)
        assert set(versions) == {"1", "2"}
    assert about["version"] == "2"
    assert about["models"][0]["leaving"] == [], "the old one went when it was empty"


@pytest.mark.parametrize(
    "broken", ["unreadable", pytest.param("not a number", marks=pytest.mark.slow)]
)
def test_an_alias_on_a_broken_model_is_refused_and_the_old_one_stays(
    serve, served, others, frames, broken
):
    bad = CheckpointError("damaged") if broken == "unreadable" else others[1]
    registry = Registry({"1": served, "2": bad, "3": others[0]})
    running = serve([registry.source()], poll_s=0.05)

    async def story():
        async with client(running.url) as one:
            await one.start()
            await one.ask(frames[0])
            await registry.move("2")
            about = json.loads(running.get("/v1/model")[1])
            answer = await one.ask(frames[1])
            await registry.move("3")
            return about, answer, await one.ask(frames[2])

    about, kept, mended = asyncio.run(story())
    assert about["version"] == "1"
    assert about["models"][0]["refused"]["version"] == "2"
    assert kept["model"] == "1"
    assert mended["model"] == "3"
    assert "dytrack_models_refused_total 1.0" in running.get("/metrics")[1]


def test_a_stopped_server_answers_what_was_sent_and_says_why_it_ends(serve, frames):
    running = serve(limits=Limits(heartbeat_s=0.4))

    async def story():
        async with client(running.url) as one:
            await one.start()
            answers = await one.follow(frames[:4])
            for frame in frames[4:8]:
                await one.send(frame)
            await asyncio.sleep(0)
            drained = asyncio.run_coroutine_threadsafe(
                running.server.drain(), running.uvicorn.servers[0].get_loop()
            )
            while True:
                message = await one.hear()
                answers.append(message)
                if message["type"] == "end":
                    break
            with pytest.raises(ConnectionClosed):
                await one.socket.recv()
            await asyncio.wrap_future(drained)
            return answers, running.get("/readyz")[0]

    answers, ready = asyncio.run(story())
    assert [answer.get("frame") for answer in answers] == [*range(8), None]
    assert answers[-1]["reason"] == "server_stopping"
    assert ready == 503


@pytest.mark.slow
def test_a_target_that_is_lost_for_long_keeps_its_size_and_takes_no_memory(serve):
    """Nothing but noise for as many frames as a minute has; the slow tier has ten minutes."""
    _lost(serve, 300)


@pytest.mark.slow
def test_a_target_that_is_lost_for_ten_minutes_keeps_its_size_and_takes_no_memory(serve):
    _lost(serve, 15_000)


def _lost(serve, count):
    running = serve()
    rng = np.random.default_rng(0)
    noise = [
        cv2.imencode(".jpg", rng.integers(0, 255, (96, 128, 3), dtype=np.uint8))[1].tobytes()
        for _ in range(16)
    ]

    async def story():
        async with client(running.url) as one:
            await one.start(point="fast")
            await one.ask(moving(0))
            sizes, memory, states = set(), [], []
            for k in range(count):
                row = (await one.ask(noise[k % 16]))["targets"]["a"]
                states.append(row["state"])
                if row["state"] == "lost":
                    sizes.add(tuple(row["box"][2:]))
                if k in (count // 3, count - 1):
                    gc.collect()
                    memory.append(psutil.Process().memory_info().rss)
            return states, sizes, memory

    states, sizes, memory = asyncio.run(story())
    if "lost" in states:
        first = states.index("lost")
        if set(states[first:]) == {"lost"}:
            assert len(sizes) == 1
    assert memory[1] - memory[0] < 16 * 2**20


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ("balanced", ("quick", "deep")),
        pytest.param("fast", ("balanced", "deep"), marks=pytest.mark.slow),
        pytest.param("0.4,0.6", ("quick", "deep"), marks=pytest.mark.slow),
    ],
)
def test_targets_move_to_a_model_with_other_points(serve, served, frames, asked, names):
    points = [replace(POINTS[0], name=names[0]), replace(POINTS[-1], name=names[1])]
    other = open_served(SavedTracker(network=network(1), points=tuple(points)), rounds=1)
    registry = Registry({"1": served, "2": other})
    running = serve([registry.source()], poll_s=0.05)

    async def story():
        async with client(running.url) as one:
            await one.start(point=asked)
            await one.ask(frames[0])
            await registry.move("2")
            return await one.follow(frames[1:])

    answers = asyncio.run(story())
    assert {(answer["type"], answer.get("model")) for answer in answers} == {("result", "2")}
    kept = {"balanced": "full", "fast": "balanced"}.get(asked, asked)
    policy = find_point(points, kept, 3).policy()
    alone = Tracker(other.engine, policy)
    alone.start(RGB(frames[0]), BOX)
    for frame, answer in zip(frames[1:], answers, strict=True):
        expected = alone.step(RGB(frame))
        assert answer["targets"]["a"]["exit"] == expected.exit
        np.testing.assert_allclose(answer["targets"]["a"]["box"], expected.box_xywh, atol=1e-4)


@pytest.mark.slow
def test_a_fast_target_is_fast_on_another_model_too(serve, frames, monkeypatch):
    """Two versions of the same weights: the stream goes on as if it had stayed."""
    monkeypatch.setattr("dytrack_model.narrow.SLOW_BELOW", 0.0)
    golden = checkpoint.load(GOLDEN).network
    narrow = DyTrackNetwork(replace(golden.config, narrow_size=96)).eval()
    narrow.load_state_dict(golden.state_dict())
    points = tuple(replace(point, narrow=True) for point in POINTS)
    first, second = (
        open_served(SavedTracker(network=narrow, points=points), rounds=1) for _ in range(2)
    )
    alone = Tracker(first.engine, find_point(points, "balanced", 3).policy(), states=STATES)
    alone.start(RGB(frames[0]), BOX)
    expected = [alone.step(RGB(frames[1]))]
    assert not alone.pace.slow, "its next frame is looked at as a whole"
    expected += [alone.step(RGB(frame)) for frame in frames[2:6]]
    registry = Registry({"1": first, "2": second})
    running = serve([registry.source()], poll_s=0.05)

    async def story():
        async with client(running.url) as one:
            await one.start()
            answers = await one.follow(frames[:2])
            await registry.move("2")
            return answers[1:] + await one.follow(frames[2:6])

    answers = asyncio.run(story())
    assert [answer["model"] for answer in answers] == ["1", *"2222"]
    for answer, one in zip(answers, expected, strict=True):
        np.testing.assert_allclose(answer["targets"]["a"]["box"], one.box_xywh, atol=1e-3)


@pytest.mark.slow
def test_targets_stay_whole_where_a_model_does_not_take_them(serve, served, frames, monkeypatch):
    registry = Registry({"1": served, "2": open_served(SavedTracker(network=network(1)), rounds=1)})
    running = serve([registry.source()], poll_s=0.05)
    resuming, refusals = Target.resuming, iter((True, True))

    def refuse(target, *words):
        if next(refusals, False):
            raise Refused("target", "not now")
        return resuming(target, *words)

    monkeypatch.setattr(Target, "resuming", refuse)

    async def story():
        async with client(running.url) as one:
            await one.start()
            await one.ask(frames[0])
            await registry.move("2")
            return await one.follow(frames[1:4]), json.loads(running.get("/v1/model")[1])

    answers, about = asyncio.run(story())
    assert [answer["type"] for answer in answers] == ["error", "error", "result"]
    assert answers[2]["model"] == "2"
    assert about["models"][0]["streams"] == 1


@pytest.mark.slow
def test_a_version_that_fails_without_a_word_does_not_end_the_watch(serve, served, others):
    registry = Registry({"1": served, "2": AssertionError(), "3": others[0]})
    running = serve([registry.source()], poll_s=0.05)
    asyncio.run(registry.move("2"))
    about = json.loads(running.get("/v1/model")[1])
    assert about["models"][0]["refused"] == {"version": "2", "reason": "AssertionError"}
    asyncio.run(registry.move("3"))
    assert json.loads(running.get("/v1/model")[1])["version"] == "3"


def test_two_models_of_one_name_are_refused(serve, served):
    source = Source("tracker", lambda: "1", lambda version: served)
    with pytest.raises(ConfigurationError, match="two models are called tracker"):
        serve([source, source])
