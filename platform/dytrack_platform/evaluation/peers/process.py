"""Drive a tracker that runs in a process of its own and speaks the lines of the runner."""

import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from dytrack_platform.datasets.sequence import VideoSequence
from dytrack_platform.errors import FailureError, StorageError
from dytrack_platform.evaluation.tracking.protocol import SequenceResult

NOWHERE = (-1e4, -1e4, 1.0, 1.0)
"""The box of frames that a tracker owes after it failed: far outside, so that they count as
missed by every profile."""
_ENDING_S = 5.0


class TrackerFailed(FailureError):
    """A tracker's process ended, or answered with an error; the message goes into its row."""


class TrackerMissing(FailureError):
    """A tracker is not to be had here; the message says what was looked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One tracker of a comparison: how its process is started."""

    name: str
    command: tuple[str, ...] = ()
    """Program and arguments; empty where it was not found."""
    looked_for: str = ""
    """Where it was not found: what was looked for."""
    hint: str = ""
    """Where its program lacks it: what to do."""
    title: str = ""
    """What a person reads in place of the name."""
    ours: bool = False
    """Whether it is ours."""
    environment: Mapping[str, str] | None = None
    """Of the process; None for this process's own."""

    def __str__(self) -> str:
        return self.title or self.name


@dataclass(frozen=True, slots=True)
class Followed:
    """What a tracker did on a sequence."""

    result: SequenceResult
    lost: NDArray[np.float64]
    """(N,) 1 where it calls the target lost, 0 where not, NaN where it does not say."""
    problem: str = ""
    """Why it did not reach the end; the frames after that have the box :data:`NOWHERE`."""


class Frames:
    """A sequence's frames as another process opens them: files where they lie, or copies."""

    def __init__(self, sequence: VideoSequence) -> None:
        self._sequence = sequence
        self._copies: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> dict[str, Any]:
        frames, count = self._sequence.frames, len(self._sequence)
        first, _, number = frames.path(0).rpartition("#")
        if number == "0" and Path(first).is_file():
            return {"video": str(Path(first).absolute()), "images": []}
        paths = [Path(frames.path(index)) for index in range(count)]
        if paths and paths[0].is_file():
            return {"video": None, "images": [str(path.absolute()) for path in paths]}
        return {"video": None, "images": self._copy()}

    def _copy(self) -> list[str]:
        """Write frames of an archive or an object store as files, without loss."""
        self._copies = tempfile.TemporaryDirectory(prefix="dytrack-frames-")
        paths = []
        for index, image in enumerate(self._sequence.frames.iterate()):
            path = Path(self._copies.name) / f"{index:06d}.png"
            good = image is None or cv2.imwrite(str(path), image[..., ::-1])
            if not good:
                raise StorageError(f"{path}: cannot be written; free space in {path.parent.parent}")
            paths.append(str(path))
        return paths

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._copies is not None:
            self._copies.cleanup()


