"""The protocol, over a real WebSocket."""

import asyncio
import json

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from dytrack_model.images import RGB
from dytrack_model.online import Tracker
from dytrack_model.policy import find_point
from dytrack_platform.serving.limits import Limits

from .conftest import BOX, POINTS, client


def alone(served, frames, point, box=BOX):
    """What the tracker gives by itself."""
    policy = find_point(POINTS, point, 3).policy()
    return list(Tracker(served.engine, policy).track((RGB(frame) for frame in frames), box))


def assert_same(found, expected):
    for row, prediction in zip(found, expected, strict=True):
        np.testing.assert_allclose(row["box"], prediction.box_xywh, atol=1e-4)
        assert row["exit"] == prediction.exit
        assert row["state"] == prediction.state
        assert row["predicted_iou"] == pytest.approx(prediction.predicted_iou, abs=1e-5)


def rows(answers, name="a"):
    return [answer["targets"][name] for answer in answers]


@pytest.mark.parametrize("point", ["fast", "balanced", "accurate", "full"])
def test_a_stream_gets_the_boxes_that_the_tracker_gives_alone(serve, served, frames, point):
    running = serve()

    async def story():
        # Many clients deflate their messages unless they are told not to.
        async with client(running.url, compression="deflate") as one:
            await one.start(point=point)
            return await one.follow(frames)

    answers = asyncio.run(story())
    assert [answer["frame"] for answer in answers] == list(range(12))
    first = answers[0]["targets"]["a"]
    assert (first["box"], first["exit"], first["state"]) == (BOX, 0, "tracking")
    assert_same(rows(answers[1:]), alone(served, frames, point))
    assert set(answers[1]["ms"]) == {"queue", "decode", "stages", "encode"}


def test_many_streams_at_once_get_what_each_gets_alone(serve, served, frames):
    running = serve()
    boxes = [[40.0 + k, 30.0, 30.0, 24.0 + k] for k in range(8)]

    async def one(box):
        async with client(running.url) as stream:
            await stream.start(("t", box))
            for frame in frames:
                await stream.send(frame)
            return [await stream.hear() for _ in frames]

    async def story():
        return await asyncio.gather(*(one(box) for box in boxes))

    for box, answers in zip(boxes, asyncio.run(story()), strict=True):
        assert [answer["frame"] for answer in answers] == list(range(12))
        assert_same(rows(answers[1:], "t"), alone(served, frames, "balanced", box))
    text = running.get("/metrics")[1]
    assert "dytrack_frames_total 96.0" in text
    batches = [line for line in text.splitlines() if line.startswith("dytrack_batch_rows_sum")]
    assert batches, "batches are counted by graph"


def test_targets_come_move_and_go_while_it_runs(serve, served, frames):
    running = serve()

    async def story():
        async with client(running.url) as one:
            await one.start()
            answers = await one.follow(frames[:2])
            await one.say("add", targets=[{"id": "b", "box": [60, 40, 20, 20]}])
            answers += await one.follow(frames[2:4])
            await one.say("move", id="b", box=[50, 34, 30, 24])
            await one.say("remove", id="a")
            answers += await one.follow(frames[4:6])
            await one.say("remove", id="nobody")
            answers.append(await one.ask(frames[6]))
            return answers, await one.hear()

    answers, last = asyncio.run(story())
    assert [sorted(a["targets"]) for a in answers[:6]] == [["a"]] * 2 + [["a", "b"]] * 2 + [
        ["b"]
    ] * 2
    assert answers[2]["targets"]["b"]["box"] == [60.0, 40.0, 20.0, 20.0]
    assert answers[6]["code"] == "target"
    assert last["type"] == "result"


def test_the_operating_point_changes_while_it_runs(serve, frames):
    running = serve()

    async def story():
        async with client(running.url) as one:
            await one.start(point="fast")
            before = await one.follow(frames[:3])
            await one.say("point", point="accurate")
            after = await one.follow(frames[3:6])
            await one.say("point", point="nothing")
            return before, after, await one.hear()

    before, after, refused = asyncio.run(story())
    assert {row["exit"] for row in rows(before[1:])} == {1}
    assert {row["exit"] for row in rows(after)} == {4}
    assert refused["code"] == "point"
    assert "fast, balanced, accurate, full" in refused["message"]


def test_a_budget_makes_frames_leave_earlier(serve, frames):
    running = serve()

    async def story():
        async with client(running.url) as one:
            await one.start(budget_ms=0.001)
            return await one.follow(frames[:8])

    answers = asyncio.run(story())
    assert rows(answers)[-1]["exit"] == 1
    assert rows(answers)[-1]["point"] == "first exit"


def test_realtime_drops_and_tells_and_every_does_not(serve, frames):
    running = serve()

    async def story(mode):
        async with client(running.url) as one:
            await one.start(mode=mode)
            for _ in range(10):
                for frame in frames:
                    await one.send(frame)
            answers = []
            while not answers or answers[-1]["frame"] < 119:
                answers.append(await one.hear())
            return answers

    every, latest = asyncio.run(story("every")), asyncio.run(story("realtime"))
    assert [answer["frame"] for answer in every] == list(range(120))
    assert sum(answer["dropped"] for answer in every) == 0
    assert len(latest) < 120
    assert len(latest) + sum(answer["dropped"] for answer in latest) == 120
    assert latest[0]["frame"] == 0, "the frame that the box was drawn in is never dropped"


