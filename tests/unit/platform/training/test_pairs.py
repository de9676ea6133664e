"""Every two options that a user may choose together train; the others are refused by name.

``OPTIONS`` is the table. Each pair of values of two options is either in ``REFUSED`` or is part of
a configuration below that trains two steps.
"""

import functools
import itertools
import shutil
import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from dytrack_platform.errors import ConfigurationError
from dytrack_platform.training import worker
from tests.unit.platform.conftest import experiment
from tests.unit.platform.training.conftest import KeepingCallbacks

OPTIONS = {
    "model.iou_token": ("bidirectional", "read_only"),
    "model.attention": ("joint", "template-cached"),
    "model.decisioner": ("token", "map", "both"),
    "model.recycling": ("none", "add", "concat", "cascade"),
    "model.template_matching": (False, True),
    "model.token_type": ("template", "target"),
    "train.parallel": ("ddp", "fsdp"),
    "train.precision": ("fp32", "bf16", "fp16"),
    "train.activation_checkpointing": (False, True),
    "train.compile": (False, True),
    "train.grad_accum_steps": (1, 2),
    "train.freeze_backbone": (False, True),
}
REFUSED = {
    (("model.attention", "template-cached"), ("train.activation_checkpointing", True)),
    (("model.attention", "template-cached"), ("model.template_matching", True)),
    (("train.parallel", "fsdp"), ("train.compile", True)),
    (("train.parallel", "fsdp"), ("train.precision", "fp16")),
}
Choice = tuple[str, object]


def _pairs(chosen):
    return {frozenset(pair) for pair in itertools.combinations(sorted(chosen.items(), key=str), 2)}


def _is_allowed(chosen):
    return not any(dict(pair).items() <= chosen.items() for pair in REFUSED)


def _allowed_pairs():
    refused = {frozenset(pair) for pair in REFUSED}
    every = {
        frozenset([(one, a), (other, b)])
        for one, other in itertools.combinations(OPTIONS, 2)
        for a in OPTIONS[one]
        for b in OPTIONS[other]
    }
    return every - refused


def _covering():
    """Choose few configurations that hold every allowed pair; greedy, the same ones each time."""
    missing, rows = _allowed_pairs(), []
    while missing:
        first = min(missing, key=lambda pair: sorted(map(str, pair)))
        chosen = dict(first)
        for key, values in OPTIONS.items():
            if key in chosen:
                continue
            fitting = [v for v in values if _is_allowed(chosen | {key: v})]
            chosen[key] = max(fitting, key=lambda v: len(_pairs(chosen | {key: v}) & missing))
        rows.append(dict(sorted(chosen.items())))
        missing -= _pairs(chosen)
    return rows


ROWS = _covering()


def _changes(row):
    return {key.replace(".", "__"): value for key, value in row.items()}


def _experiment(clips, folder, row, **more):
    changes = _changes(row) | {"data__pairs_per_epoch": 16, "train__epochs": 1, **more}
    if row["train.freeze_backbone"]:  # needs something to start from
        plain = {k: v for k, v in _changes(row).items() if k.startswith("model__")}
        start = folder / "start"
        worker.train(
            experiment(
                clips, folder, train__epochs=1, data__pairs_per_epoch=8, name="start", **plain
            ),
            callbacks := KeepingCallbacks(start),
        )
        changes["train__init_from"] = f"{callbacks.candidates()[0]}/tracker"
    return experiment(clips, folder, **changes)


def test_every_allowed_pair_is_tried():
    tried = set().union(*map(_pairs, ROWS))
    assert _allowed_pairs() <= tried
    assert all(map(_is_allowed, ROWS))
    assert len(ROWS) < 25


@pytest.mark.parametrize("pair", sorted(REFUSED, key=str), ids=str)
def test_every_other_pair_is_refused_by_its_keys(made_clips, tmp_path, pair):
    row = dict(pair)
    with pytest.raises(ConfigurationError) as refused:
        experiment(made_clips, tmp_path, **_changes(row))
    keys = [key.rpartition(".")[2] for key in row]
    assert all(key in str(refused.value) for key in keys), str(refused.value)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler, of itself
@pytest.mark.parametrize("row", [row for row in ROWS if row["train.parallel"] == "ddp"], ids=str)
def test_two_steps_in_one_process(made_clips, tmp_path, monkeypatch, row):
    # Machine code is minutes of each; one of them makes it. What options do to each other shows in
    # the graphs, forwards and backwards, that it would be made of.
    if row["train.precision"] != "bf16":
        graphs_alone = functools.partialmethod(torch.nn.Module.compile, backend="aot_eager")
        monkeypatch.setattr(torch.nn.Module, "compile", graphs_alone)
    state = worker.train(_experiment(made_clips, tmp_path, row), KeepingCallbacks(tmp_path / "c"))
    assert state.step == 2
    for name, value in state.module.state_dict().items():
        assert torch.isfinite(value).all(), name


def _work(rank, configs, port, folder):
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    context = worker.DistributedContext(rank=rank, world=2)
    for number, config in enumerate(configs):
        kept = folder / f"{number}-{rank}"
        state = worker.train(config, KeepingCallbacks(kept), context)
        (folder / f"done-{number}-{rank}").write_text(str(state.step))
        shutil.rmtree(kept, ignore_errors=True)
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_steps_in_two_processes(made_clips, tmp_path, monkeypatch):
    """Those that spread weights, and one that does not."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    spread = [row for row in ROWS if row["train.parallel"] == "fsdp"]
    plain = next(r for r in ROWS if r["train.parallel"] == "ddp" and not r["train.compile"])
    configs = [
        _experiment(made_clips, tmp_path / str(number), row, train__workers=2)
        for number, row in enumerate([*spread, plain])
    ]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(_work, (configs, port, tmp_path), nprocs=2)
    done = [(tmp_path / f"done-{n}-{r}").read_text() for n in range(len(configs)) for r in (0, 1)]
    assert done == ["2"] * len(done)
