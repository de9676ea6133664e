import math

import pytest
import torch

from dytrack_model.config import DistillationConfig, variant
from dytrack_model.distillation import Distiller, target_mask
from dytrack_model.errors import ConfigurationError
from dytrack_model.network import DyTrackNetwork

BOX = torch.tensor([[0.5, 0.25, 0.2, 0.3]])


@pytest.mark.parametrize("shape", ["box", "gaussian"])
def test_the_target_mask_weighs_the_target_most_and_the_outside_a_little(shape):
    mask = target_mask(BOX, 16, shape, outside=0.1)
    grid = mask.reshape(16, 16)
    assert mask.sum() == pytest.approx(1)
    assert grid[3, 8] > 5 * grid[15, 0]
    assert grid.min() > 0


def test_a_box_mask_has_two_weights_whose_ratio_is_the_outside_weight():
    mask = target_mask(torch.tensor([[0.5, 0.25, 0.25, 0.5]]), 16, "box", outside=0.25)
    low, high = mask.unique().tolist()
    assert low == pytest.approx(0.25 * high)
    assert (mask == high).sum() == 4 * 8


def test_a_gaussian_mask_falls_with_half_the_box_as_its_deviation():
    # A cell's centre lies at the box's centre, another half a box to the right.
    box = torch.tensor([[8.5 / 16, 8.5 / 16, 4 / 16, 8 / 16]])
    grid = target_mask(box, 16, "gaussian", outside=1e-6).reshape(16, 16)
    assert (grid[8, 10] / grid[8, 8]).item() == pytest.approx(math.exp(-0.5), rel=1e-3)
    assert (grid[12, 8] / grid[8, 8]).item() == pytest.approx(math.exp(-0.5), rel=1e-3)


def test_a_tiny_target_still_marks_its_own_token():
    mask = target_mask(torch.tensor([[0.53, 0.53, 0.001, 0.001]]), 16, "box", outside=0.1)
    assert mask.argmax().item() == 8 * 16 + 8
    assert mask.max() > mask.min()


@pytest.mark.parametrize("outside", [0.0, -0.1, 1.5])
def test_an_outside_weight_that_ignores_the_background_is_refused(outside):
    with pytest.raises(ConfigurationError, match=r"outside: must lie in \(0, 1\], got"):
        DistillationConfig(outside=outside)


def test_gradients_never_reach_the_teacher():
    distiller = Distiller(DistillationConfig(), width=8, exits=3)
    features = [torch.rand(1, 256, 8, requires_grad=True) for _ in range(3)]
    boxes = [torch.rand(1, 4).add(0.1).requires_grad_() for _ in range(3)]
    loss = distiller.feature_loss(features, BOX) + distiller.prediction_loss(boxes)
    loss.backward()
    assert [f.grad is not None for f in features] == [True, True, False]
    assert [b.grad is not None for b in boxes] == [True, True, False]


@pytest.mark.parametrize("schema", ["none", "add", "concat", "cascade"])
def test_in_a_network_only_what_the_students_run_learns_from_the_teacher(schema, crops):
    """Blocks below the last student are shared; everything above is the teacher's own."""
    torch.manual_seed(0)
    network = DyTrackNetwork(variant("test", recycling=schema)).train()
    distiller = Distiller(DistillationConfig(), width=64, exits=3)
    outputs = network(*crops)
    loss = distiller.feature_loss([o.features for o in outputs], BOX.expand(3, -1))
    loss = loss + distiller.prediction_loss([o.boxes_cxcywh for o in outputs])
    loss.backward()
    teacher = [network.backbone.blocks[2:], network.norms[-1], network.heads[-1]]
    teacher += [network.recycling[-1], network.decisioners]
    for part in teacher:
        assert [name for name, p in part.named_parameters() if p.grad is not None] == []
    heads = [head.size for head in network.heads[:2]]
    for part in (network.backbone.blocks[:2], network.norms[:2], *heads):
        assert [name for name, p in part.named_parameters() if p.grad is None] == []


def test_a_student_that_equals_its_teacher_has_nothing_to_learn():
    distiller = Distiller(DistillationConfig(), width=8, exits=2)
    with torch.no_grad():
        distiller.projections[0].weight.copy_(torch.eye(8))
        distiller.projections[0].bias.zero_()
    features, box = torch.rand(2, 256, 8), torch.tensor([[0.5, 0.5, 0.2, 0.2]]).expand(2, -1)
    assert distiller.feature_loss([features, features], box).item() == pytest.approx(0, abs=1e-6)
    assert distiller.prediction_loss([box, box]).item() == pytest.approx(0, abs=1e-6)


def test_a_difference_on_the_target_costs_more_than_one_in_the_background():
    distiller = Distiller(DistillationConfig(outside=0.1), width=8, exits=2)
    teacher = torch.zeros(1, 256, 8)
    teacher[..., 0] = 1.0
    costs = []
    for token in (3 * 16 + 8, 15 * 16):  # a cell of the target, and a corner
        student = teacher.clone()
        student[0, token] = student[0, token].flip(0)
        with torch.no_grad():
            distiller.projections[0].weight.copy_(torch.eye(8))
            distiller.projections[0].bias.zero_()
        costs.append(distiller.feature_loss([student, teacher], BOX).item())
    assert costs[0] > 5 * costs[1] > 0


@pytest.mark.parametrize(
    ("progress", "strength"), [(0.0, 0.0), (0.2, 0.0), (0.3, 0.5), (0.4, 1.0), (1.0, 1.0)]
)
def test_the_schedule_rises_linearly_after_its_start(progress, strength):
    config = DistillationConfig(start=0.2, ramp=0.2)
    assert Distiller(config, 8, 3).strength(progress) == pytest.approx(strength)


def test_without_a_ramp_the_schedule_is_a_step():
    distiller = Distiller(DistillationConfig(start=0.2, ramp=0.0), 8, 3)
    assert [distiller.strength(progress) for progress in (0.19, 0.2, 1.0)] == [0.0, 1.0, 1.0]


def test_without_a_feature_weight_there_are_no_projections():
    assert not list(Distiller(DistillationConfig(feature=0), 8, 3).parameters())
