"""Two processes that train together, once for every way of spreading the work."""

import shutil
import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from dytrack_platform.training import rng_state, worker
from dytrack_platform.training import state as state_files
from dytrack_platform.training.distributed import DelayedVote
from tests.unit.platform.conftest import experiment
from tests.unit.platform.training.conftest import KeepingCallbacks

pytestmark = pytest.mark.slow

WAYS = {
    "ddp": {},
    "parts": {"train__grad_accum_steps": 2},
    "fsdp": {"train__parallel": "fsdp", "train__ema": 0.5},
    "frozen": {"train__freeze_backbone": True},
    "ddp-read-only": {"model__iou_token": "read_only"},
    "fsdp-read-only": {
        "train__parallel": "fsdp",
        "model__iou_token": "read_only",
        "train__activation_checkpointing": True,
    },
}


def work(rank, configs, port, folder):
    """Train every configuration in turn; importing torch costs more than all of them."""
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    context = worker.DistributedContext(rank=rank, world=2)
    # Not last: gloo's threads may hold an exchanged tensor a little longer than those who wait
    # for it, and a process that ends meanwhile is aborted.
    vote = DelayedVote(torch.device("cpu"))
    said = [vote.cast(value) for value in ([0, 2, 0, 0], [1, 0, 0, 3])[rank]]
    said.append(vote.close())
    (folder / f"votes-{rank}").write_text(str(said))
    for name, config in configs.items():
        kept = folder / f"{name}-{rank}"
        kept.mkdir(parents=True)
        callbacks = KeepingCallbacks(kept)
        state = worker.train(config, callbacks, context)
        if name == "fsdp":
            resume_in_the_middle(config, context, folder, state)
        if name.startswith("fsdp"):
            tensors = state_files.trained(state, config).state_dict()
        else:
            tensors = state.module.state_dict()
        torch.save((tensors, callbacks.losses), f"{folder}/{name}-{rank}.pt")
    dist.destroy_process_group()


def resume_in_the_middle(config, context, folder, whole):
    """Spread weights and moments again, and end where the uninterrupted run ended."""
    merged, own = (folder / f"fsdp-{rank}" / "step_00000003" for rank in (0, context.rank))
    if context.rank:  # Ray Train merges the workers' parts into one folder
        shutil.copy(own / rng_state.file_of(1), merged / rng_state.file_of(1))
    dist.barrier()
    callbacks = KeepingCallbacks(folder / f"fsdp-again-{context.rank}")
    again = worker.train(config, callbacks, context, [str(merged)])
    assert context.rank or "continuing from step 3" in callbacks.said[0]
    first, second = (state_files.gather(state) for state in (whole, again))
    assert first.keys() == second.keys()
    for key, value in first.items():
        if "running_" not in key:  # batch norm keeps statistics of a worker's own pairs
            torch.testing.assert_close(value, second[key], atol=0, rtol=0, msg=key)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, made_clips):
    """Weights and losses of both workers, by way."""
    folder = tmp_path_factory.mktemp("pair")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"train__workers": 2, "train__epochs": 1, "train__report_steps": 1}
    configs = {
        name: experiment(made_clips, folder, distillation__feature=0, **common, **changes)
        for name, changes in WAYS.items()
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        mp.spawn(work, (configs, port, folder), nprocs=2)
    votes = [(folder / f"votes-{rank}").read_text() for rank in (0, 1)]
    assert votes == ["[0, 1, 2, 0, 3]"] * 2  # each worker learns the last step's highest
    return {
        name: [torch.load(folder / f"{name}-{rank}.pt", weights_only=True) for rank in (0, 1)]
        for name in WAYS
    }


@pytest.mark.parametrize("way", WAYS)
def test_two_workers_end_with_the_same_weights(trained, way):
    """They see different pairs; only exchanged gradients keep them together."""
    (first, _), (second, _) = trained[way]
    for name, value in first.items():
        if "running_" not in name:  # batch norm keeps statistics of a worker's own pairs
            assert torch.equal(value, second[name]), name


@pytest.mark.parametrize("token", ["", "-read-only"])
def test_spread_weights_train_as_whole_ones_do(trained, token):
    (_, whole), (_, spread) = trained[f"ddp{token}"][0], trained[f"fsdp{token}"][0]
    for (step, loss), (other_step, other_loss) in zip(whole, spread, strict=True):
        assert step == other_step
        assert loss == pytest.approx(other_loss, abs=1e-4)


def test_a_frozen_backbone_stays_with_two_workers(trained):
    (frozen, _), (free, _) = trained["frozen"][0], trained["ddp"][0]
    name = "network.backbone.blocks.0.attn.qkv.weight"
    assert not torch.equal(frozen[name], free[name])
