import pytest
import torch

from dytrack_model import checkpoint
from dytrack_model.config import DistillationConfig, LossConfig, variant
from dytrack_model.network import DyTrackNetwork
from dytrack_platform.training.objective import TrainModule


@pytest.fixture
def taught(tmp_path):
    """Return a function that makes a narrow module taught by a wider tracker on disk."""
    torch.manual_seed(0)
    teacher = DyTrackNetwork(variant("test", width=96, heads=2))
    checkpoint.save(tmp_path / "teacher", teacher)

    def make(**changes):
        torch.manual_seed(1)
        config = DistillationConfig(
            feature=0, prediction=0, start=0, teacher=str(tmp_path / "teacher"), **changes
        )
        student = variant("test", template_size=32, search_size=64, exits=(2, 4))
        return TrainModule(student, LossConfig(absent=0.25), config)

    return make


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(2)
    crops = [
        torch.randint(0, 256, (4, 3, side, side), generator=generator, dtype=torch.uint8)
        for side in (32, 64)
    ]
    return *crops, torch.full((4, 4), 0.5), 0.5, torch.full((4, 4), 0.5)


def test_every_exit_is_pulled_towards_the_teacher(taught, batch):
    module = taught()
    losses = module(*batch)
    assert losses.parts["distillation"] > 0
    losses.total.backward()
    grads = [p.weight.grad for p in module.distiller.teacher_projections]
    assert len(grads) == 2
    assert all(grad.abs().sum() > 0 for grad in grads)


def test_weights_of_zero_teach_nothing(taught, batch):
    module = taught(teacher_feature=0.0, teacher_prediction=0.0)
    assert module(*batch).parts["distillation"] == 0


def test_the_teacher_is_no_part_of_what_is_trained_or_saved(taught):
    module = taught()
    names = list(module.state_dict())
    assert not any("teacher" in name and "projections" not in name for name in names)
    assert len(list(module.network.parameters())) == len(list(module.network.state_dict())) - sum(
        "running" in name or "batches" in name for name in module.network.state_dict()
    )


def test_validation_asks_no_teacher(taught, batch):
    module = taught().eval()
    assert module(*batch).parts["distillation"] == 0