def test_stop_answers_what_was_sent_and_says_goodbye(serve, frames):
    running = serve()

    async def story():
        async with client(running.url) as one:
            await one.start()
            for frame in frames:
                await one.send(frame)
            await one.say("stop")
            heard = []
            while not heard or heard[-1]["type"] != "end":
                heard.append(await one.hear())
            with pytest.raises(ConnectionClosed) as closed:
                await one.socket.recv()
            return heard, closed.value.rcvd.code

    heard, code = asyncio.run(story())
    assert [message.get("frame") for message in heard] == [*range(12), None]
    assert (heard[-1]["reason"], code) == ("stopped", 1000)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", "message"),
        ("[]", "message"),
        ('{"type": "dance"}', "message"),
        ('{"type": "start"}', "message"),
        ('{"type": "start", "targets": [], "no": 1}', "message"),
        ('{"type": "start", "targets": [{"id": "a", "box": [1, 2, 3]}]}', "box"),
        ('{"type": "start", "targets": [{"id": "a", "box": [1, 2, 3, NaN]}]}', "box"),
        ('{"type": "start", "targets": [{"id": "a", "box": [1, 2, 3, 1%s]}]}' % ("0" * 400), "box"),
        ('{"type": "start", "targets": [{"id": "", "box": [1, 2, 3, 4]}]}', "message"),
        ('{"type": "start", "targets": [{"id": "a", "box": [1,2,3,4]}], "mode": "x"}', "message"),
        ('{"type": "start", "targets": [{"id": "a", "box": [1,2,3,4]}], "model": "x"}', "model"),
        ('{"type": "start", "resume": "x.y"}', "resume"),
        ('{"type": "start", "resume": "\\ud800.a"}', "resume"),
        ('{"type": "add", "id": "a", "box": [1, 2, 3, 4]}', "not_started"),
        ('{"type": "point", "point": "fast"}', "not_started"),
        ("x" * 100_000, "too_large"),
    ],
)
def test_a_message_that_cannot_be_used_is_answered_and_the_stream_goes_on(
    serve, frames, text, code
):
    running = serve()

    async def story():
        async with client(running.url) as one:
            await one.socket.send(text)
            refused = await one.hear()
            await one.start()
            return refused, await one.ask(frames[0])

    refused, answer = asyncio.run(story())
    assert (refused["type"], refused["code"]) == ("error", code)
    assert answer["type"] == "result"


def test_a_box_beside_the_frame_is_told_and_the_others_are_followed(serve, frames):
    running = serve()

    async def story():
        async with client(running.url) as one:
            await one.start(("far", [500, 500, 10, 10]), ("a", BOX))
            return await one.ask(frames[0]), await one.hear()

    refused, answer = asyncio.run(story())
    assert refused["code"] == "box"
    assert "outside the image of 128x96" in refused["message"]
    assert list(answer["targets"]) == ["a"]


def test_a_token_is_asked_of_everything_but_health(serve, frames):
    running = serve(token="open sesame")
    assert running.get("/healthz")[0] == 200
    assert running.get("/readyz")[0] == 200
    assert running.get("/")[0] == 200
    for path in ("/v1/model", "/metrics"):
        assert running.get(path)[0] == 401
        assert running.get(path, "open sesam")[0] == 401
        assert running.get(path, "open sesame")[0] == 200

    async def story(**options):
        async with client(running.url, **options) as one:
            await one.start()
            return await one.ask(frames[0])

    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic x"}):
        with pytest.raises(InvalidStatus) as refused:
            asyncio.run(story(additional_headers=headers))
        assert refused.value.response.status_code == 403
    right = {"Authorization": "Bearer open sesame"}
    assert asyncio.run(story(additional_headers=right))["type"] == "result"


def test_pages_of_other_sites_are_refused_and_cors_is_closed(serve, frames):
    running = serve()

    async def story(origin):
        async with client(running.url, origin=origin) as one:
            await one.start()
            return await one.ask(frames[0])

    with pytest.raises(InvalidStatus):
        asyncio.run(story("http://elsewhere.example"))
    assert asyncio.run(story(f"http://127.0.0.1:{running.port}"))["type"] == "result"

    async def rebound():  # a name of theirs that leads here for a moment
        words = {"origin": "http://elsewhere.example:80", "host": "127.0.0.1", "port": running.port}
        async with client("ws://elsewhere.example:80/v1/track", **words):
            pass

    with pytest.raises(InvalidStatus):
        asyncio.run(rebound())
    for path in ("/", "/v1/model", "/metrics", "/nothing"):
        headers = running.get(path)[2]
        assert not [key for key in headers if key.lower().startswith("access-control")]


