import pytest
import torch

from dytrack_model.config import DistillationConfig
from dytrack_model.distillation import Distiller, target_mask
from dytrack_model.losses import box_losses, centre_targets, decisioner_loss, focal_loss

BOX = torch.tensor([[0.5, 0.25, 0.2, 0.3]])


def test_the_centre_target_peaks_in_the_centres_cell():
    target = centre_targets(BOX, 16)
    assert target[0].argmax().item() == 4 * 16 + 8
    assert target.max() == 1
    assert (target == 1).sum() == 1


def test_a_centre_outside_the_crop_has_no_positive():
    target = centre_targets(torch.tensor([[1.2, 0.5, 0.2, 0.2]]), 16)
    assert target.sum() == 0
    assert torch.isfinite(focal_loss(torch.full((1, 16, 16), 0.5), target))


def test_focal_loss_is_smaller_where_the_peak_is_right():
    target = centre_targets(BOX, 16)
    right = (target * 0.9).clamp(1e-4, 1 - 1e-4)
    wrong = right.flip(1)
    assert focal_loss(right, target) < focal_loss(wrong, target)


def test_a_perfect_box_costs_nothing():
    giou, l1, iou = box_losses(BOX, BOX)
    assert giou.item() == pytest.approx(0, abs=1e-6)
    assert l1.item() == 0
    assert iou.item() == pytest.approx(1)


def test_the_decisioners_target_carries_no_gradient():
    predicted = torch.tensor([0.5], requires_grad=True)
    true = torch.tensor([0.9], requires_grad=True)
    decisioner_loss(predicted, true).backward()
    assert predicted.grad is not None
    assert true.grad is None


@pytest.mark.parametrize("shape", ["box", "gaussian"])
def test_the_target_mask_weighs_the_target_most_and_the_outside_a_little(shape):
    mask = target_mask(BOX, 16, shape, outside=0.1)
    grid = mask.reshape(16, 16)
    assert mask.sum() == pytest.approx(1)
    assert grid[3, 8] > 5 * grid[15, 0]
    assert grid.min() > 0


def test_a_tiny_target_still_marks_its_own_token():
    mask = target_mask(torch.tensor([[0.53, 0.53, 0.001, 0.001]]), 16, "box", outside=0.1)
    assert mask.argmax().item() == 8 * 16 + 8
    assert mask.max() > mask.min()


def test_gradients_never_reach_the_teacher():
    distiller = Distiller(DistillationConfig(), width=8, exits=3)
    features = [torch.rand(1, 256, 8, requires_grad=True) for _ in range(3)]
    boxes = [torch.rand(1, 4).add(0.1).requires_grad_() for _ in range(3)]
    loss = distiller.feature_loss(features, BOX) + distiller.prediction_loss(boxes)
    loss.backward()
    assert [f.grad is not None for f in features] == [True, True, False]
    assert [b.grad is not None for b in boxes] == [True, True, False]


@pytest.mark.parametrize(
    ("progress", "strength"), [(0.0, 0.0), (0.2, 0.0), (0.3, 0.5), (0.4, 1.0), (1.0, 1.0)]
)
def test_the_schedule_rises_linearly_after_its_start(progress, strength):
    config = DistillationConfig(start=0.2, ramp=0.2)
    assert Distiller(config, 8, 3).strength(progress) == pytest.approx(strength)


def test_without_a_feature_weight_there_are_no_projections():
    assert not list(Distiller(DistillationConfig(feature=0), 8, 3).parameters())
