"""How many streams of 25 frames/s a machine holds, with batches by stage, whole, and without.

    python -m tests.benchmarks.serving --sequences ROOT --list val.txt --runtime openvino

A generator in this process replays real sequences over the loopback to servers in other processes,
on 1, 2, 3, ... streams, until the 99th percentile of the time from a frame's due moment to its
answer exceeds the deadline, the ways taking turns: (a) one server (or ``--servers``), batches by
stage; (b) the same with whole-model batches; (c) a server for each stream, at full depth. Then what
regrouping brings on as many streams as (a) held: foretold by the simulation of the same load from
the server's own table, and measured; and on machines that are known by a table alone. The last line
is JSON.
"""

import argparse
import asyncio
import itertools
import json
import re
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import psutil
from websockets.asyncio.client import connect

from dytrack_platform.serving.planning import Table
from dytrack_platform.serving.simulation import Load, simulate
from tests.benchmarks.videos import frames_of


def serve(options):
    """The server's process: one replica without Ray, whose cost is the same for all ways."""
    import uvicorn

    from dytrack_model import checkpoint
    from dytrack_platform.serving.app import Server
    from dytrack_platform.serving.batching import open_served
    from dytrack_platform.serving.limits import Limits, Settings
    from dytrack_platform.serving.models import Source

    saved = checkpoint.load(options.tracker)
    runtime = None if options.runtime == "torch" else options.runtime

    def load(version):
        return open_served(saved, runtime, options.precision, threads=options.threads)

    cv2.setNumThreads(1)
    settings = Settings(
        limits=Limits(streams=256),
        mode="whole" if options.serve == "whole" else "stages",
        regroup=not options.apart,
        audit_every=options.audit_every,
        secret="benchmark",
    )
    server = Server([Source("tracker", lambda: "1", load)], settings)
    uvicorn.run(server.app(), port=options.port, log_level="error", ws_ping_interval=None)


class Served:
    def __init__(self, options, way, *extra):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        words = [sys.executable, "-m", "tests.benchmarks.serving", "--serve", way, "--port"]
        words += [str(self.port), "--tracker", options.tracker, "--runtime", options.runtime]
        words += ["--precision", options.precision, "--threads", str(options.threads)]
        words += ["--audit-every", str(options.audit_every), *extra]
        self.process = subprocess.Popen(words)
        self.url = f"ws://127.0.0.1:{self.port}/v1/track"
        until = time.monotonic() + 180
        while True:
            try:
                self.get("healthz")
                return
            except OSError:
                assert self.process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.1)

    def get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{path}", timeout=60) as answer:
            return answer.read().decode()

    def number(self, name, label=""):
        text = self.get("metrics")
        found = re.findall(rf"^{name}(?:{{[^}}]*{label}[^}}]*}})? ([-+.0-9e]+)$", text, re.M)
        return sum(float(value) for value in found)

    def stop(self):
        self.process.terminate()
        self.process.wait(60)


def read(root, name, most=120):
    found = frames_of(root / name, most)
    frames = [cv2.imencode(".jpg", pixels)[1].tobytes() for pixels in found]
    first = (root / name / "groundtruth.txt").read_text().split()[0]
    return frames, [float(value) for value in first.split(",")]


async def stream(url, clip, name, seconds, point, fps, most):
    """Replay a clip back and forth; returns the delay of every answer in ms, and faults.

    At most ``most`` frames are on their way: what waits for a server that a busy machine slows
    down is memory too, and no leak.
    """
    frames, box = clip
    path = [*range(len(frames)), *range(len(frames) - 2, 0, -1)]
    delays, wrong, due = [], 0, {}
    async with connect(url, max_size=2**24, ping_interval=None, compression=None) as ws:
        start = {"type": "start", "targets": [{"id": name, "box": box}], "point": point}
        await ws.send(json.dumps(start))
        began = time.perf_counter()
        total = int(seconds * (fps or 1000))

        async def hear():
            nonlocal wrong
            expected = 0
            async for text in ws:
                message = json.loads(text)
                if message["type"] == "end":
                    return expected
                if message["type"] != "result":
                    continue
                ok = message["frame"] == expected and list(message["targets"]) == [name]
                wrong += not ok
                delays.append((time.perf_counter() - due.pop(message["frame"])) * 1e3)
                expected += 1
            return expected

        listener = asyncio.create_task(hear())
        sent = 0
        for number in range(total):
            if fps:
                at = began + number / fps
                await asyncio.sleep(max(0.0, at - time.perf_counter()))
                while len(due) >= most:
                    await asyncio.sleep(0.002)
                due[number] = at
            else:
                if time.perf_counter() - began > seconds:
                    break
                while len(due) > 1:
                    await asyncio.sleep(0.0005)
                due[number] = time.perf_counter()
            await ws.send(
                struct.pack("<Qd", number, number / 25) + frames[path[number % len(path)]]
            )
            sent += 1
        await ws.send(json.dumps({"type": "stop"}))
        heard = await asyncio.wait_for(listener, 120)
    return delays, wrong + (sent - heard)