@dataclass
class TrackerProcess:
    """A tracker in its own process; started when it is needed, and again after it failed."""

    entry: Entry
    patience_s: float = 300.0
    """How long one answer may take."""
    about: str = ""
    """What runs it, once it was started."""
    _process: "subprocess.Popen[bytes] | None" = None
    _errors: IO[bytes] | None = None
    _unread: bytearray = field(default_factory=bytearray)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def start(self) -> None:
        """Start it, unless it runs.

        Raises:
            TrackerMissing: It is not to be had here.
            TrackerFailed: It does not start.
        """
        if self._process is not None:
            return
        if not self.entry.command:
            raise TrackerMissing(f"not found, looked for {self.entry.looked_for}")
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - end() closes it
        self._unread.clear()
        try:
            self._process = subprocess.Popen(
                self.entry.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=self.entry.environment,
            )
        except OSError as error:
            self.end()
            raise TrackerFailed(f"{self.entry.command[0]}: {error.strerror}") from error
        first = self._answer()
        if "missing" in first:
            self.end()
            raise TrackerMissing(f"not found, looked for {first['missing']}{self.entry.hint}")
        self.about = str(first.get("ready", ""))

    def follow(self, sequence: VideoSequence, source: Mapping[str, Any]) -> Followed:
        """Track one sequence; where the tracker fails on the way, what it did so far counts.

        Args:
            sequence: Its first box starts the tracker.
            source: From :class:`Frames`.

        Raises:
            TrackerMissing: It is not to be had here.
            TrackerFailed: It does not even start.
        """
        self.start()
        request = {
            **source,
            "frames": len(sequence),
            "box": [float(value) for value in sequence.boxes_xywh[0]],
        }
        lines: list[dict[str, Any]] = []
        problem = ""
        try:
            self._ask(request)
            while "done" not in (line := self._answer()):
                lines.append(line)
        except TrackerFailed as error:
            problem = str(error)
        return followed(sequence, lines, problem)

    def _ask(self, request: Mapping[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise TrackerFailed(self._last_words()) from None

    def _answer(self) -> dict[str, Any]:
        """Read a line.

        Raises:
            TrackerFailed: There is none, it is none of ours, or it tells of an error.
        """
        assert self._process is not None
        assert self._process.stdout is not None
        output = self._process.stdout.fileno()
        until = time.monotonic() + self.patience_s
        while b"\n" not in self._unread:
            left = until - time.monotonic()
            if left <= 0 or not select.select([output], [], [], left)[0]:
                self._process.kill()  # it would not hear that nobody asks any more
                self.end()
                raise TrackerFailed(f"gave no answer for {self.patience_s:g} s")
            # Past Popen's own buffer, which select() does not see.
            piece = os.read(output, 1 << 16)
            if not piece:
                raise TrackerFailed(self._last_words())
            self._unread += piece
        line, _, rest = bytes(self._unread).partition(b"\n")
        self._unread[:] = rest
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            self.end()
            raise TrackerFailed(f"answered {line[:60]!r}, which is no line of the runner")
        if "error" in answer:
            self.end()
            raise TrackerFailed(str(answer["error"]))
        return answer

    def _last_words(self) -> str:
        """Say how the process ended."""
        assert self._process is not None
        assert self._errors is not None
        try:
            code = self._process.wait(_ENDING_S)
        except subprocess.TimeoutExpired:
            code = 0
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        self.end()
        how = f"exit code {code}"
        if code < 0:
            how = f"signal {signal.Signals(-code).name}"
        return f"its process ended by {how}" + (f": {said[-1].strip()[:200]}" if said else "")

    def end(self) -> None:
        """End the process; the next :meth:`start` makes a new one."""
        process, self._process = self._process, None
        if process is not None:
            if process.stdin is not None:
                try:
                    process.stdin.close()
                except OSError:
                    process.kill()
            try:
                process.wait(_ENDING_S if process.poll() is None else 0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
        if self._errors is not None:
            self._errors.close()
            self._errors = None


def followed(
    sequence: VideoSequence, lines: Sequence[Mapping[str, Any]], problem: str = ""
) -> Followed:
    """Bring a runner's answers, one for each frame as far as it came, into the form of a result."""
    frames = len(sequence)
    width, height = lines[0]["size"] if lines else (0, 0)
    first = np.asarray(sequence.boxes_xywh[0], dtype=np.float64)
    boxes = np.tile(np.array(NOWHERE), (frames, 1))
    times, decode = np.zeros(frames), np.zeros(frames)
    scores, lost = np.full(frames, np.nan), np.full(frames, np.nan)
    exits = np.full(frames, -1, dtype=np.int64)
    undecoded, broken = [], []
    boxes[0] = first
    for frame, line in enumerate(lines[:frames]):
        decode[frame] = line["decode_ms"] / 1e3
        before = boxes[max(frame - 1, 0)]
        if line["box"] is None:
            undecoded.append(frame)
            boxes[frame] = before
            continue
        times[frame] = line["ms"] / 1e3
        if frame == 0:
            continue
        boxes[frame] = line["box"]
        if not (np.isfinite(boxes[frame]).all() and (boxes[frame, 2:] > 0).all()):
            broken.append(frame)
            boxes[frame] = before
        scores[frame] = np.nan if line["score"] is None else line["score"]
        lost[frame] = np.nan if line["lost"] is None else line["lost"]
        exits[frame] = line["exit"]
    # What was not answered was not found: the tracker is as unsure of it as can be.
    if np.isfinite(scores).any():
        scores[len(lines) :] = -np.inf
    result = SequenceResult(
        name=sequence.name,
        boxes_xywh=boxes,
        times_s=times,
        decode_s=decode,
        network_ms=np.full(frames, np.nan),
        exit_indices=exits,
        scores=scores,
        gmacs=np.full(frames, np.nan),
        image_size=(int(width), int(height)),
        undecoded=tuple(undecoded),
        broken=tuple(broken),
    )
    return Followed(result, lost, problem)
