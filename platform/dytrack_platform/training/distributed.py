"""Several workers as one: how the module is spread, and what they agree on at each step.

The loop and the module know nothing of this. Without a process group every function here is the
trivial one, so that one process needs no special case.
"""

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dytrack_platform.config import TrainConfig
from dytrack_platform.training.objective import TrainModule

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


@dataclass(frozen=True, kw_only=True, slots=True)
class DistributedContext:
    """A worker's rank among the workers, and its device."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


SINGLE_PROCESS = DistributedContext()


def arrange(module: TrainModule, config: TrainConfig, context: DistributedContext) -> None:
    """Put a module where it trains, in the layout and with the savings that were asked for.

    Parameters keep their names. With ``fsdp`` they become sharded tensors, so this comes before
    the optimiser is made.
    """
    module.to(context.device)
    backbone = module.network.backbone
    if config.freeze_backbone:
        backbone.requires_grad_(False)
    if config.channels_last:
        # torch's own stubs forget that Module.to takes a memory format alone.
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.activation_checkpointing:
        for block in backbone.blocks:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    if config.compile:
        _compile(module, context.device)
    if config.parallel == "fsdp" and context.world > 1:
        # Imported where weights are spread: to import it takes a second of every other command.
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(context.device.type, (context.world,))
        if not backbone.cached:  # cached attention reaches into blocks without calling them
            for block in backbone.blocks:
                fully_shard(block, mesh=mesh)
        # The rest (heads, decisioners, embeddings) is one more shard around the blocks.
        fully_shard(module, mesh=mesh)


def _compile(module: TrainModule, device: torch.device) -> None:
    if device.type != "cuda":
        module.network.compile()
        return
    # All blocks share one compiled graph: seconds to make, where the whole network takes a
    # minute. A processor gains from the whole one.
    for block in module.network.backbone.blocks:
        block.compile()


def wrapped(module: TrainModule, config: TrainConfig, context: DistributedContext) -> nn.Module:
    """Return what the loop calls: the module itself, or its gradients' exchange around it."""
    if context.world == 1 or config.parallel == "fsdp":
        return module
    on_gpu = context.device.type == "cuda"
    return nn.parallel.DistributedDataParallel(
        module,
        device_ids=[context.device] if on_gpu else None,
        # A static graph lets gradients travel while others are computed, without searching for
        # unused parameters. It does not know steps whose gradients stay at home.
        static_graph=config.grad_accum_steps == 1 and config.sampled_placements == 0,
        gradient_as_bucket_view=True,
    )


def hold_gradients(module: nn.Module, hold: bool) -> None:
    """Let the next backward pass keep its gradients at home, or exchange them."""
    if isinstance(module, nn.parallel.DistributedDataParallel):
        module.require_backward_grad_sync = not hold
    elif hasattr(module, "set_requires_gradient_sync"):  # an FSDPModule, not imported for asking
        cast(Any, module).set_requires_gradient_sync(not hold)


def highest(values: list[int], device: torch.device) -> list[int]:
    """Return the highest of every value over all workers."""
    if not (dist.is_available() and dist.is_initialized()):
        return values
    votes = torch.tensor(values, device=device)
    # The highest wins: one worker that must stop or whose loss is broken decides for all, and all
    # learn it in the same step, so that none waits in an exchange that the others never join.
    dist.all_reduce(votes, dist.ReduceOp.MAX)
    return cast(list[int], votes.tolist())


class DelayedVote:
    """The highest of a value over all workers, known one step later, so that no step waits for it.

    An answer needs every worker's number to have travelled; asked for at once, it would let the
    device run dry at every step. All workers learn the same answer in the same step.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._under_way: tuple[Tensor, dist.Work] | None = None

    def cast(self, value: int) -> int:
        """Give this step's value; returns the highest one of the step before, 0 at first."""
        if not (dist.is_available() and dist.is_initialized()):
            return value
        before = self._under_way
        vote = torch.tensor([value], device=self._device)
        work = dist.all_reduce(vote, dist.ReduceOp.MAX, async_op=True)
        assert work is not None  # asynchronous: there is something to wait for
        self._under_way = vote, work
        return self._wait_for(before)

    def close(self) -> int:
        """Wait for the last step's votes, and return the highest of them, 0 without any.

        A worker calls it before its process ends: gloo's thread that still holds a vote would
        ask a finished interpreter for its lock, and the process would be aborted.
        """
        return self._wait_for(self._under_way)

    @staticmethod
    def _wait_for(vote: tuple[Tensor, dist.Work] | None) -> int:
        if vote is None:
            return 0
        value, done = vote
        done.wait()
        return int(value.item())


def first_says(value: int, device: torch.device) -> int:
    """Return to every worker what the first one says."""
    if not (dist.is_available() and dist.is_initialized()):
        return value
    said = torch.tensor([value], device=device)
    dist.broadcast(said, 0)
    return int(said.item())


def is_spread(tensor: Tensor) -> bool:
    """Say whether each worker holds a part of a tensor (A, B) only: a DTensor, not imported."""
    return hasattr(tensor, "device_mesh")


def whole(tensor: Tensor) -> Tensor:
    """Return all of a tensor (A, B) that may be spread over the workers; all must call it."""
    return cast("DTensor", tensor).full_tensor() if is_spread(tensor) else tensor


@torch.no_grad()
def fill(target: Tensor, value: Tensor) -> None:
    """Copy a whole tensor (A, B) into one that may be spread over the workers."""
    if is_spread(target):
        from torch.distributed.tensor import distribute_tensor

        placed = value.to(target.device, target.dtype)
        spread = cast("DTensor", target)
        spread.copy_(distribute_tensor(placed, spread.device_mesh, spread.placements))
    else:
        target.copy_(value)
