"""Training processes that note when they are told to end, so that they can save first.

Ray Train's controller holds the set-up defined here and imports what this file imports: no model,
so that a training starts seconds earlier.
"""

import signal
from dataclasses import dataclass
from types import FrameType
from typing import Any

from dytrack_platform.experiment.cluster import session  # noqa: F401  (sets Ray's environment first)

from ray.train.torch import TorchConfig  # isort: skip
from ray.train.torch.config import _TorchBackend


class Termination:
    """Whether this process was told to end (SIGTERM): its machine is about to be taken away."""

    told = False

    @classmethod
    def listen(cls) -> None:
        """Take over SIGTERM; runs in the process's main thread, while training has another."""
        signal.signal(signal.SIGTERM, cls._note)

    @classmethod
    def _note(cls, number: int, frame: FrameType | None) -> None:
        cls.told = True


class _TerminableBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:  # noqa: ANN401
        super().on_start(worker_group, backend_config)
        worker_group.execute(Termination.listen)


@dataclass
class TerminableTorch(TorchConfig):
    """Ray's set-up of torch, and workers that write a checkpoint when they are told to end."""

    @property
    def backend_cls(self) -> type:
        """Name the class that Ray Train calls."""
        return _TerminableBackend
