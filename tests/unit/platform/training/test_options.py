"""Each training option does what its name says."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from dytrack_model import checkpoint
from dytrack_platform.errors import CheckpointError, ConfigurationError, DataError
from dytrack_platform.training import distributed, loop, worker
from dytrack_platform.training import state as state_files
from dytrack_platform.training.callbacks import Callbacks, Request
from dytrack_platform.training.ema import EMA

pytestmark = pytest.mark.slow


def weights(state):
    return {name: value.clone() for name, value in state.module.state_dict().items()}


def close(first, second, tolerance=1e-4):
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], atol=tolerance, rtol=1e-3, msg=name)


def same(first, second):
    return all(torch.equal(value, second[name]) for name, value in first.items())


OPTIONS = {
    "averages": {"train__ema": 0.9},
    "bf16": {"train__precision": "bf16"},
    "channels": {"train__channels_last": True},
    "parts": {"train__grad_accum_steps": 2},
    "recomputed": {"train__activation_checkpointing": True},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_resumes_bit_for_bit(recipe, new_callbacks, name):
    config = recipe(train__report_steps=1, **OPTIONS[name])
    straight = new_callbacks()
    whole = worker.train(config, straight)
    killed = new_callbacks(die_at=4)
    with pytest.raises(KeyboardInterrupt):
        worker.train(config, killed)
    resumed = worker.train(config, new_callbacks(killed.folder), candidates=killed.candidates())
    assert same(weights(whole), weights(resumed))
    if whole.ema is not None:
        assert same(whole.ema.values, resumed.ema.values)


def test_recomputed_activations_change_nothing(recipe, callbacks):
    plain = worker.train(recipe(), callbacks)
    config = recipe(train__activation_checkpointing=True)
    assert same(weights(plain), weights(worker.train(config, Callbacks())))


def test_recomputed_activations_keep_less_memory(recipe):
    """Counted as the bytes that autograd saves between forward and backward pass."""

    def saved(config):
        kept = 0

        def pack(tensor):
            nonlocal kept
            kept += tensor.numel() * tensor.element_size()
            return tensor

        module = worker.new_state(config).module
        images = [torch.zeros(4, 3, side, side, dtype=torch.uint8) for side in (64, 128)]
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            module(*images, torch.full((4, 4), 0.5), 0.5)
        return kept

    # Blocks are only a part of what this small model keeps.
    assert saved(recipe(train__activation_checkpointing=True)) < 0.9 * saved(recipe())


def test_channels_last_is_a_layout_and_changes_no_result(recipe, callbacks):
    config = recipe(train__channels_last=True)
    state = worker.train(config, callbacks)
    patches = state.module.network.backbone.patch_embed.weight
    assert patches.is_contiguous(memory_format=torch.channels_last)
    moments = state.optimizer.state[patches]["exp_avg"]
    assert moments.stride() == patches.stride()
    # Gradients, not weights after some steps: AdamW's first steps are signs, and turn a difference
    # in the last bit of a gradient near zero, which is the processor's, into a whole step.
    plain = recipe(train__max_grad_norm=0)
    spread = recipe(train__max_grad_norm=0, train__channels_last=True)
    first, second = gradient(plain), gradient(spread)
    apart = {name: (first[name] - second[name]).norm() / first[name].norm() for name in first}
    # A convolution in another order of memory is another sum: 2e-4 on one processor.
    assert max(apart.values()) < 1e-3


def gradient(config, copies=1):
    """Return the gradient of four seeded pairs, each shown ``copies`` times."""
    state = worker.new_state(config)
    generator = torch.Generator().manual_seed(0)
    images = [
        torch.randint(0, 256, (4, 3, side, side), generator=generator, dtype=torch.uint8)
        for side in (64, 128)
    ]
    boxes = torch.full((4, 4), 0.4)

    class Pairs:
        template, search = (torch.cat([p] * copies) for p in images)
        boxes_cxcywh = template_boxes_cxcywh = torch.cat([boxes] * copies)

    loop._backward(config, state, state.module, Pairs(), torch.device("cpu"), 0.5)
    return {name: p.grad for name, p in state.module.named_parameters()}


def test_two_equal_parts_give_the_gradient_of_one(recipe):
    """With the same pairs in both parts, batch norm sees what it would see without parts."""
    whole, parts = (
        recipe(train__grad_accum_steps=steps, train__max_grad_norm=0) for steps in (1, 2)
    )
    close(gradient(whole), gradient(parts, 2), 1e-5)


def test_averages_follow_the_weights_slowly():
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 0.0)
    averages = EMA(module, 0.9)
    nn.init.constant_(module.weight, 1.0)
    averages.update(10_000)
    assert averages.values["weight"].item() == pytest.approx(0.1)
    averages.update(1)  # early on it forgets faster: (1 + 1) / (10 + 1)
    assert averages.values["weight"].item() == pytest.approx(1 - 0.9 * 2 / 11)


def test_the_saved_tracker_holds_the_averages(recipe, callbacks):
    state = worker.train(recipe(train__ema=0.99), callbacks)
    saved = checkpoint.load(f"{callbacks.candidates()[0]}/tracker").network.state_dict()
    name = "backbone.blocks.0.attn.qkv.weight"
    assert torch.equal(saved[name], state.ema.values[f"network.{name}"])
    assert not torch.equal(saved[name], state.module.network.state_dict()[name])


def test_fp16_scales_the_loss_and_keeps_its_factor(recipe, callbacks):
    config = recipe(train__precision="fp16", train__epochs=1, data__pairs_per_epoch=8)
    state = worker.train(config, callbacks)
    assert state.scaler.is_enabled()
    kept = state.scaler.state_dict()
    assert kept["scale"] > 1
    again = worker.new_state(config)
    state_files.restore(callbacks.candidates()[0], again)
    assert again.scaler.state_dict() == kept


def test_a_second_stage_trains_everything_but_the_backbone(recipe, new_callbacks):
    first = new_callbacks()
    worker.train(recipe(), first)
    tracker = f"{first.candidates()[0]}/tracker"
    config = recipe(train__freeze_backbone=True, train__init_from=tracker, name="second")
    worker.check(config)
    before = weights(worker.new_state(config))
    assert same(checkpoint.load(tracker).network.state_dict(), _network(before))
    after = weights(worker.train(config, new_callbacks()))
    for name, value in after.items():
        frozen = ".backbone." in name
        if frozen or "num_batches" not in name:
            assert torch.equal(value, before[name]) == frozen, name


@pytest.mark.parametrize(
    ("change", "anew"),
    [
        ({"model__decisioner": "map"}, {"decisioners", "score_summaries"}),
        ({"model__decisioner_width": 24}, {"decisioners"}),
        ({"model__recycling": "concat"}, {"recycling"}),
    ],
)
def test_a_second_stage_may_have_other_decisioners_or_another_reuse(
    recipe, new_callbacks, change, anew
):
    first = new_callbacks()
    worker.train(recipe(), first)
    tracker = f"{first.candidates()[0]}/tracker"
    config = recipe(train__freeze_backbone=True, train__init_from=tracker, name="second", **change)
    assert worker.check(config)[0].endswith(f"loaded; anew: {', '.join(sorted(anew))}")
    before = _network(weights(worker.new_state(config)))
    start = _network(weights(worker.new_state(recipe(**change))))
    trained = checkpoint.load(tracker).network.state_dict()
    for name, value in before.items():
        expected = start if name.split(".")[0] in anew else trained
        assert torch.equal(value, expected[name]), name
    worker.train(config, new_callbacks())


def _network(tensors):
    prefix = "network."
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def test_a_run_folder_is_as_good_as_its_tracker(recipe, new_callbacks):
    first = new_callbacks()
    worker.train(recipe(), first)
    folder = first.candidates()[0]
    tracker = weights(worker.new_state(recipe(train__init_from=f"{folder}/tracker")))
    assert same(tracker, weights(worker.new_state(recipe(train__init_from=folder))))


def test_a_second_stage_on_another_model_is_refused(recipe, callbacks):
    worker.train(recipe(), callbacks)
    config = recipe(train__init_from=callbacks.candidates()[0], model__width=64)
    with pytest.raises(CheckpointError, match=r"model\.width is \d+ there and 64 here"):
        worker.check(config)


def test_freezing_what_nobody_trained_is_refused(recipe):
    with pytest.raises(ConfigurationError, match=r"train\.freeze_backbone: .* train\.init_from"):
        worker.check(recipe(train__freeze_backbone=True))


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_a_share_of_the_initial_weights_is_mixed_into_the_finished_tracker(
    recipe, new_callbacks, ema
):
    first = new_callbacks()
    worker.train(recipe(), first)
    start = f"{first.candidates()[0]}/tracker"
    initial = checkpoint.load(start).network.state_dict()
    saved, states = {}, {}
    for share in (0.0, 0.25):
        settings = {"train__init_from": start, "train__ema": ema, "train__initial_share": share}
        config, calls = recipe(name="second", **settings), new_callbacks()
        worker.check(config)
        states[share] = weights(worker.train(config, calls))
        newest, before = calls.candidates()[:2]
        saved[share] = checkpoint.load(f"{newest}/tracker").network.state_dict()
        # Training goes on from checkpoints: only the finished tracker is mixed.
        states[share] |= checkpoint.load(f"{before}/tracker").network.state_dict()
    assert same(states[0.0], states[0.25])
    for name, value in saved[0.25].items():
        plain = saved[0.0][name]
        mixed = name.startswith(("backbone.blocks.", "backbone.patch_embed."))
        expected = torch.lerp(plain, initial[name], 0.25) if mixed else plain
        assert torch.equal(value, expected), name
        assert "attn.qkv.weight" not in name or not torch.equal(value, plain)


def test_mixing_in_what_is_not_there_is_refused(recipe):
    with pytest.raises(ConfigurationError, match=r"train\.initial_share: .* train\.init_from"):
        worker.check(recipe(train__initial_share=0.1))


def test_fewer_clips_than_a_batch_are_refused_with_the_numbers(recipe):
    config = recipe(train__batch_size=32)
    with pytest.raises(DataError, match=r"holds \d+ clips for training, fewer than .* 32"):
        worker.check(config)


def test_a_request_writes_a_checkpoint_and_goes_on(recipe, callbacks):
    callbacks.requests = {2: Request.CHECKPOINT}
    state = worker.train(recipe(train__checkpoint_steps=100), callbacks)
    assert [path[-1] for path in callbacks.candidates()] == ["8", "2"]
    assert state.step == 8


def test_a_request_to_stop_writes_a_checkpoint_and_continues_later(recipe, new_callbacks):
    config = recipe(train__checkpoint_steps=100)
    told = new_callbacks()
    told.requests = {5: Request.STOP}
    assert worker.train(config, told).step == 5
    again = new_callbacks(told.folder)
    resumed = worker.train(config, again, candidates=told.candidates())
    assert "continuing from step 5" in again.said[0]
    assert same(weights(worker.train(config, Callbacks())), weights(resumed))


def test_random_states_travel_with_the_checkpoint(recipe, callbacks):
    config = recipe()
    worker.train(config, callbacks)
    expected = torch.rand(3)
    state = worker.new_state(config)
    state_files.restore(callbacks.candidates()[0], state)
    assert torch.equal(torch.rand(3), expected)


def test_a_checkpoint_that_lacks_a_workers_part_is_refused(recipe, callbacks):
    worker.train(recipe(), callbacks)
    folder = callbacks.candidates()[0]
    state_files.verify(folder)
    (Path(folder) / "workers/rank_00000.safetensors").unlink()
    with pytest.raises(CheckpointError, match="worker 0 had not finished writing"):
        state_files.verify(folder)


def test_the_state_keeps_the_losses_of_every_epoch_and_the_run(recipe, callbacks):
    state = worker.train(recipe(), callbacks, notes={"run_id": "abc"})
    described = state_files.describe(callbacks.candidates()[0])
    assert [summary["epoch"] for summary in described["history"]] == [0.0, 1.0]
    assert described["history"][1]["loss"] == state.history[1]["loss"]
    assert described["notes"]["run_id"] == "abc"
    assert described["recipe"]["train"]["batch_size"] == 8


def test_progress_tells_times_arithmetic_and_the_share_of_the_peak(recipe, callbacks):
    worker.train(recipe(), callbacks)
    last = callbacks.reports[-1]
    assert 0 <= last.data_wait < 1
    assert last.samples_per_s == pytest.approx(8 / last.step_s, rel=1e-6)
    assert 0 < last.mfu < 1.5
    assert set(last.rates) == {"heads", "backbone"}
    assert set(last.grad_norms) == {"all", "heads", "backbone"}


def test_images_of_sample_predictions_are_png_files(recipe, callbacks):
    worker.train(recipe(train__sample_images=2), callbacks)
    assert [step for step, _ in callbacks.images] == [4, 8]
    image = cv2.imdecode(np.frombuffer(callbacks.images[0][1], np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (2 * (64 + 128), 2 * 2 * 128, 3)


def test_optimiser_steps_are_fused(recipe):
    state = worker.new_state(recipe())
    assert all(group["fused"] for group in state.optimizer.param_groups)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"train__min_workers": 2}, r"train\.min_workers: must lie in \[0, workers 1\], got 2"),
        (
            {"train__workers": 4, "train__min_workers": 2},
            r"train\.batch_size: must be a multiple of workers 3, got 8",
        ),
        ({"train__grad_accum_steps": 9}, r"train\.grad_accum_steps: must lie in \[1, 8\]"),
        ({"train__ema": 1.0}, r"train\.ema: must lie in \[0, 1\), got 1"),
        ({"train__parallel": "fsdp", "train__compile": True}, r"train\.compile: works with"),
        (
            {"train__activation_checkpointing": True, "model__attention": "template-cached"},
            r"train\.activation_checkpointing: works with model\.attention joint",
        ),
        ({"data__pairs_per_epoch": 7}, r"data\.pairs_per_epoch: must be at least .* 8, got 7"),
    ],
)
def test_options_that_do_not_fit_are_refused(recipe, changes, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        recipe(**changes)


def test_one_process_needs_no_group():
    cpu = torch.device("cpu")
    assert distributed.highest([1, 2], cpu) == [1, 2]
    assert distributed.first_says(7, cpu) == 7


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # torch's own, while it traces
def test_compiling_takes_the_whole_network_in_one_piece(recipe, callbacks, monkeypatch):
    """The compiler itself takes minutes and is not called; what it would be given is counted."""
    pieces = []

    def instead(module, inputs, **options):
        pieces.append(module)
        return module.forward

    monkeypatch.setattr("torch._inductor.compile_fx.compile_fx", instead)
    state = worker.train(recipe(train__compile=True, train__epochs=1), callbacks)
    # One piece for training and one for looking at images and validation, without gradients.
    assert 1 <= len(pieces) <= 3
    assert same(weights(worker.train(recipe(train__epochs=1), Callbacks())), weights(state))
    torch._dynamo.reset()
