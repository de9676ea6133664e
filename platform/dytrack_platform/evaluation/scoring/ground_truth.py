"""An annotation under a profile: everything about a sequence that does not depend on a result."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dytrack_platform.errors import ResultError
from dytrack_platform.evaluation.scoring.alignment import Mask
from dytrack_platform.evaluation.scoring.metrics import Columns, Floats, centres, columns
from dytrack_platform.evaluation.scoring.profiles import Profile, Validity


@dataclass(frozen=True, kw_only=True, slots=True)
class Annotation:
    """What a sequence's owner says about it."""

    name: str
    boxes_xywh: Floats
    """(N, 4) pixels, as annotated."""
    absent: Mask | None = None
    """(N,) true where the target is not there; None where the dataset does not say."""
    image_size: tuple[int, int] | None = None
    """Width and height in pixels, for profiles that clip."""
    attributes: tuple[str, ...] = ()
    object_class: str | None = None


class Prepared:
    """An annotation with everything worked out that does not depend on a result."""

    def __init__(self, profile: Profile, annotation: Annotation) -> None:
        """Apply the profile's rules to the annotation.

        Raises:
            ResultError: The toolkit would stop on this annotation.
        """
        boxes = annotation.boxes_xywh
        self.profile = profile
        self.annotation = annotation
        self.notes: list[str] = []
        if len(boxes) < profile.least_frames:
            raise ResultError(
                f"{annotation.name}: {profile.name} cannot score a sequence of {len(boxes)} "
                "frame: its toolkit reads the file as one vector and stops; leave it out with "
                "--exclude or choose another protocol"
            )
        unknown: Mask = np.zeros(len(boxes), dtype=np.bool_)
        if (nan := np.isnan(boxes)).any():
            unknown = np.any(nan, axis=1)
        if unknown.any():
            if profile.nan_annotation == "refused":
                raise ResultError(
                    f"{annotation.name}: frame {int(np.argmax(unknown)) + 1} of the annotation is "
                    f"NaN, which stops the toolkit behind {profile.name}; use its -uav profile"
                )
            self.notes.append(f"{int(unknown.sum())} annotations are NaN: {_nan_rule(profile)}")
        self.unknown = unknown
        self.rows = self._kept_rows()

    def _kept_rows(self) -> NDArray[np.intp] | None:
        """Positions of the frames that the profile scores; None for all of them."""
        profile, absent = self.profile, self.annotation.absent
        if len(self.unknown) and not (
            profile.first_frame == "left-out"
            or profile.nan_annotation == "left-out"
            or profile.absent == "left-out"
        ):
            return None
        kept = np.ones(len(self.unknown), dtype=np.bool_)
        if profile.nan_annotation == "left-out":
            kept &= ~self.unknown
        if profile.absent == "left-out" and absent is not None:
            kept &= ~absent
        if profile.first_frame == "left-out":
            kept[0] = False
        if not kept.any():
            self.notes.append("no frame is scored")
        return None if kept.all() else np.flatnonzero(kept)

    @cached_property
    def boxes(self) -> Columns:
        """The scored annotations, after clipping and rounding."""
        boxes = self.annotation.boxes_xywh
        return self.image_rules(columns(boxes if self.rows is None else boxes[self.rows]))

    def image_rules(self, boxes: Columns) -> Columns:
        """Clip and round fresh columns as the profile says, in place."""
        if self.profile.clipped and self.annotation.image_size is not None:
            bounds = self.annotation.image_size
            for low, size, bound in zip(boxes[:2], boxes[2:], bounds, strict=True):
                np.clip(low, 0, bound, out=low)
                # As got10k does it: a box that begins left of the image moves in whole, and loses
                # only what then sticks out on the right.
                np.clip(size, 0, bound - low, out=size)
        if self.profile.rounded:
            for values in boxes:
                np.rint(values, out=values)
        return boxes

    @cached_property
    def failed(self) -> Mask | None:
        """Scored frames that are failures in every curve because the target is absent."""
        absent = self.annotation.absent
        if self.profile.absent != "failure" or absent is None or not absent.any():
            return None
        return absent if self.rows is None else absent[self.rows]

    @cached_property
    def invalid_overlap(self) -> Mask | None:
        """Scored frames whose annotation cannot be overlapped; None where all can."""
        return self._invalid(self.profile.valid_overlap, self.boxes, normalised=False)

    @cached_property
    def invalid_error(self) -> Mask | None:
        """Scored frames whose annotation has no valid centre; None where all have."""
        return self._invalid(self.profile.valid_error, self.boxes, normalised=False)

    @cached_property
    def invalid_norm(self) -> Mask | None:
        """The same for the normalised centre, whose sign a negative size turns (pysot)."""
        return self._invalid(self.profile.valid_error, self.boxes, normalised=True)

    @staticmethod
    def _invalid(rule: Validity, boxes: Columns, *, normalised: bool) -> Mask | None:
        if rule == "any":
            return None
        with np.errstate(invalid="ignore", divide="ignore"):
            if rule == "centre":
                middle = centres(boxes)
                parts = [middle.x, middle.y]
                if normalised:
                    # The same 1e-16 as in the error: a box without a size has a valid centre in
                    # pixels, but a normalised one whose sign decides whether pysot counts it.
                    parts = [middle.x / (boxes.w + 1e-16), middle.y / (boxes.h + 1e-16)]
            else:
                parts = list(boxes if rule == "positive" else boxes[2:])
            if all(part.min(initial=np.inf) > 0 for part in parts):  # NaN is not above 0
                return None
            invalid: Mask = np.any([~(part > 0) for part in parts], axis=0)
            return invalid


def _nan_rule(profile: Profile) -> str:
    if profile.nan_annotation == "left-out":
        return "left out of the denominator"
    if profile.valid_overlap == "any":
        return "failures"
    wrong = "correct" if profile.invalid_precision == "correct" else "wrong"
    return f"failures in success, {wrong} in precision"
