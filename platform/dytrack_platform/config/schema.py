"""The schema of an experiment: what a recipe may say, with every value checked where it is made."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from dytrack_model.config import (
    AtLeastOne,
    Bounds,
    DistillationConfig,
    LossConfig,
    ModelConfig,
    NotNegative,
    NotNegativeFloat,
    Positive,
    Share,
    check_bounds,
    require,
)
from dytrack_platform.config.search import SearchConfig

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Parallel = Literal["ddp", "fsdp"]
Schedule = Literal["step", "cosine"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceConfig:
    """One prepared folder of clips and its share of the pairs."""

    path: str
    """Folder or URL that ``dytrack prepare`` wrote."""
    weight: Positive = 1.0
    """Share of the pairs drawn from it, relative to the other sources."""

    def __post_init__(self) -> None:
        require(bool(self.path), "path: must name a prepared folder, got an empty string")
        check_bounds(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class ResidentSource:
    """A raw dataset that training keeps in memory as a whole."""

    dataset: str
    """Layout: a name that ``--dataset`` takes, or ``cutouts`` for a folder of RGBA pictures."""
    root: str
    """The dataset's folder."""
    split: str | None = None
    """The dataset's own name of a split; left out: its default."""
    weight: Positive = 1.0
    """Share of the pairs, relative to the other sources."""
    include: tuple[str, ...] = ()
    """Patterns of sequence names to take (``fod_*``); empty: all."""
    exclude: tuple[str, ...] = ()
    """Patterns of sequence names to leave out."""
    longest_side: Annotated[int, Bounds(low=32)] = 640
    """Pictures with a longer side are made smaller."""
    masks: bool = False
    """Cut the objects that have run-length masks out (COCO's layout), to lay them over others."""
    mask_file: str | None = None
    """A file in ``annotations`` that holds these masks; left out: the split's own."""

    def __post_init__(self) -> None:
        require(bool(self.root), "root: must name a folder, got an empty string")
        check_bounds(self)
        require(
            not self.masks or self.dataset == "coco",
            f"masks: are read of dataset coco only, got {self.dataset!r}",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class OverlayConfig:
    """Pairs with things laid over pictures, and cameras' faults; for ``data.resident`` only."""

    composed: NotNegativeFloat = 0.0
    """Weight, beside those of the sources, of pairs whose target is a thing over pictures."""
    distractors: Share = 0.3
    """Share of the pairs with another thing beside the target."""
    hidden: Share = 0.1
    """Share of the pairs with something over a part of the target."""
    turn: NotNegativeFloat = 0.35
    """Standard deviation in radians of a composed target's turn between the two crops."""
    loose_template: NotNegativeFloat = 0.03
    """Standard deviation of the template's place and size, in units of the target's size."""
    tint: Share = 0.08
    """Each colour of a crop is multiplied by 1 plus or minus up to this."""
    contrast: Share = 0.2
    """Each crop's contrast is multiplied by 1 plus or minus up to this."""
    blur: Share = 0.12
    """Share of the crops that are coarse, that are smeared, and that are grainy."""

    def __post_init__(self) -> None:
        check_bounds(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Which clips, and how a pair is drawn and augmented (the field's standard recipe)."""

    train: tuple[SourceConfig, ...] = ()
    """Prepared folders to draw training pairs from."""
    root: str = "data"
    """Folder that relative roots of ``resident`` and ``resident_validation`` lie below."""
    resident: tuple[ResidentSource, ...] = ()
    """Raw datasets to keep in memory and draw from, in place of prepared folders."""
    resident_validation: tuple[ResidentSource, ...] = ()
    """Raw sequences that are tracked in closed loop to judge a training by."""
    overlay: OverlayConfig = field(default_factory=OverlayConfig)
    """Things laid over pictures."""
    validation: tuple[SourceConfig, ...] = ()
    """Prepared folders for validation pairs; empty: a part of the training sequences."""
    validation_share: Annotated[float, Bounds(above=0, below=1)] = 0.1
    """Share of the training *sequences* kept for validation where ``validation`` is empty."""
    pairs_per_epoch: AtLeastOne = 60_000
    """Training pairs in an epoch."""
    validation_pairs: AtLeastOne = 512
    """Validation pairs, the same ones every time."""
    max_gap: AtLeastOne = 200
    """Largest distance in frames between template and search frame."""
    centre_jitter: NotNegativeFloat = 3.0
    """Search centre moves by up to half of this times sqrt(w*h)."""
    scale_jitter: NotNegativeFloat = 0.25
    """Search side is multiplied by exp of a normal number times this."""
    grayscale_prob: Share = 0.05
    """Probability that both crops become grey."""
    flip: Share = 0.5
    """Probability that both crops are mirrored together, and then of each alone (OSTrack's recipe):
    at .5 the two differ in half of the pairs. With ``resident`` they are mirrored together only."""
    brightness: NotNegativeFloat = 0.2
    """Each crop's brightness is multiplied by 1 plus or minus up to this."""
    pairs_per_clip: AtLeastOne = 8
    """Pairs drawn from a clip each time it is read."""
    loader_workers: NotNegative = 1
    """Threads of each training worker that decode and crop ahead; 0: none, the step waits."""

    def __post_init__(self) -> None:
        check_bounds(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Optimiser, schedule, precision, workers and checkpoints."""

    epochs: AtLeastOne = 300
    """Passes of ``data.pairs_per_epoch`` pairs."""
    batch_size: AtLeastOne = 128
    """Pairs in a step over all workers together."""
    workers: AtLeastOne = 1
    """Training processes; each takes an equal part of every batch."""
    min_workers: NotNegative = 0
    """Fewest workers to go on with where a node is lost or not there yet; 0: always ``workers``."""
    cpus_per_worker: Positive = 1.0
    """CPUs that Ray reserves for each worker."""
    gpu: bool = False
    """Give each worker a GPU (NCCL instead of gloo)."""
    head_lr: Positive = 4e-4
    """Learning rate of heads, decisioners and recycling."""
    backbone_lr: Positive = 4e-5
    """Learning rate of the transformer."""
    weight_decay: NotNegativeFloat = 1e-4
    """AdamW weight decay; norms, biases and embeddings are spared."""
    max_grad_norm: NotNegativeFloat = 0.1
    """Largest norm of the gradient; 0 leaves it alone."""
    schedule: Schedule = "step"
    """step: times 0.1 at ``lr_drop_at``. cosine: down to zero."""
    lr_drop_at: Share = 0.8
    """Fraction of training at which the step schedule drops."""
    warmup: Share = 0.0
    """Fraction of training over which the learning rate rises linearly."""
    precision: Precision = "fp32"
    """Arithmetic of the forward pass (autocast). auto: bf16 where the device computes in it by
    itself, else fp32. fp16 scales the loss so that gradients live."""
    grad_accum_steps: AtLeastOne = 1
    """Parts that a worker cuts its share of a batch into, one after the other, to save memory.
    Batch norm sees the parts, so the result is close to that of 1, not equal."""
    parallel: Parallel = "ddp"
    """ddp: every worker holds everything. fsdp: weights and optimiser are spread (FSDP2)."""
    compile: bool = False
    """Compile the network with ``torch.compile``: a minute at the start, faster steps after."""
    channels_last: bool = False
    """Keep images and convolutions in channels-last order."""
    activation_checkpointing: bool = False
    """Compute a block's activations again in the backward pass instead of keeping them."""
    ema: Annotated[float, Bounds(low=0, below=1)] = 0.0
    """Decay of an average of the weights that validation and the saved tracker use; 0: none."""
    skip_nonfinite: NotNegative = 0
    """Batches with a loss or gradient that is not finite that may be left out; then it stops."""
    freeze_backbone: bool = False
    """Train heads, decisioners and recycling only (a second stage, see ``init_from``)."""
    report_steps: AtLeastOne = 20
    """Optimiser steps between two points of the curves."""
    sample_images: NotNegative = 4
    """Validation pairs drawn with the boxes of every exit after each epoch; 0: none."""
    checkpoint_steps: AtLeastOne = 200
    """Optimiser steps between checkpoints; what a crash can cost at most."""
    keep_checkpoints: Annotated[int, Bounds(low=2)] = 2
    """Checkpoints kept; at least two, so that a damaged one has a predecessor."""
    async_checkpoints: bool = True
    """Upload checkpoints while training goes on; what a crash can cost stays the same or grows
    by one interval where an upload takes longer than one."""
    validate_every: NotNegative = 0
    """Validate every so many checkpoints in a task beside the training; 0: at the end only."""
    max_failures: NotNegative = 3
    """How often a lost worker is replaced before the run fails."""
    controller_failures: NotNegative = 3
    """How often Ray Train may fail to start workers before the run fails."""
    start_timeout_s: Positive = 60.0
    """Seconds to wait for the workers, and for nodes before saying that the cluster is too small:
    at most 10 where no autoscaler brings any, at least 900 where one does."""
    grace_s: NotNegativeFloat = 25.0
    """Seconds that a command told to end (SIGTERM) waits for the checkpoint it then asks for."""
    sampled_placements: NotNegative = 0
    """Exit placements drawn at random in every step, beside all exits together: heads then work
    with whatever exit is recycled from, and any placement can inherit the weights."""
    init_from: str | None = None
    """What to start from: backbone weights (safetensors, ONNX, or .pth read without unpickling),
    or the folder of a tracker or of a run: its whole network, or its first blocks where
    ``model.depth`` is smaller; decisioners, recycling and heads of another kind start anew."""
    initial_share: Annotated[float, Bounds(low=0, below=1)] = 0.0
    """Share of the initial weights that is mixed back into the finished tracker's backbone
    (WiSE-FT), which makes it better on new videos where it was trained on few; 0: none."""
    storage: str = "runs"
    """Folder or URL for checkpoints; shared by all nodes of a cluster."""

    def __post_init__(self) -> None:
        check_bounds(self)
        scheme, separator, rest = self.storage.partition("://")
        require(
            not separator or "?" not in rest,
            f"storage: takes no options behind a question mark, got {self.storage!r}; give "
            f"{scheme}://{rest.partition('?')[0]} and set AWS_ENDPOINT_URL_S3 on every node",
        )
        require(
            0 <= self.min_workers <= self.workers,
            f"min_workers: must lie in [0, workers {self.workers}], got {self.min_workers}",
        )
        for count in range(self.min_workers or self.workers, self.workers + 1):
            require(
                self.batch_size % count == 0,
                f"batch_size: must be a multiple of workers {count}, got {self.batch_size}",
            )
        share = self.batch_size // self.workers
        require(
            1 <= self.grad_accum_steps <= share,
            f"grad_accum_steps: must lie in [1, {share}], a worker's share of a batch, got "
            f"{self.grad_accum_steps}",
        )
        require(
            self.sampled_placements == 0 or (self.parallel == "ddp" and not self.compile),
            "sampled_placements: works with parallel ddp and without compile",
        )
        require(
            not (self.parallel == "fsdp" and self.compile),
            "compile: works with parallel ddp only, got fsdp",
        )
        require(
            not (self.parallel == "fsdp" and self.precision == "fp16"),
            "precision: fp16 works with parallel ddp only, got fsdp; take bf16",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ExperimentConfig:
    """A whole experiment: one recipe file."""

    name: str
    """Name of the run: the folder under ``train.storage`` and the run in MLflow."""
    seed: NotNegative = 0
    """Seed of weights, pairs and augmentation."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The network."""
    loss: LossConfig = field(default_factory=LossConfig)
    """Weights of the losses."""
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    """Self-distillation."""
    data: DataConfig = field(default_factory=DataConfig)
    """Clips, pairs and augmentation."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Training."""
    search: SearchConfig = field(default_factory=SearchConfig)
    """Search."""

    def __post_init__(self) -> None:
        plain = bool(self.name) and all(c.isalnum() or c in "-_." for c in self.name)
        require(
            plain and not self.name.startswith("."),
            f"name: must be letters, digits, '-', '_' or '.', got {self.name!r}",
        )
        check_bounds(self)
        require(
            not self.train.activation_checkpointing or self.model.attention == "joint",
            "train.activation_checkpointing: works with model.attention joint only, got "
            f"{self.model.attention}",
        )
        require(
            self.data.pairs_per_epoch >= self.train.batch_size,
            f"data.pairs_per_epoch: must be at least train.batch_size {self.train.batch_size}, "
            f"got {self.data.pairs_per_epoch}",
        )
