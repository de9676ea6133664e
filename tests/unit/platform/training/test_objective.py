import itertools

import numpy as np
import pytest
import torch

from dytrack_model import checkpoint
from dytrack_model.config import DistillationConfig, LossConfig, variant
from dytrack_model.network import DyTrackNetwork
from dytrack_model.pretrained import files
from dytrack_platform.training.objective import TrainModule, _absent

SCHEMAS = ("none", "add", "concat", "cascade")
PLAIN = LossConfig()
OFF = DistillationConfig(feature=0, prediction=0)


def build(distillation=OFF, loss=PLAIN, **changes):
    torch.manual_seed(0)
    small = {"depth": 2, "exits": (1, 2), "width": 32, **changes}
    return TrainModule(variant("test", **small), loss, distillation)


def unused(module):
    """Name the parameters that should have got a gradient and did not."""
    named = module.named_parameters()
    return [name for name, p in named if p.requires_grad and p.grad is None]


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    crops = [
        torch.randint(0, 256, (2, 3, side, side), generator=generator, dtype=torch.uint8)
        for side in (64, 128)
    ]
    return (*crops, torch.tensor([[0.5, 0.5, 0.3, 0.2], [0.4, 0.6, 0.2, 0.3]]))


@pytest.mark.parametrize(("schema", "kind"), list(itertools.product(SCHEMAS, ("token", "map"))))
@pytest.mark.parametrize("progress", [0.0, 1.0])
def test_every_parameter_takes_part_in_every_step(schema, kind, progress, batch):
    """A parallel wrapper with a static graph waits for all of them, distilling or not."""
    loss = LossConfig(absent=0.5)
    module = build(DistillationConfig(start=0.5), loss, recycling=schema, decisioner=kind)
    module(*batch, progress).total.backward()
    assert unused(module) == []


@pytest.mark.parametrize("kind", ["token", "map"])
def test_no_parameter_waits_where_the_iou_token_only_reads(kind, batch):
    module = build(iou_token="read_only", decisioner=kind)
    module(*batch, 1.0).total.backward()
    assert unused(module) == []


def test_a_template_of_another_pair_has_an_iou_of_zero_and_no_box_to_learn(batch):
    module = build(loss=LossConfig(absent=0.5, focal=0, iou=0))
    seen = []
    module.network.register_forward_pre_hook(lambda _, crops: seen.append(crops[0]))
    losses = module(*batch, 1.0)
    template, search, boxes = batch
    torch.testing.assert_close(seen[0], template[[1, 1]])
    assert losses.true_iou[:, 0].tolist() == [0, 0]
    moved = torch.stack([boxes[0].flip(0), boxes[1]])
    assert module(template, search, moved, 1.0).total == losses.total
    module.eval()
    module(*batch, 1.0)
    assert seen[-1] is template


def test_switched_off_distillation_adds_nothing(batch):
    losses = build()(*batch, 1.0)
    assert losses.parts["distillation"] == 0
    exits = losses.parts["exit1/loss"] + losses.parts["exit2/loss"]
    torch.testing.assert_close(losses.total.detach(), exits)


@pytest.mark.parametrize(
    "changes", [{"feature": 0.2, "prediction": 0}, {"feature": 0, "prediction": 0.5}]
)
def test_each_distillation_works_alone_and_waits_for_its_start(changes, batch):
    module = build(DistillationConfig(**changes, start=0.5, ramp=0.0))
    assert module(*batch, 0.4).parts["distillation"] == 0
    assert module(*batch, 0.6).parts["distillation"] > 0


def test_projections_exist_in_training_only(tmp_path):
    module = build(DistillationConfig())
    assert any("projections" in name for name in module.state_dict())
    folder = checkpoint.save(tmp_path / "tracker", module.network)
    saved = files.read_tensors(folder / checkpoint.WEIGHTS)
    assert set(saved) == set(DyTrackNetwork(module.network.config).state_dict())


def test_the_decisioners_target_is_the_iou_of_its_own_box(batch):
    module = build().eval()
    outputs = module.network(*batch[:2])
    losses = module(*batch, 1.0)
    from dytrack_model.losses import box_losses

    for index, output in enumerate(outputs):
        _, _, iou = box_losses(output.boxes_cxcywh, batch[2])
        torch.testing.assert_close(losses.true_iou[index], iou)
        assert not losses.true_iou.requires_grad


def test_the_share_of_absent_pairs_is_kept_on_average_whatever_the_batch():
    torch.manual_seed(0)
    drawn = [_absent(0.05, 16) for _ in range(4000)]
    assert set(drawn) == {0, 1}
    assert np.mean(drawn) == pytest.approx(0.05 * 16, abs=0.03)
    assert _absent(0.0, 16) == 0
    assert {_absent(0.9, 1) for _ in range(50)} == {0}, "alone there is no other template"
    assert {_absent(0.5, 8) for _ in range(50)} == {4}