def test_what_it_tells_of_itself(serve, frames):
    running = serve()
    about = json.loads(running.get("/v1/model")[1])
    assert about["name"] == "made"
    assert about["exits"] == [1, 2, 4]
    assert about["points"] == ["fast", "balanced", "accurate", "full"]
    assert about["batch_ms"]["stage0"]["1"] > 0
    code, body, _ = running.get("/no/such/thing")
    assert code == 404
    assert json.loads(body) == {"error": "there is no such address here"}


@pytest.mark.slow
def test_idle_connections_and_streams_end_with_a_reason(serve, frames):
    running = serve(limits=Limits(idle_s=0.4, heartbeat_s=0.2))

    async def story(starts):
        async with client(running.url) as one:
            if starts:
                await one.start()
                await one.ask(frames[0])
            assert (await one.hear("heartbeat"))["type"] == "heartbeat"
            return await one.hear("end")

    for starts in (True, False):
        assert asyncio.run(story(starts))["reason"] == "idle"


def test_a_stream_goes_on_at_another_server_from_its_token(serve, served, frames):
    first, second = serve(), serve()

    async def story():
        async with client(first.url) as one:
            await one.start(("a", BOX), ("b", [60.0, 40.0, 20.0, 20.0]))
            before = await one.follow(frames[:5])
            token = await one.token()
        async with client(second.url) as two:
            two.number = 5
            await two.say("start", resume=token)
            await two.send(frames[5])
            event = await two.hear("resumed")
            return before, event, await two.hear(), await two.follow(frames[6:])

    before, event, sixth, rest = asyncio.run(story())
    assert event["frame"] == 5
    answers = [*before, sixth, *rest]
    assert_same(rows(answers[1:]), alone(served, frames, "balanced"))


def test_a_token_of_another_key_or_a_cut_one_is_refused(serve, frames):
    running = serve()

    async def story():
        async with client(running.url) as one:
            await one.start()
            await one.ask(frames[0])
            token = await one.token()
            refused = []
            for wrong in (token[:-1] + "0", token[4:], "." + token.rpartition(".")[2], "é.ü"):
                await one.say("start", resume=wrong)
                refused.append(await one.hear())
            return refused

    assert {message["code"] for message in asyncio.run(story())} == {"resume"}


def test_a_target_that_barely_touches_the_frame_is_followed(serve, frames):
    running = serve()

    async def story():
        async with client(running.url) as one:
            await one.start(("left", [-400, 30, 401, 4]), ("below", [40, 95, 4, 384]))
            return await one.ask(frames[0])

    assert set(asyncio.run(story())["targets"]) == {"left", "below"}


@pytest.mark.slow
def test_a_large_target_of_a_large_frame_has_a_small_token(serve, served):
    """Kept in full, this cut-out of noise has 15 MB, more than a server takes back."""
    rng = np.random.default_rng(0)
    large = rng.integers(0, 256, (1400, 2400, 3), dtype=np.uint8)
    large[300:1100, 600:1600] = 230
    box = [600.0, 300.0, 1000.0, 800.0]
    running = serve()

    async def story():
        async with client(running.url) as one:
            await one.start(("a", box))
            answers = await one.follow([large, large])
            tokens = [await one.token(), await one.token()]
        async with client(running.url) as two:
            await two.say("start", resume=tokens[0])
            return answers, tokens, await two.ask(large)

    answers, tokens, resumed = asyncio.run(story())
    assert_same(rows(answers[1:]), alone(served, [large, large], "balanced", box))
    assert tokens[0] == tokens[1]
    assert len(tokens[0]) < 500_000
    assert set(resumed["targets"]) == {"a"}


def test_a_start_that_is_refused_takes_no_place(serve, frames):
    running = serve(limits=Limits(streams=1))

    async def story():
        async with client(running.url) as one, client(running.url) as two:
            await one.start(model="unknown")
            refused = await one.hear()
            await two.start()
            return refused, await two.ask(frames[0]), await one.ask(frames[0])

    refused, answer, early = asyncio.run(story())
    assert refused["code"] == "model"
    assert answer["type"] == "result"
    assert early["code"] == "not_started"


def test_a_new_start_may_come_with_frames_of_another_size(serve, frames):
    running = serve()

    async def story():
        async with client(running.url) as one:
            await one.start()
            await one.ask(frames[0])
            await one.start(("b", [10.0, 10.0, 20.0, 20.0]))
            return await one.follow([frames[1][:80], frames[2][:80]])

    assert [set(answer["targets"]) for answer in asyncio.run(story())] == [{"b"}, {"b"}]


def test_of_two_starts_before_a_frame_the_second_counts_and_loses_nothing(serve, frames):
    running = serve()

    async def story():
        async with client(running.url) as one:
            await one.start()
            await one.ask(frames[0])
            token = await one.token()
            await one.start(("b", BOX))
            await one.say("start", resume=token)
            await one.say("start", resume=token)
            refused = await one.hear()
            return refused, await one.ask(frames[1])

    refused, answer = asyncio.run(story())
    assert refused["code"] == "too_many"
    assert set(answer["targets"]) == {"a"}