async def load(urls, clips, seconds, point, fps=25.0, most=1000):
    tasks = [
        stream(url, clips[k % len(clips)], f"t{k}", seconds, point, fps, most)
        for k, url in enumerate(urls)
    ]
    found = await asyncio.gather(*tasks)
    # The first second warms up.
    skip = int(fps or 25)
    delays = np.concatenate([rows[0][skip:] for rows in found])
    return {
        "streams": len(urls),
        "p50_ms": round(float(np.percentile(delays, 50)), 1),
        "p99_ms": round(float(np.percentile(delays, 99)), 1),
        "lost_or_swapped": sum(rows[1] for rows in found),
        "frames": len(delays),
    }


def ladders(options, clips):
    """Climb with all ways in turn, until none keeps the deadline; medians over rounds count.

    Machines change their speed within minutes, so ways that are compared are never far apart.
    """
    servers = {way: [] for way in options.ways}
    rows = {way: [] for way in options.ways}
    climbing = list(options.ways)
    try:
        for count in options.streams:
            for way in climbing:
                wanted = count if way == "processes" else min(count, options.servers)
                while len(servers[way]) < wanted:
                    servers[way].append(Served(options, "whole" if way == "whole" else "stages"))
            found = {way: [] for way in climbing}
            for turn in range(options.rounds):
                # Whoever comes first in a round is slower by a tenth: each way is that in turn.
                first = turn % len(climbing)
                for way in climbing[first:] + climbing[:first]:
                    own = itertools.cycle([server.url for server in servers[way]])
                    urls = list(itertools.islice(own, count))
                    point = "full" if way == "processes" else options.point
                    found[way].append(asyncio.run(load(urls, clips, options.seconds, point)))
            for way in climbing:
                p99 = float(np.median([row["p99_ms"] for row in found[way]]))
                row = {
                    "streams": count,
                    "p50_ms": float(np.median([row["p50_ms"] for row in found[way]])),
                    "p99_ms": p99,
                    "p99_ms_by_round": [row["p99_ms"] for row in found[way]],
                    "lost_or_swapped": sum(row["lost_or_swapped"] for row in found[way]),
                }
                rows[way].append(row)
                print(way, row, flush=True)
            climbing = [way for way in climbing if rows[way][-1]["p99_ms"] <= options.deadline_ms]
            if not climbing:
                break
    finally:
        for server in itertools.chain(*servers.values()):
            server.stop()
    return {
        way: {
            "held": max(
                (row["streams"] for row in rows[way] if row["p99_ms"] <= options.deadline_ms),
                default=0,
            ),
            "rows": rows[way],
        }
        for way in options.ways
    }


def table_of(about):
    """Return a server's milliseconds by graph and batch."""
    return {k: {int(n): ms for n, ms in by.items()} for k, by in about["batch_ms"].items()}


def regrouping(options, clips, count):
    """With and without regrouping on so many streams: computing time of a frame, both ways."""
    rows = {}
    for name, extra in (("with", ()), ("without", ("--apart",))):
        served = Served(options, "stages", *extra)
        try:
            asyncio.run(load([served.url] * count, clips, options.seconds, options.point))
            about = json.loads(served.get("v1/model"))
            busy, frames, exits = (
                served.number("dytrack_batch_ms_sum"),
                served.number("dytrack_frames_total"),
                [served.number("dytrack_exits_total", f'exit="{e}"') for e in about["exits"]],
            )
            made = Load(
                streams=count,
                seconds=options.seconds,
                shares=tuple(e / sum(exits) for e in exits),
                deadline_ms=options.deadline_ms,
            )
            foretold = simulate(
                Table(table_of(about), exits=len(exits)), made, regroup=name == "with"
            )
            rows[name] = {
                "streams": count,
                "frames": frames,
                "shares": [round(share, 3) for share in made.shares],
                "busy_ms_per_frame": round(busy / frames, 3),
                "foretold_ms_per_frame": round(foretold.busy_s * 1e3 / foretold.frames, 3),
                "regroupings": served.number("dytrack_regroupings"),
            }
            print("regrouping", name, rows[name], flush=True)
        finally:
            served.stop()
    for key in ("busy", "foretold"):
        both = [rows[name][f"{key}_ms_per_frame"] for name in ("with", "without")]
        rows[f"{key}_gain"] = round(1 - both[0] / both[1], 4)
    return rows, about


