"""Publish a tracker: everything is checked first, then one version is made, whole.

The version is an MLflow pyfunc as models-from-code. Its code, its requirements and its card travel
with it, so that it loads on a machine that has neither this repository nor dytrack installed.
"""

import io
import re
import shutil
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

from dytrack_platform.experiment.runs import provenance, tracking  # sets MLflow's environment first

import mlflow  # isort: skip
import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec

import dytrack_model
from dytrack_model import checkpoint
from dytrack_model.folders import SHIPPED
from dytrack_model.policy import FULL
from dytrack_platform.errors import ConfigurationError, StorageError, first_line
from dytrack_platform.experiment.registry import card as cards

ARTIFACT = "tracker"
CANDIDATE = "candidate"
"""Alias of the newest published version."""
CHAMPION = "champion"
"""Alias of the version that is used; only a promotion moves it."""
_CODE = Path(__file__).with_name("pyfunc_model.py")
_NEEDS = ("torch", "timm", "torchvision", "numpy", "opencv-python-headless", "safetensors")
"""What the tracker's code imports."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Version:
    """A published version."""

    name: str
    version: int
    aliases: tuple[str, ...]
    run_id: str
    """The publishing's own run."""

    @property
    def uri(self) -> str:
        """How other commands name it."""
        return f"models:/{self.name}/{self.version}"


def is_alias(name: str) -> bool:
    """Say whether the registry takes a name as an alias; a point's name may be none."""
    taken = name.lower() == "latest" or re.fullmatch(r"[vV]\d+", name)
    return not taken and re.fullmatch(r"[A-Za-z0-9_\-]{1,255}", name) is not None


def _key(name: str) -> str:
    """Return a name as MLflow takes it for a metric or a tag: ``at-0.6,0.8`` has a comma."""
    return re.sub(r"[^\w. /:-]", "_", name, flags=re.ASCII)


def check_names(name: str, aliases: Sequence[str]) -> None:
    """Refuse names that the registry would refuse, or that would lead around the gate.

    Raises:
        ConfigurationError: The model's name or an alias cannot be used.
    """
    if not name or re.search(r"[/:.%\"'\s]", name):
        raise ConfigurationError(
            f"--name {name!r}: a model's name is one word without / : . % and quotes"
        )
    for alias in aliases:
        if alias == CHAMPION:
            raise ConfigurationError(
                f"--alias {alias}: this alias moves through the gate: give --promote"
            )
        if not is_alias(alias):
            raise ConfigurationError(
                f"--alias {alias!r}: an alias has letters, digits, - and _ only, and the registry "
                "keeps names such as latest and v3 for itself; choose another"
            )


def publish(
    tracker: Path,
    name: str,
    *,
    aliases: Sequence[str] = (),
    evaluation: Path | None = None,
    lineage: Mapping[str, str] | None = None,
    threads: int = 1,
) -> Version:
    """Register a tracker as the next version of a model.

    The publishing has a run of its own; runs of training and search are named in its tags and are
    not touched. ``candidate`` moves to the version, and the aliases that are given.

    Args:
        tracker: Folder of the tracker.
        name: Name of the registered model.
        aliases: Further aliases to move.
        evaluation: Folder of the tracker's evaluation, whose scores go with it.
        lineage: Where the tracker came from: plain words by name.
        threads: Threads that the network runs with, told on the card.

    Raises:
        CheckpointError: The folder holds no whole tracker.
        ConfigurationError: A name cannot be used.
        DataError: The evaluation is none, or another tracker's.
        AccessError: The store does not answer, or refuses who asks.
        StorageError: It fails.
    """
    # Whatever can be wrong is found here, before anything is made or sent.
    check_names(name, aliases)
    saved = checkpoint.load(tracker)
    summary = cards.read_summary(evaluation, tracker) if evaluation else {}
    tracking.connect()
    known = {**_notes(saved.notes), **provenance.code(), **(lineage or {})}
    card = cards.make_card(saved, summary, known, threads)
    try:
        with TemporaryDirectory(prefix="dytrack-") as folder, warnings.catch_warnings():
            # MLflow asks for its own kinds of type hints; the signature says more.
            warnings.simplefilter("ignore", UserWarning)
            path = Path(folder) / cards.FILE
            card.write(path)
            with tracking.run(f"publish {name}", kind="publish") as run:
                for key, value in known.items():
                    run.tag(f"lineage.{key}", str(value))
                with redirect_stderr(io.StringIO()):  # MLflow tells there what we tell ourselves
                    logged = mlflow.pyfunc.log_model(
                        name=ARTIFACT,
                        python_model=str(_CODE),
                        artifacts={ARTIFACT: str(tracker), "card": str(path)},
                        code_paths=[str(_code_beside(Path(folder)))],
                        signature=signature(),
                        input_example=example(),
                        pip_requirements=requirements(),
                        registered_model_name=name,
                    )
                run.metrics(_metrics(card), 0)
            version = int(logged.registered_model_version)
            client = mlflow.MlflowClient()
            for key, value in _facts(card).items():
                client.set_model_version_tag(name, str(version), key, value)
            # Aliases move last: whoever follows one never sees a version without its facts.
            moved = (CANDIDATE, *(alias for alias in aliases if alias != CANDIDATE))
            for alias in moved:
                client.set_registered_model_alias(name, alias, str(version))
    except (MlflowException, OSError) as error:
        reason = first_line(error)[:300]
        raise StorageError(f"model {name!r} cannot be published: {reason}") from error
    return Version(name=name, version=version, aliases=moved, run_id=str(logged.run_id))


