"""Our tracker in a comparison: at a point or a fixed exit, in a process of its own.

The process is ``python -m`` this module; it speaks the lines of the peers' runner.
"""

import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dytrack_model import RGB, Tracker, checkpoint
from dytrack_model.checkpoint import SavedTracker
from dytrack_model.images import Pixels
from dytrack_model.runtime import build
from dytrack_platform.errors import ConfigurationError
from dytrack_platform.evaluation.peers import runner
from dytrack_platform.evaluation.peers.process import Entry
from dytrack_platform.experiment.evaluate.runtime_config import RuntimeConfig, make_policy
from dytrack_platform.experiment.evaluate.specs import TrackerSpec, fixed_specs, point_specs


def our_specs(saved: SavedTracker, names: Sequence[str] = ()) -> list[TrackerSpec]:
    """Spell out points and fixed exits.

    Args:
        saved: Our tracker.
        names: Points as for :func:`~dytrack_platform.experiment.evaluate.specs.point_specs`, and
            ``exit-N`` for the exit after block N, ``exit-N-narrow`` for it over the narrow search
            region; empty for all stored points and all exits over the whole one.

    Raises:
        ConfigurationError: A name is unknown.
    """
    fixed = {spec.name: spec for spec in fixed_specs(saved.network.config)}
    if not names:
        whole = [spec for spec in fixed.values() if not spec.narrow]
        return [*(point_specs(saved) if saved.points else ()), *whole]
    specs = []
    for name in names:
        if re.fullmatch(r"exit-\d+(-narrow)?", name) and name not in fixed:
            raise ConfigurationError(
                f"point: {name}: this tracker has no such exit; it has {', '.join(fixed)}"
            )
        specs.append(fixed[name] if name in fixed else point_specs(saved, [name])[0])
    return specs


def our_entries(
    folder: Path,
    names: Sequence[str] = (),
    runtime: RuntimeConfig | None = None,
    *,
    memory_bytes: int = 0,
) -> list[Entry]:
    """Describe how our tracker is started, once for each point or exit.

    Args:
        folder: Of the saved tracker.
        names: As for :func:`our_specs`.
        runtime: What runs the network, and its threads.
        memory_bytes: Limit of each process's address space; 0 for none.

    Raises:
        CheckpointError: There is no tracker, or a damaged one.
        ConfigurationError: A name is unknown.
    """
    how = runtime or RuntimeConfig()
    environment = dict(os.environ) | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    entries = []
    for spec in our_specs(checkpoint.load(folder), names):
        job = {
            "folder": str(folder.absolute()),
            "name": spec.name,
            "runtime": how.runtime,
            "precision": how.precision,
            "device": how.device,
            "threads": how.threads,
            "memory": memory_bytes,
        }
        command = (sys.executable, "-m", __name__, json.dumps(job))
        entries.append(Entry(name=spec.name, command=command, ours=True, environment=environment))
    return entries


class _Ours:
    """Our tracker as the runner drives it; frames come with red first."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker

    def start(self, image: Pixels, box: list[float]) -> None:
        """Take the target from the first frame."""
        self._tracker.start(RGB(image), box)

    def step(self, image: Pixels) -> runner.Found:
        """Find it in the next one."""
        found = self._tracker.step(RGB(image))
        box = [float(value) for value in found.box_xywh]
        return runner.Found(box, float(found.predicted_iou), bool(found.lost), found.exit_index)


def _make(job: dict[str, Any]) -> tuple[_Ours, str]:
    import cv2
    import torch

    torch.set_num_threads(job["threads"])
    cv2.setNumThreads(job["threads"])
    saved = checkpoint.load(Path(job["folder"]))
    spec = our_specs(saved, [job["name"]])[0]
    engine = build(
        saved.network,
        job["runtime"],
        job["precision"],
        job["device"],
        job["threads"],
        ranges=saved.ranges,
    )
    about = f"{engine.runtime}, {engine.precision}"
    return _Ours(Tracker(engine, make_policy(spec, seed=0))), about


def main() -> int:
    """Serve one tracker until standard input ends."""
    job = json.loads(sys.argv[1])
    runner.limit_memory(job["memory"])
    return runner.serve(lambda: _make(job), runner.own_output(), red_first=True)


if __name__ == "__main__":
    sys.exit(main())