def simulated(about):
    """What regrouping brings on this machine's table and on ones whose batches cost less."""
    own = table_of(about)
    shares = (0.75, *(0.0 for _ in about["exits"][2:]), 0.25)
    rows = []
    for share in (None, 0.5, 0.8, 1.0):
        # A batch costs a fixed share of one frame's time, and the rest for each frame.
        milliseconds = (
            own
            if share is None
            else {
                name: {n: by[1] * (share + (1 - share) * n) for n in by} for name, by in own.items()
            }
        )
        table = Table(milliseconds, exits=len(about["exits"]))
        best = None
        for streams in (2, 4, 8, 12, 16, 24, 32, 48, 64):
            made = Load(streams=streams, seconds=20, shares=shares)
            with_, without = (simulate(table, made, regroup=on) for on in (True, False))
            whole = simulate(table, made, mode="whole")
            row = {
                "fixed_share": share,
                "streams": streams,
                "p99_ms": [round(x.p99_ms, 1) for x in (with_, without, whole)],
                "gain": round(1 - with_.busy_s / without.busy_s, 4),
                "gain_over_whole": round(1 - with_.busy_s / whole.busy_s, 4),
            }
            if without.p99_ms > 400:
                break
            if best is None or row["gain"] > best["gain"]:
                best = row
        rows.append(best)
        print("simulated", best, flush=True)
    return rows


def soak(options, clips):
    """Streams for a long time: memory of the server, and every reply in its place."""
    served = Served(options, "stages")
    memory = []

    async def story():
        running = asyncio.create_task(
            load([served.url] * 4, clips, options.soak, options.point, options.soak_fps, most=4)
        )
        process = psutil.Process(served.process.pid)
        began = time.monotonic()
        while not running.done():
            memory.append((time.monotonic() - began, process.memory_info().rss / 2**20))
            await asyncio.sleep(2)
        return await running

    try:
        row = asyncio.run(story())
    finally:
        served.stop()
    rows = np.array(memory)
    for minute in range(int(options.soak // 60) + 1):
        near = rows[np.argmin(np.abs(rows[:, 0] - 60 * minute))]
        print(f"soak minute {minute}: {near[1]:.1f} MiB", flush=True)
    rows = rows[rows[:, 0] > options.soak * 0.25]
    slope = float(np.polyfit(rows[:, 0] / 60, rows[:, 1], 1)[0])
    return row | {"seconds": options.soak, "mib_per_minute": slope, "mib": float(rows[-1, 1])}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--apart", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--tracker", default="reference")
    parser.add_argument("--runtime", default="torch")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--servers", type=int, default=1, help="share streams among so many, as replicas do"
    )
    parser.add_argument("--audit-every", type=int, default=50)
    parser.add_argument("--point", default="balanced")
    parser.add_argument("--sequences", type=Path)
    parser.add_argument("--list", type=Path)
    parser.add_argument("--streams", type=int, nargs="*", default=[1, 2, 3, 4, 6, 8, 12, 16])
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--deadline-ms", type=float, default=40.0)
    parser.add_argument("--ways", nargs="*", default=["stages", "whole", "processes"])
    parser.add_argument("--soak", type=float, default=0.0, help="seconds; 0: none")
    parser.add_argument("--soak-fps", type=float, default=10.0)
    options = parser.parse_args()
    if options.serve:
        return serve(options)
    names = options.list.read_text().split()
    clips = [read(options.sequences, name) for name in names[:8]]
    result = {"tracker": options.tracker, "runtime": options.runtime, "threads": options.threads}
    result["ways"] = ladders(options, clips)
    held = result["ways"].get("stages", {"held": 0})["held"]
    result["regrouping"], about = regrouping(options, clips, max(held, 2))
    result["table"] = about["batch_ms"]
    result["simulated"] = simulated(about)
    if options.soak:
        result["soak"] = soak(options, clips)
    print(json.dumps(result))
    return None


if __name__ == "__main__":
    main()
