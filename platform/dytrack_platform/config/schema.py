"""The schema of an experiment: what a recipe may say, with every value checked where it is made."""

from dataclasses import dataclass, field
from typing import Literal

from dytrack_model.config import DistillationConfig, LossConfig, ModelConfig, require

Precision = Literal["fp32", "bf16", "fp16"]
Parallel = Literal["ddp", "fsdp"]
Schedule = Literal["step", "cosine"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceConfig:
    """One prepared folder of clips and its share of the pairs."""

    path: str
    """Folder or URL that ``dytrack prepare`` wrote."""
    weight: float = 1.0
    """Share of the pairs drawn from it, relative to the other sources."""

    def __post_init__(self) -> None:
        require(bool(self.path), "path: must name a prepared folder, got an empty string")
        require(self.weight > 0, f"weight: must be positive, got {self.weight}")


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Which clips, and how a pair is drawn and augmented (the field's standard recipe)."""

    train: tuple[SourceConfig, ...] = ()
    """Prepared folders to draw training pairs from."""
    validation: tuple[SourceConfig, ...] = ()
    """Prepared folders for validation pairs; empty: a part of the training sequences."""
    validation_share: float = 0.1
    """Share of the training *sequences* kept for validation where ``validation`` is empty."""
    pairs_per_epoch: int = 60_000
    """Training pairs in an epoch."""
    validation_pairs: int = 512
    """Validation pairs, the same ones every time."""
    max_gap: int = 200
    """Largest distance in frames between template and search frame."""
    centre_jitter: float = 3.0
    """Search centre moves by up to half of this times sqrt(w*h)."""
    scale_jitter: float = 0.25
    """Search side is multiplied by exp of a normal number times this."""
    grey: float = 0.05
    """Probability that both crops become grey."""
    flip: float = 0.5
    """Probability that both crops are mirrored."""
    brightness: float = 0.2
    """Each crop's brightness is multiplied by 1 plus or minus up to this."""
    draws_per_row: int = 8
    """Pairs drawn from a clip each time it is read."""
    loader_workers: int = 1
    """Threads of each training worker that decode and crop ahead; 0: none, the step waits."""

    def __post_init__(self) -> None:
        require(
            0 < self.validation_share < 1,
            f"validation_share: must lie in (0, 1), got {self.validation_share}",
        )
        for name in ("pairs_per_epoch", "validation_pairs", "max_gap", "draws_per_row"):
            value = getattr(self, name)
            require(value >= 1, f"{name}: must be at least 1, got {value}")
        for name in ("centre_jitter", "scale_jitter", "brightness", "loader_workers"):
            value = getattr(self, name)
            require(value >= 0, f"{name}: must not be negative, got {value}")
        for name in ("grey", "flip"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"{name}: must lie in [0, 1], got {value}")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Optimiser, schedule, precision, workers and checkpoints."""

    epochs: int = 300
    """Passes of ``data.pairs_per_epoch`` pairs."""
    batch_size: int = 128
    """Pairs in a step over all workers together."""
    workers: int = 1
    """Training processes; each takes an equal part of every batch."""
    min_workers: int = 0
    """Fewest workers to go on with where a node is lost or not there yet; 0: always ``workers``."""
    cpus_per_worker: float = 1.0
    """CPUs that Ray reserves for each worker."""
    gpu: bool = False
    """Give each worker a GPU (NCCL instead of gloo)."""
    head_lr: float = 4e-4
    """Learning rate of heads, decisioners and recycling."""
    backbone_lr: float = 4e-5
    """Learning rate of the transformer."""
    weight_decay: float = 1e-4
    """AdamW weight decay; norms, biases and embeddings are spared."""
    clip_norm: float = 0.1
    """Largest norm of the gradient; 0 leaves it alone."""
    schedule: Schedule = "step"
    """step: times 0.1 at ``drop_at``. cosine: down to zero."""
    drop_at: float = 0.8
    """Fraction of training at which the step schedule drops."""
    warmup: float = 0.0
    """Fraction of training over which the learning rate rises linearly."""
    precision: Precision = "fp32"
    """Arithmetic of the forward pass (autocast); fp16 scales the loss so that gradients live."""
    accumulate: int = 1
    """Parts that a worker cuts its share of a batch into, one after the other, to save memory.
    Batch norm sees the parts, so the result is close to that of 1, not equal."""
    parallel: Parallel = "ddp"
    """ddp: every worker holds everything. fsdp: weights and optimiser are spread (FSDP2)."""
    compile: bool = False
    """Compile the network with ``torch.compile``: a minute at the start, faster steps after."""
    channels_last: bool = False
    """Keep pictures and convolutions in channels-last order."""
    activation_checkpointing: bool = False
    """Compute a block's activations again in the backward pass instead of keeping them."""
    ema: float = 0.0
    """Decay of an average of the weights that validation and the saved tracker use; 0: none."""
    skip_nonfinite: int = 0
    """Batches with a loss or gradient that is not finite that may be left out; then it stops."""
    freeze_backbone: bool = False
    """Train heads, decisioners and recycling only (a second stage, see ``initial``)."""
    report_steps: int = 20
    """Optimiser steps between two points of the curves."""
    pictures: int = 4
    """Validation pairs drawn with the boxes of every exit after each epoch; 0: none."""
    checkpoint_steps: int = 200
    """Optimiser steps between checkpoints; what a crash can cost at most."""
    keep: int = 2
    """Checkpoints kept; at least two, so that a damaged one has a predecessor."""
    async_checkpoints: bool = True
    """Upload checkpoints while training goes on; what a crash can cost stays the same or grows
    by one interval where an upload takes longer than one."""
    validate_every: int = 0
    """Validate every so many checkpoints in a task beside the training; 0: at the end only."""
    max_failures: int = 3
    """How often a lost worker is replaced before the run fails."""
    controller_failures: int = 3
    """How often Ray Train may fail to start workers before the run fails."""
    start_timeout_s: float = 60.0
    """Seconds to wait for nodes and for the workers before saying that the cluster is too
    small."""
    grace_s: float = 25.0
    """Seconds that a command told to end (SIGTERM) waits for the checkpoint it then asks for."""
    initial: str | None = None
    """What to start from: backbone weights (safetensors, ONNX, or .pth read without unpickling),
    or the folder of a tracker or of a run, whose whole network is taken; decisioners and reuse of
    another kind than there start anew."""
    storage: str = "runs"
    """Folder or URL for checkpoints; shared by all nodes of a cluster."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "workers", "checkpoint_steps", "report_steps"):
            value = getattr(self, name)
            require(value >= 1, f"{name}: must be at least 1, got {value}")
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
            1 <= self.accumulate <= share,
            f"accumulate: must lie in [1, {share}], a worker's share of a batch, got "
            f"{self.accumulate}",
        )
        require(0 <= self.ema < 1, f"ema: must lie in [0, 1), got {self.ema}")
        require(
            not (self.parallel == "fsdp" and self.compile),
            "compile: works with parallel ddp only, got fsdp",
        )
        require(
            not (self.parallel == "fsdp" and self.precision == "fp16"),
            "precision: fp16 works with parallel ddp only, got fsdp; take bf16",
        )
        require(self.keep >= 2, f"keep: must be at least 2, got {self.keep}")
        for name in ("head_lr", "backbone_lr", "cpus_per_worker", "start_timeout_s"):
            value = getattr(self, name)
            require(value > 0, f"{name}: must be positive, got {value}")
        for name in (
            "weight_decay",
            "clip_norm",
            "max_failures",
            "controller_failures",
            "skip_nonfinite",
            "validate_every",
            "pictures",
            "grace_s",
        ):
            value = getattr(self, name)
            require(value >= 0, f"{name}: must not be negative, got {value}")
        for name in ("drop_at", "warmup"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"{name}: must lie in [0, 1], got {value}")


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchConfig:
    """What ``dytrack search`` may change, and how long it looks."""

    trials: int = 8
    """Trials in all."""
    concurrent: int = 2
    """Trials at the same time."""
    epochs: int = 1
    """Epochs of a trial."""
    pairs_per_epoch: int = 0
    """Pairs in an epoch of a trial; 0 takes the recipe's ``data.pairs_per_epoch``."""
    exits: tuple[tuple[int, ...], ...] = ()
    """Exit placements to choose from; empty: those of the recipe only."""
    recycling: tuple[str, ...] = ("none", "cascade")
    """Reuse schemas to choose from."""
    distillation: tuple[float, float] = (0.01, 1.0)
    """Range of ``distillation.feature``, searched on a logarithmic scale."""
    seed: int = 0
    """Seed of the sampler."""

    def __post_init__(self) -> None:
        for name in ("trials", "concurrent", "epochs"):
            value = getattr(self, name)
            require(value >= 1, f"{name}: must be at least 1, got {value}")
        require(
            self.pairs_per_epoch >= 0,
            f"pairs_per_epoch: must not be negative, got {self.pairs_per_epoch}",
        )
        low, high = self.distillation
        require(
            0 < low < high,
            f"distillation: must be a rising range of positive numbers, got {self.distillation}",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ExperimentConfig:
    """A whole experiment: one recipe file."""

    name: str
    """Name of the run: the folder under ``train.storage`` and the run in MLflow."""
    seed: int = 0
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
        require(self.seed >= 0, f"seed: must not be negative, got {self.seed}")
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
