"""The rules by which each benchmark's own toolkit turns boxes into scores, written out as data.

There is no single official one-pass evaluation: the toolkits disagree on frame 1, on annotations
without area, on absent frames, on broken predictions and on what is averaged. A :class:`Profile`
has one field per question, so two profiles can be compared line by line, and every report names
the one it used. The code that follows the rules is ``sequence_scores.py``.

Sources, by the revision that was executed to check the numbers:

========================  ==========================================================
``lasot-matlab``          HengLan/LaSOT_Evaluation_Toolkit 95bf38a, eval_tracker.m and
                          plot_draw_save.m; without absent flags it is OTB's
                          calcSeqErrRobust.m, TNL2K's and UAV123's MATLAB code
``pysot-*``               StrangerZhang/pysot-toolkit 8b5ced3, OPEBenchmark
``pytracking-*``          visionml/pytracking 7eb9e74, extract_results
``ostrack-*``             botaoye/OSTrack 33b5e12, extract_results
``got10k-otb``, ``got10k-uav123``, ``got10k``
                          got10k 0.1.3 from PyPI, ExperimentOTB, -UAV123, -GOT10k
``got10k-lasot``          got-10k/toolkit 956e728 (master), ExperimentLaSOT
``trackingnet``           SilvioGiancola/TrackingNet-devkit 79783f2, metrics.py
========================  ==========================================================
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from dytrack_platform.errors import ConfigurationError
from dytrack_platform.evaluation.scoring.metrics import Edges, Floats, Scale

Validity = Literal["positive", "sized", "centre", "any"]
Invalid = Literal["correct", "wrong"]
SpeedRule = Literal["frames-over-time", "reciprocals", "pooled-reciprocals"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """One toolkit's one-pass evaluation; scores made of it lie in [0, 1]."""

    name: str
    """The name that commands and reports use."""
    source: str
    """Project and revision whose behaviour this is."""

    success_thresholds: int = 21
    """Points of the success curve, evenly over IoU 0 to 1."""
    success_or_equal: bool = False
    """Whether an IoU that equals the threshold counts (TrackingNet); else a perfect tracker's
    21-point AUC is 20/21."""
    edges: Edges = "plain"
    """How the IoU rounds; see :func:`~dytrack_platform.evaluation.scoring.metrics.overlaps`."""
    error_thresholds: tuple[float, int] = (50.0, 51)
    """Largest threshold in pixels, and points, of the precision curve; an error that equals the
    threshold counts."""
    norm_scale: Scale | None = "quotients"
    """How normalised errors are formed; None where the toolkit has no such measure."""
    norm_thresholds: tuple[float, int] = (0.5, 51)
    """Largest threshold, and points, of the normalised precision curve."""
    area: Literal["mean", "trapezoid"] = "mean"
    """The area under a curve: mean of its points, or the trapezoid rule."""
    precision_report: Literal["at-20", "area", "none"] = "at-20"
    """Precision is the curve's value at 20 pixels, its area, or not one of the measures."""
    norm_report: Literal["at-0.20", "area"] = "at-0.20"
    """Normalised precision is the curve's value at 0.20, or its area."""

    first_frame: Literal["annotation", "prediction", "left-out"] = "annotation"
    """Frame 1 is overwritten by the annotation and counted, counted as predicted, or left out."""
    valid_overlap: Validity = "any"
    """Which annotations can be overlapped; the others are failures that stay in the denominator.
    positive: x, y, w and h above 0. sized: w and h above 0. any: no test."""
    valid_error: Validity = "any"
    """Which annotations have a centre; centre: both of its coordinates above 0."""
    invalid_precision: Invalid = "wrong"
    """What an annotation without a valid centre gives in the precision curve."""
    invalid_norm: Invalid = "wrong"
    """The same in the normalised precision curve."""
    nan_annotation: Literal["computed", "left-out", "refused"] = "computed"
    """Annotations with NaN: go through the tests above, are removed from the denominator too, or
    stop the toolkit."""
    absent: Literal["failure", "ignored", "left-out"] = "ignored"
    """Frames flagged absent: wrong in every curve with the full denominator, scored like any
    other, or removed from the denominator."""

    broken_prediction: Literal["previous", "previous-if-empty", "kept"] = "kept"
    """A prediction with NaN or without area. previous: the frame before's is used for both.
    previous-if-empty: for those without area only; NaN and negative sizes stop the toolkit."""
    longer: Literal["cut", "refused"] = "refused"
    """What more predictions than annotations give."""
    shorter: Literal["zeros", "missing", "cut-annotation", "refused"] = "refused"
    """What fewer predictions give: all-zero boxes, boxes of NaN, fewer annotations, or a stop."""
    missing_sequence: Literal["zeros", "refused"] = "refused"
    """A sequence without a result file."""
    least_frames: int = 1
    """A one-frame file is read as a vector and stops the toolkits that have 2 here."""
    omitted_starts: Mapping[str, int] = field(default_factory=dict, hash=False)
    """Sequences whose first frames the benchmark omits, so that results over all frames lose
    them too. OTB's Tiger1: start frame 6 in MATLAB, initOmit 5 in pytracking."""
    clipped: bool = False
    """Whether predictions and annotations are clipped to the image, GOT-10k's way: a box that
    begins left of the image is moved in and keeps its width."""
    rounded: bool = False
    """Whether x, y, w and h are rounded, halves to even."""

    average: Literal["sequences", "nonzero-sequences", "frames"] = "sequences"
    """Mean over sequences; over those whose curve is not all zero (MATLAB); or over all frames of
    all sequences (GOT-10k)."""
    least_attribute: int = 1
    """Fewest sequences an attribute needs to be reported."""
    speed: SpeedRule = "frames-over-time"
    """How frames per second are averaged: per sequence frames / time, per sequence mean of
    1 / time, or mean of 1 / time over all frames."""

    @property
    def overlap_thresholds(self) -> Floats:
        """IoU thresholds, rising from 0 to 1."""
        return np.linspace(0.0, 1.0, self.success_thresholds)

    @property
    def pixel_thresholds(self) -> Floats:
        """Centre error thresholds in pixels, rising from 0."""
        return np.linspace(0.0, *self.error_thresholds)

    @property
    def scaled_thresholds(self) -> Floats:
        """Normalised error thresholds, rising from 0."""
        if self.area == "trapezoid":
            return np.linspace(0.0, *self.norm_thresholds)
        # 0.29 as 29 / 100, the toolkits' own rounding: it decides errors that equal a threshold.
        return np.arange(self.norm_thresholds[1]) / 100.0


