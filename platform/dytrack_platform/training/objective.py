"""What is minimised: the losses of every exit, and what the exits learn from the deepest one."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dytrack_model.config import DistillationConfig, LossConfig, ModelConfig
from dytrack_model.distillation import Distiller
from dytrack_model.losses import box_losses, centre_targets, decisioner_loss, focal_loss
from dytrack_model.network import DyTrackNetwork, ExitOutput
from dytrack_platform.training.teacher import Teacher, teaching_loss


class Losses(NamedTuple):
    """The objective of one batch and its parts.

    A tuple, not a dataclass: a parallel wrapper with a static graph looks for tensors in what
    forward returns, and where it finds none the first step's gradients are never exchanged.
    """

    total: Tensor
    """() scalar to minimise."""
    parts: dict[str, Tensor]
    """Detached scalars: ``exit2/loss``, ``exit2/iou``, ``exit2/iou_error``, ``distillation``."""
    true_iou: Tensor
    """(E, B) IoU of every exit's box."""
    predicted_iou: Tensor
    """(E, B) the decisioners' estimates."""


class TrainModule(nn.Module):
    """Network, distiller and losses as one module, so that a parallel wrapper sees one forward."""

    def __init__(
        self,
        model: ModelConfig,
        loss: LossConfig,
        distillation: DistillationConfig,
        sampled_placements: int = 0,
    ) -> None:
        super().__init__()
        self._sampled = sampled_placements
        self.network = DyTrackNetwork(model)
        self.distiller = Distiller(distillation, model.width, len(model.exits))
        self._loss = loss
        self._teacher: Teacher | None = None
        if distillation.teacher:
            self._teacher = Teacher(distillation.teacher)
            width = self._teacher.width
            # In the distiller: it is kept with the training, and not part of a saved tracker.
            self.distiller.teacher_projections = nn.ModuleList(
                nn.Linear(model.width, width) for _ in model.exits
            )

    def forward(
        self,
        template: Tensor,
        search: Tensor,
        boxes_cxcywh: Tensor,
        progress: float,
        template_boxes_cxcywh: Tensor | None = None,
    ) -> Losses:
        """Return the objective of a batch.

        Args:
            template: (B, 3, T, T) uint8 RGB.
            search: (B, 3, S, S) uint8 RGB.
            boxes_cxcywh: (B, 4) true boxes in [0, 1] of the search crop.
            progress: Share of training that is done, for schedules.
            template_boxes_cxcywh: (B, 4) the target in [0, 1] of the template crop, where the
                network reads it.
        """
        absent = _absent(self._loss.absent, len(template)) if self.training else 0
        given_boxes = template_boxes_cxcywh
        if template_boxes_cxcywh is not None:
            template_boxes_cxcywh = _swapped(template_boxes_cxcywh, absent)
        shown = _swapped(template, absent)
        placements = self._placements()
        if len(placements) == 1:  # through forward, where compilers and sharding have their hooks
            outputs, others = self.network(shown, search, template_boxes_cxcywh), []
        else:
            found = self.network.placed(shown, search, placements, template_boxes_cxcywh)
            outputs, others = found[0], found[1:]
        target = centre_targets(boxes_cxcywh, self.network.config.map_size)
        target[:absent] = 0
        total = boxes_cxcywh.new_zeros(())
        parts: dict[str, Tensor] = {}
        true_ious = []
        for depth, output in zip(self.network.config.exits, outputs, strict=True):
            exit_loss, true_iou = self._exit_loss(output, boxes_cxcywh, target, absent)
            total = total + exit_loss
            true_ious.append(true_iou)
            parts[f"exit{depth}/loss"] = exit_loss.detach()
            parts[f"exit{depth}/iou"] = true_iou[absent:].mean()
            error = (output.predicted_iou.detach() - true_iou).abs().mean()
            parts[f"exit{depth}/iou_error"] = error
        for sampled in others:
            losses = [self._exit_loss(o, boxes_cxcywh, target, absent)[0] for o in sampled]
            total = total + torch.stack(losses).sum()
        total = total / len(placements)
        pulled = self._distillation(outputs, boxes_cxcywh, progress, absent)
        if self._teacher is not None and self.training:
            pulled = pulled + teaching_loss(
                self.distiller.config,
                self.distiller.teacher_projections,  # type: ignore[arg-type]
                outputs,
                self._teacher.answer(template, search, given_boxes),
                boxes_cxcywh,
                absent,
            )
        parts["distillation"] = pulled.detach()
        predicted = torch.stack([output.predicted_iou.detach() for output in outputs])
        return Losses(total + pulled, parts, torch.stack(true_ious), predicted)

    def _placements(self) -> list[tuple[int, ...]]:
        """Return all exits, and while training also placements drawn at random.

        All exits together always take part, so that every weight has a gradient in every step;
        a drawn placement holds the deepest exit and up to two others (the sandwich rule of
        universally slimmable networks, ICCV 2019: the largest, and some at random).
        """
        exits = self.network.exit_count
        found = [tuple(range(exits))]
        for _ in range(self._sampled if self.training else 0):
            # From the worker's seeded random state, which checkpoints keep.
            count = int(torch.randint(0, min(3, exits), ()).item())
            chosen = torch.randperm(exits - 1)[:count].sort().values.tolist()
            found.append((*chosen, exits - 1))
        return found

    def _exit_loss(
        self, output: ExitOutput, boxes_cxcywh: Tensor, target: Tensor, absent: int
    ) -> tuple[Tensor, Tensor]:
        weights = self._loss
        giou, l1, found_iou = box_losses(output.boxes_cxcywh[absent:], boxes_cxcywh[absent:])
        # What is not there cannot be found.
        true_iou = torch.cat([found_iou.new_zeros(absent), found_iou])
        loss = weights.giou * giou + weights.l1 * l1
        loss = loss + weights.focal * focal_loss(output.maps.score, target)
        if output.coarse_score is not None:
            loss = loss + weights.focal * focal_loss(output.coarse_score, target)
        return loss + weights.iou * decisioner_loss(output.predicted_iou, true_iou), true_iou

    def _distillation(
        self,
        outputs: Sequence[ExitOutput],
        boxes_cxcywh: Tensor,
        progress: float,
        absent: int,
    ) -> Tensor:
        config = self.distiller.config
        loss = boxes_cxcywh.new_zeros(())
        # A strength of 0 multiplies instead of skipping: every parameter takes part in every
        # step, which a parallel wrapper with a static graph needs.
        if config.feature > 0:
            features = [output.features[absent:] for output in outputs]
            loss = loss + config.feature * self.distiller.feature_loss(
                features, boxes_cxcywh[absent:]
            )
        if config.prediction > 0:
            boxes = [output.boxes_cxcywh[absent:] for output in outputs]
            loss = loss + config.prediction * self.distiller.prediction_loss(boxes)
        return self.distiller.strength(progress) * loss


def _absent(share: float, pairs: int) -> int:
    """Draw how many of a worker's pairs show another template: the share, on average.

    Rounding alone would lose it where many workers hold few pairs each. The draw comes from the
    worker's seeded random state, which checkpoints keep.
    """
    if share == 0:
        return 0  # a training without such pairs draws nothing
    # One pair at least shows its own: of one alone there is no other template either.
    return min(pairs - 1, int(share * pairs + torch.rand(()).item()))


def _swapped(template: Tensor, absent: int) -> Tensor:
    """Return the first pairs the template, or what is known of it, of the pair before them.

    Batches are drawn over all clips, so that it is rarely another clip of the same sequence.
    """
    if absent == 0:
        return template
    return torch.cat([template.roll(1, 0)[:absent], template[absent:]])
