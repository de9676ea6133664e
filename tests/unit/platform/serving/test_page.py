"""The web page, in headless Chromium against a running server."""

import asyncio
import json

import pytest

from .browser import CHROMIUM, page

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
]


def test_a_box_that_is_drawn_follows_and_can_be_downloaded(serve, tmp_path):
    running = serve()

    async def story():
        async with page(f"http://127.0.0.1:{running.port}/", tmp_path / "profile") as one:
            await one.until("document.body.dataset.ready === 'yes'")
            await one.value("document.getElementById('sample').click()")
            await one.until("document.body.dataset.source === 'sample'")
            await one.drag((311, 123, 50, 31))
            first = await one.value("[...targets.values()][0].box")
            await one.value("document.getElementById('go').click()")
            await one.until("Number(document.body.dataset.frames) > 20")
            await one.value("point.value = 'accurate'; point.dispatchEvent(new Event('change'))")
            await one.until("history.length && [...targets.values()][0].row.exit === 4")
            box = await one.value("[...targets.values()][0].box")
            # A second target joins while it runs.
            await one.drag((150, 40, 60, 60))
            await one.until("results.some((row) => row.target === 'b')")
            await one.value("document.getElementById('stop').click()")
            rows = await one.value("JSON.stringify(results)")
            return first, box, json.loads(rows), one.complaints

    first, box, rows, complaints = asyncio.run(story())
    assert complaints == []
    assert first == pytest.approx([311, 123, 50, 31], abs=2)
    assert box != first
    assert {row["target"] for row in rows} == {"a", "b"}
    frames = [row["frame"] for row in rows if row["target"] == "a"]
    assert frames == sorted(set(frames))


def test_the_camera_and_the_keyboard_alone_will_do(serve, tmp_path):
    running = serve()

    async def story():
        async with page(f"http://127.0.0.1:{running.port}/", tmp_path / "profile") as one:
            await one.until("document.body.dataset.ready === 'yes'")
            await one.value("document.getElementById('camera').focus()")
            await one.value("document.getElementById('camera').click()")
            await one.until("document.body.dataset.source === 'camera'")
            await one.value("view.focus()")
            before = await one.value("drawn")
            await one.key("ArrowRight")
            await one.key("ArrowDown", modifiers=8)
            after = await one.value("drawn")
            await one.key("Enter")
            await one.value("document.getElementById('go').click()")
            await one.until("Number(document.body.dataset.frames) > 10")
            mode = await one.value("document.getElementById('mode').value")
            return before, after, mode, one.complaints

    before, after, mode, complaints = asyncio.run(story())
    assert complaints == []
    assert mode == "realtime"
    assert after[0] == before[0] + 8
    assert after[3] == before[3] + 8


def test_a_phone_needs_no_scrolling_to_the_side(serve, tmp_path):
    running = serve()

    async def story():
        async with page(f"http://127.0.0.1:{running.port}/", tmp_path / "profile") as one:
            await one.size(360, 740, mobile=True, dark=True)
            await one.until("document.body.dataset.ready === 'yes'")
            await one.value("document.getElementById('sample').click()")
            await one.until("document.body.dataset.source === 'sample'")
            wide = await one.value("document.documentElement.scrollWidth")
            ground = await one.value("getComputedStyle(document.body).backgroundColor")
            small = await one.value(
                "[...document.querySelectorAll('button')].filter((b) => b.offsetHeight < 36).length"
            )
            return wide, ground, small

    wide, ground, small = asyncio.run(story())
    assert wide <= 360
    assert ground == "rgb(21, 24, 28)"
    assert small == 0


def test_a_token_is_asked_for_on_the_page(serve, tmp_path):
    running = serve(token="open sesame")

    async def story():
        async with page(f"http://127.0.0.1:{running.port}/", tmp_path / "profile") as one:
            await one.until("document.getElementById('tokenbox').hidden === false")
            await one.value(
                "token.value = 'opensesame-not'; token.dispatchEvent(new Event('change'))"
            )
            await asyncio.sleep(0.3)
            return await one.value("document.body.dataset.ready || 'no'")

    assert asyncio.run(story()) == "no"