def requirements() -> list[str]:
    """Pin what the tracker's code needs to what is installed here."""
    pins = [f"mlflow=={metadata.version('mlflow')}"]
    for name in _NEEDS:
        try:
            # A local part such as +cpu names a build that an index may not have.
            pins.append(f"{name}=={metadata.version(name).partition('+')[0]}")
        except metadata.PackageNotFoundError:
            continue
    return pins


def signature() -> ModelSignature:
    """Frames (N, H, W, 3) and the first box in, boxes with exit and predicted IoU out."""
    inputs = Schema(
        [
            TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3), "frames"),
            TensorSpec(np.dtype(np.float64), (-1, 4), "box"),
        ]
    )
    outputs = Schema(
        [
            TensorSpec(np.dtype(np.float64), (-1, 4), "boxes"),
            TensorSpec(np.dtype(np.int64), (-1,), "exits"),
            TensorSpec(np.dtype(np.float64), (-1,), "predicted_ious"),
        ]
    )
    chosen = ParamSchema(
        [ParamSpec("point", "string", ""), ParamSpec("runtime", "string", "torch")]
    )
    return ModelSignature(inputs=inputs, outputs=outputs, params=chosen)


def example() -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Two small frames and a box, and the parameters."""
    frames = np.zeros((2, 32, 32, 3), dtype=np.uint8)
    frames[:, 8:24, 8:24] = 255
    return {"frames": frames, "box": np.array([[8.0, 8.0, 16.0, 16.0]])}, {
        "point": FULL,
        "runtime": "torch",
    }


def _code_beside(folder: Path) -> Path:
    """Copy the tracker's package without the weights that come with it."""
    source = Path(dytrack_model.__file__).parent
    return Path(
        shutil.copytree(
            source,
            folder / source.name,
            ignore=shutil.ignore_patterns(
                "__pycache__", *(folder.name for folder in SHIPPED.values())
            ),
        )
    )


def _notes(notes: Mapping[str, object]) -> dict[str, str]:
    """Keep the plain facts among a tracker's notes."""
    return {key: str(value) for key, value in notes.items() if isinstance(value, str | int | float)}


def _metrics(card: cards.Card) -> dict[str, float]:
    found: dict[str, float] = {}
    for row in card.exits:
        found[f"gmacs.exit{row.depth}"] = row.gmacs
        found[f"ms.exit{row.depth}"] = row.milliseconds
    for point in card.points:
        values = {"success_auc": point.success_auc, "ms": point.milliseconds, "gmacs": point.gmacs}
        found |= {_key(f"{key}.{point.name}"): v for key, v in values.items() if v is not None}
    return found


def _facts(card: cards.Card) -> dict[str, str]:
    """Return the card's facts as tags of a version."""
    machine = card.machine
    facts = {
        "exits": ", ".join(str(row.depth) for row in card.exits),
        "gmacs": ", ".join(f"{row.gmacs:.4f}" for row in card.exits),
        "ms": ", ".join(f"{row.milliseconds:.2f}" for row in card.exits),
        "machine": f"{machine.processor}, {machine.threads} threads, {machine.runtime}, "
        f"{machine.precision}",
        "points": ", ".join(row.name for row in card.points),
        "evaluated_on": card.dataset,
        "protocol": card.protocol,
        "data": card.data,
        **{f"lineage.{key}": value for key, value in card.lineage.items()},
    }
    for point in card.points:
        if point.success_auc is not None:
            facts[_key(f"success_auc.{point.name}")] = f"{point.success_auc:.4f}"
    return {key: value for key, value in facts.items() if value}