_MATLAB = Profile(
    name="lasot-matlab",
    source="HengLan/LaSOT_Evaluation_Toolkit 95bf38a",
    edges="inclusive",
    valid_overlap="positive",
    valid_error="positive",
    invalid_precision="correct",
    invalid_norm="correct",
    absent="failure",
    broken_prediction="previous",
    longer="cut",
    omitted_starts={"Tiger1": 5},
    average="nonzero-sequences",
    least_attribute=2,
)
_PYSOT = Profile(
    name="pysot-otb",
    source="StrangerZhang/pysot-toolkit 8b5ced3",
    norm_scale="guarded-quotients",
    first_frame="prediction",
    valid_overlap="positive",
    valid_error="centre",
    invalid_precision="correct",
    invalid_norm="correct",
    absent="failure",
    omitted_starts={"Tiger1": 5},
)
_PYTRACKING = Profile(
    name="pytracking-otb",
    source="visionml/pytracking 7eb9e74",
    edges="inclusive",
    valid_overlap="positive",
    valid_error="positive",
    invalid_precision="wrong",
    invalid_norm="correct",
    nan_annotation="refused",
    broken_prediction="previous-if-empty",
    longer="cut",
    shorter="zeros",
    least_frames=2,
    omitted_starts={"Tiger1": 5},
)
_PYTRACKING_UAV = replace(
    _PYTRACKING,
    name="pytracking-uav",
    nan_annotation="computed",
    invalid_precision="correct",
    omitted_starts={},
)
_PYTRACKING_LASOT = replace(
    _PYTRACKING,
    name="pytracking-lasot",
    absent="failure",
    shorter="refused",
    omitted_starts={},
)
_OSTRACK = {"source": "botaoye/OSTrack 33b5e12", "valid_overlap": "sized", "valid_error": "sized"}
_GOT10K_OTB = Profile(
    name="got10k-otb",
    source="got10k 0.1.3, ExperimentOTB",
    edges="guarded",
    norm_scale=None,
    least_frames=2,
    speed="reciprocals",
)

