import pytest
import torch

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
