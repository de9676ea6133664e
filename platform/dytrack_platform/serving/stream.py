"""One stream: frames in, answers out, and targets that come, move and go meanwhile.

A frame waits, is decoded, and then every target's work goes to the scheduler of the stream's model.
Everything that a client says takes effect at the next frame that it sends.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

from dytrack_model.crops import check_box
from dytrack_model.errors import InputError
from dytrack_model.images import RGB
from dytrack_model.prediction import Audit
from dytrack_model.runtime.engine import Work
from dytrack_platform.serving.answers import Answer, Found, count, row
from dytrack_platform.serving.limits import Settings
from dytrack_platform.serving.messages import Arrived, Command, Refused, TargetBox
from dytrack_platform.serving.metrics import Metrics
from dytrack_platform.serving.models import Model, Models
from dytrack_platform.serving.pacing import Audits
from dytrack_platform.serving.pictures import Origin, decode
from dytrack_platform.serving.scheduler import Job
from dytrack_platform.serving.targets import DEFAULT_POINT, Target, find, nearest_point
from dytrack_platform.serving.tokens import SavedStream, seal, unseal

_AROUND_A_TOKEN = 4096
"""Bytes that the start which gives a token back may have besides it."""


class Stream:
    """The targets of one client.

    Args:
        number: Its number on this replica, for metrics.
        models: Where models come from.
        settings: How the replica serves.
        metrics: Where it counts.
        pool: Threads that decode.
    """

    def __init__(
        self,
        number: int,
        models: Models,
        settings: Settings,
        metrics: Metrics,
        pool: ThreadPoolExecutor,
    ) -> None:
        self._number, self._models, self._settings = str(number), models, settings
        self._metrics, self._pool = metrics, pool
        self._loop = asyncio.get_running_loop()
        self._model: Model | None = None
        self._model_name: str | None = None
        self._targets: dict[str, Target] = {}
        self._size: tuple[int, int] | None = None
        self._point = DEFAULT_POINT
        self._budget_ms: float | None = None
        self._audits = Audits()
        self._frames = 0
        self._token: str | None = None
        """The token of the frame answered last, where it was asked for."""

    async def check(self, command: Command) -> None:
        """Refuse at once what can be refused without the next frame.

        Raises:
            Refused: It names what there is not.
        """
        if command.model is not None and command.model not in self._models.names:
            known = ", ".join(self._models.names)
            raise Refused("model", f"there is no such model; there are: {known}")
        if command.resume is not None:
            await self._unsealed(command.resume)
        model = self._models.current(command.model or self._model_name)
        if command.point is not None:
            find(model, command.point)
        if len(command.targets) > self._settings.limits.targets:
            most = self._settings.limits.targets
            raise Refused("too_many", f"a stream has at most {most} targets")

    async def answer(self, arrived: Arrived, dropped: int) -> Answer:
        """Compute one frame.

        Args:
            arrived: The frame.
            dropped: Frames that it replaced, to be told.

        Raises:
            Refused: The frame cannot be used; commands that came with it were not carried out.
        """
        began = time.perf_counter()
        queue_s = began - arrived.at
        image = await self._loop.run_in_executor(
            self._pool, decode, arrived.data, self._settings.limits
        )
        decode_s = time.perf_counter() - began
        anew = any(command.kind == "start" for command in arrived.commands)
        if self._size is not None and image.size != self._size and not anew:
            known, got = (f"{width}x{height}" for width, height in (self._size, image.size))
            raise Refused("frame_size", f"frames are {known}, this is {got}")
        model = await self._on_current_model(arrived.commands)
        errors, new = await self._obey(arrived.commands, image, model)
        self._size = image.size if self._targets else None
        deadline = arrived.at + self._deadline_s
        found = await self._step(image, model, deadline, skip=new)
        began = time.perf_counter()
        stage_s = max((one.stage_s for one in found.values()), default=0.0)
        queue_s += max((one.waited_s for one in found.values()), default=0.0)
        rows = {name: row(self._targets[name], one) for name, one in found.items()}
        ms = {
            "queue": round(queue_s * 1e3, 3),
            "decode": round(decode_s * 1e3, 3),
            "stages": round(stage_s * 1e3, 3),
        }
        self._token = None
        values: dict[str, Any] = {"type": "result", "frame": arrived.header.frame}
        values |= {"targets": rows, "dropped": dropped, "ms": ms}
        values["model"] = model.version
        text = json.dumps(values)
        ms["encode"] = round((time.perf_counter() - began) * 1e3, 3)
        text = json.dumps(values)
        count(self._metrics, found.values(), ms, dropped)
        self._after(model, found, time.perf_counter() - arrived.at)
        return Answer(text, tuple(errors))

    async def token(self) -> str:
        """Write down where every target is, for another replica; once for each frame.

        Raises:
            Refused: There is no target, or the token would be too long to be taken back.
        """
        if self._token is not None:
            return self._token
        if not self._targets:
            raise Refused("token", "there is no target yet")
        targets = tuple(target.saved() for target in self._targets.values())
        frames = self._frames
        sealed = await self._loop.run_in_executor(
            self._pool, seal, SavedStream(targets=targets), self._settings.secret
        )
        most = self._settings.limits.frame_bytes - _AROUND_A_TOKEN
        if len(sealed) > most:
            raise Refused("token", f"the token would have {len(sealed)} bytes, at most {most}")
        if frames == self._frames:  # no frame was answered meanwhile
            self._token = sealed
        return sealed

    def close(self) -> None:
        """Let go of everything."""
        self._metrics.targets.dec(len(self._targets))
        self._targets.clear()
        if self._model is not None:
            self._models.leave(self._model)
            self._model = None
        for gauge in (self._metrics.agreement, self._metrics.drift):
            if self._audits.count:
                gauge.remove(self._number)
        self._audits = Audits()

    async def _on_current_model(self, commands: Sequence[Command]) -> Model:
        """Return the model of this frame; where it is another than before, move every target."""
        for command in commands:
            self._model_name = command.model or self._model_name
        model = self._models.current(self._model_name)
        if model is self._model:
            return model
        before, model = self._model, self._models.take(self._model_name)
        moved: dict[str, Target] = {}
        try:
            if before is not None and self._size is not None:
                for name, one in self._targets.items():
                    point = nearest_point(model, one.point)
                    moved[name] = replace(one, point=point)
                works = [t.resuming(model, self._size, self._audits) for t in moved.values()]
                await self._run_all(model, works, time.perf_counter() + self._deadline_s)
        except BaseException:
            # Targets stay where they were: half of them on another model would be none at all.
            self._models.leave(model)
            raise
        self._model, self._targets = model, moved or self._targets
        if before is not None:
            self._models.leave(before)
        return model

    async def _obey(
        self, commands: Sequence[Command], image: RGB, model: Model
    ) -> tuple[list[Refused], set[str]]:
        """Carry out commands; returns what could not be done, and targets that are new."""
        errors: list[Refused] = []
        new: set[str] = set()
        for command in commands:
            try:
                if command.kind == "start":
                    self._begin(command)
                    if command.resume is not None:
                        await self._resume(command.resume, image, model)
                if command.kind in ("start", "add"):
                    await self._add(command, image, model, new, errors)
                else:
                    self._change(command, model)
            except Refused as error:
                errors.append(error)
            except InputError as error:
                errors.append(Refused("box", str(error)))
        return errors, new

    def _change(self, command: Command, model: Model) -> None:
        """Move, remove or pace targets that are there."""
        if command.kind == "move":
            for wanted in command.targets:
                target = self._known(wanted.id)
                target.tracker.move_to(wanted.box)
                target.box_xywh, target.wide_frames = wanted.box, 0
        elif command.kind == "remove":
            for name in command.ids:
                self._known(name)
                del self._targets[name]
                self._metrics.targets.dec()
        elif command.kind == "point":
            for target in self._named(command.ids):
                target.choose(model, self._audits, command.point, command.budget_ms)

    def _begin(self, command: Command) -> None:
        self._metrics.targets.dec(len(self._targets))
        self._targets.clear()
        self._point, self._budget_ms = command.point or DEFAULT_POINT, command.budget_ms

    async def _resume(self, token: str, image: RGB, model: Model) -> None:
        for one in (await self._unsealed(token)).targets:
            point = nearest_point(model, one.point)
            target = Target.restored(one, point)
            await self._start(target, target.resuming(model, image.size, self._audits), model)

    async def _unsealed(self, token: str) -> SavedStream:
        secret = self._settings.secret
        return await self._loop.run_in_executor(self._pool, unseal, token, secret)

    async def _add(
        self,
        command: Command,
        image: RGB,
        model: Model,
        new: set[str],
        errors: list[Refused],
    ) -> None:
        for wanted in command.targets:
            try:
                target, work = await self._make(wanted, command, image, model)
                await self._start(target, work, model)
                new.add(target.id)
            except InputError as error:
                errors.append(Refused("box", f"target {wanted.id}: {error}"))

    async def _make(
        self, wanted: TargetBox, command: Command, image: RGB, model: Model
    ) -> tuple[Target, Work[None]]:
        """Return a target, and what starts it."""
        if wanted.id in self._targets:
            known = self._targets[wanted.id]
            if command.kind == "start":  # a resumed target whose client knows better
                target = Target(wanted.id, known.origin, wanted.box, known.point)
                return target, target.resuming(model, image.size, self._audits)
            raise Refused("target", f"target {wanted.id} is there already: move or remove it")
        if len(self._targets) >= self._settings.limits.targets:
            most = self._settings.limits.targets
            raise Refused("too_many", f"a stream has at most {most} targets")
        check_box(wanted.box, image.size)
        config = model.engine.config
        origin = await self._loop.run_in_executor(
            self._pool,
            Origin.cut,
            image,
            wanted.box,
            config.template_factor,
            config.template_size,
        )
        budget = command.budget_ms if command.budget_ms is not None else self._budget_ms
        point = command.point or nearest_point(model, self._point)
        target = Target(wanted.id, origin, wanted.box, point, budget)
        return target, target.beginning(model, image, self._audits)

    async def _start(self, target: Target, work: Work[None], model: Model) -> None:
        await self._run_all(model, [work], time.perf_counter() + self._deadline_s)
        if target.id not in self._targets:
            self._metrics.targets.inc()
        self._targets[target.id] = target

    def _known(self, name: str) -> Target:
        if name not in self._targets:
            raise Refused("target", f"there is no target {name}")
        return self._targets[name]

    def _named(self, names: Sequence[str]) -> list[Target]:
        return [self._known(name) for name in names] or list(self._targets.values())

    async def _step(
        self, image: RGB, model: Model, deadline: float, skip: set[str]
    ) -> dict[str, Found]:
        targets = list(self._targets.values())
        for target in targets if self._settings.correct else ():
            target.follow(model, self._audits)
        works = [target.stepping(image) for target in targets if target.id not in skip]
        jobs = iter(await self._run_all(model, works, deadline))
        found = {}
        for target in targets:
            if target.id in skip:
                found[target.id] = Found(None, 0.0, 0.0)
                continue
            job = next(jobs)
            found[target.id] = Found(job.result, job.stage_s, max(0.0, job.began - job.entered))
        return found

    async def _run_all(
        self, model: Model, works: "Sequence[Work[Any]]", deadline: float
    ) -> list[Job[Any]]:
        """Run works on the model's scheduler and wait for all of them."""
        waits = []
        for work in works:
            future: asyncio.Future[Job[Any]] = self._loop.create_future()
            done = partial(self._tell, future)
            waits.append(future)
            model.scheduler.submit(Job(work, done, deadline))
        jobs = await asyncio.gather(*waits)
        for job in jobs:
            if job.error is not None:
                raise job.error
        return jobs

    def _tell(self, future: "asyncio.Future[Job[Any]]", job: Job[Any]) -> None:
        """Hand a job over from the scheduler's thread."""

        def deliver() -> None:
            if not future.done():  # the client may be gone
                future.set_result(job)

        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(deliver)

    @property
    def _deadline_s(self) -> float:
        budgets = [t.budget_ms for t in self._targets.values() if t.budget_ms is not None]
        return min([self._settings.deadline_ms, *budgets]) / 1e3

    def _after(self, model: Model, found: dict[str, Found], took_s: float) -> None:
        """Learn from the frame, and have some of its targets audited off the critical path."""
        self._frames += 1
        every = self._settings.audit_every
        for name, one in found.items():
            target = self._targets[name]
            if target.paced is not None and one.prediction is not None:
                target.paced.observe(took_s * 1e3)
            if every and one.prediction is not None and self._frames % every == 0:
                work = target.tracker.auditing()
                done = partial(self._loop_audit, self._audits)
                model.scheduler.submit(Job(work, done, float("inf"), audit=True))

    def _loop_audit(self, audits: Audits, job: Job[Audit | None]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._take_audit, audits, job)

    def _take_audit(self, audits: Audits, job: Job[Audit | None]) -> None:
        if audits is not self._audits or job.result is None:
            return  # the stream has ended, or there was nothing to compare
        audits.take(job.result)
        self._metrics.audits.inc()
        self._metrics.agreement.labels(self._number).set(audits.agreement)
        self._metrics.drift.labels(self._number).set(audits.drift)