_ALL = (
    _MATLAB,
    _PYSOT,
    replace(_PYSOT, name="pysot-lasot", omitted_starts={}),
    _PYTRACKING,
    _PYTRACKING_UAV,
    _PYTRACKING_LASOT,
    replace(_PYTRACKING, name="ostrack-otb", **_OSTRACK),  # type: ignore[arg-type]
    replace(_PYTRACKING_UAV, name="ostrack-uav", **_OSTRACK),  # type: ignore[arg-type]
    replace(_PYTRACKING_LASOT, name="ostrack-lasot", **_OSTRACK),  # type: ignore[arg-type]
    _GOT10K_OTB,
    replace(
        _GOT10K_OTB,
        name="got10k-uav123",
        source="got10k 0.1.3, ExperimentUAV123",
        nan_annotation="left-out",
    ),
    replace(
        _GOT10K_OTB,
        name="got10k-lasot",
        source="got-10k/toolkit 956e728, ExperimentLaSOT",
        norm_scale="difference",
        norm_report="area",
        nan_annotation="left-out",
        longer="cut",
        shorter="cut-annotation",
    ),
    Profile(
        name="got10k",
        source="got10k 0.1.3, ExperimentGOT10k",
        success_thresholds=101,
        edges="guarded",
        precision_report="none",
        norm_scale=None,
        first_frame="left-out",
        absent="left-out",
        least_frames=2,
        clipped=True,
        average="frames",
        speed="pooled-reciprocals",
    ),
    Profile(
        name="trackingnet",
        source="SilvioGiancola/TrackingNet-devkit 79783f2",
        success_or_equal=True,
        error_thresholds=(50.0, 21),
        norm_scale="quotient-of-difference",
        norm_thresholds=(0.5, 21),
        area="trapezoid",
        precision_report="area",
        norm_report="area",
        longer="cut",
        shorter="missing",
        missing_sequence="zeros",
        rounded=True,
    ),
)

PROFILES: dict[str, Profile] = {profile.name: profile for profile in _ALL}
"""Every one-pass profile by name; ``vot/protocols.py`` has VOT's."""


@dataclass(frozen=True, slots=True)
class Default:
    """The profile a dataset is scored by when none is asked for."""

    profile: str
    reason: str


DEFAULTS: dict[str, Default] = {
    "lasot": Default("lasot-matlab", "the authors' own toolkit, which the paper's tables used"),
    "lasotext": Default("lasot-matlab", "the same authors' toolkit"),
    "otb": Default("lasot-matlab", "the same rules as OTB's own calcSeqErrRobust.m"),
    "uav123": Default("lasot-matlab", "the same rules as UAV123's own MATLAB benchmark"),
    "uav20l": Default("lasot-matlab", "the same authors' benchmark"),
    "nfs": Default("pytracking-otb", "the field's tables on it come from pytracking"),
    "tnl2k": Default("lasot-matlab", "TNL2K's own toolkit is LaSOT's"),
    "got10k": Default("got10k", "the server that ranks the test set runs this toolkit"),
    "trackingnet": Default("trackingnet", "the server that ranks the test set runs this devkit"),
    "vot": Default("vot-supervised", "VOT's own toolkit; vot-multistart from 2020 on"),
}
"""Default profile by dataset name; other datasets get :data:`FALLBACK`."""

FALLBACK = Default(
    "ostrack-uav",
    "for data without a toolkit: a box that touches the border counts, absent frames may be NaN",
)


def default_profile(dataset: str) -> Default:
    """Choose the profile for a dataset, and say why."""
    return DEFAULTS.get(dataset, FALLBACK)


def one_pass_default(dataset: str) -> Default:
    """Choose a profile for running trackers here, which is always in one pass, and say why."""
    found = default_profile(dataset)
    if found.profile in PROFILES:
        return found
    return Default(
        FALLBACK.profile,
        f"one pass only; {found.profile} restarts trackers: vot-toolkit does, with dytrack trax",
    )


def profile(name: str) -> Profile:
    """Find a one-pass profile.

    Raises:
        ConfigurationError: There is none of this name.
    """
    if name not in PROFILES:
        known = ", ".join(PROFILES)
        raise ConfigurationError(f"protocol: must be one of {known}, got {name!r}")
    return PROFILES[name]
