"""The model registry: publish a tracker as a version, find it again by name, alias or path."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from dytrack_platform.experiment.runs import tracking  # sets MLflow's environment first

import mlflow  # isort: skip
import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from dytrack_model import checkpoint
from dytrack_model.cost import exit_gmacs
from dytrack_platform.errors import ModelLookupError, StorageError

_ARTIFACT = "tracker"
_CODE = Path(__file__).with_name("pyfunc_model.py")


@dataclass(frozen=True, kw_only=True, slots=True)
class Version:
    """A published version."""

    name: str
    version: int
    alias: str | None
    run_id: str

    @property
    def uri(self) -> str:
        """How other commands name it."""
        end = f"@{self.alias}" if self.alias else f"/{self.version}"
        return f"models:/{self.name}{end}"


def publish(
    tracker: Path, name: str, *, alias: str | None, run_id: str | None, tags: dict[str, str]
) -> Version:
    """Register a tracker as the next version of a model.

    The version is an MLflow pyfunc (models from code) with the tracker's folder as its artefact
    and a signature of pixels and box, so that MLflow's own tools can load and serve it.

    Args:
        tracker: Folder of the tracker.
        name: Name of the registered model.
        alias: Alias to move to this version, such as ``champion``; ``None`` moves none.
        run_id: The training's run, to hang the model on; ``None`` makes a run for it.
        tags: Facts to keep with the version, such as scores.

    Raises:
        CheckpointError: The folder holds no whole tracker.
        StorageError: The store refuses the name or does not answer.
    """
    saved = checkpoint.load(tracker)
    gmacs = [round(value, 4) for value in exit_gmacs(saved.network)]
    facts = {
        "exits": json.dumps(saved.network.config.exits),
        "gmacs": json.dumps(gmacs),
        "points": json.dumps([point.name for point in saved.points]),
        **tags,
    }
    try:
        with (
            tracking.run(f"publish {name}", run_id=run_id, kind="publish"),
            warnings.catch_warnings(),
        ):
            # MLflow asks for its own kinds of type hints and for an input example; the signature
            # below says more than either.
            warnings.simplefilter("ignore", UserWarning)
            logged = mlflow.pyfunc.log_model(
                name=_ARTIFACT,
                python_model=str(_CODE),
                artifacts={"tracker": str(tracker)},
                signature=_signature(),
                pip_requirements=["dytrack"],
                registered_model_name=name,
            )
        # The alias moves last: whoever follows it never sees a version without its facts.
        version = int(logged.registered_model_version)
        client = mlflow.MlflowClient()
        for key, value in facts.items():
            client.set_model_version_tag(name, str(version), key, value)
        if alias is not None:
            client.set_registered_model_alias(name, alias, str(version))
    except MlflowException as error:
        reason = str(error).splitlines()[0]
        raise StorageError(f"model {name!r} cannot be published: {reason}") from error
    return Version(name=name, version=version, alias=alias, run_id=str(logged.run_id))


def find(reference: str, download_to: Path | None = None) -> Path:
    """Return the folder of a tracker: a path, ``models:/NAME@ALIAS`` or ``models:/NAME/3``.

    Args:
        reference: A tracker's folder, a training run's folder, or a registry name.
        download_to: Where a registry's artefacts go if they are not local already.

    Raises:
        ModelLookupError: The reference leads to nothing.
    """
    if not reference.startswith("models:/"):
        return _on_disk(Path(reference))
    tracking.look()
    try:
        local = mlflow.artifacts.download_artifacts(
            artifact_uri=reference, dst_path=str(download_to) if download_to else None
        )
    except tracking.STORE_ERRORS as error:
        reason = str(error).splitlines()[0]
        if not (tracking.is_absence(error) or isinstance(error, FileNotFoundError)):
            raise StorageError(
                f"{reference}: the store {tracking.uri()} does not give it: {reason}"
            ) from error
        raise ModelLookupError(
            f"{reference}: not in the registry {tracking.uri()}: {reason}; "
            "dytrack publish puts a tracker there"
        ) from error
    found = list(Path(local).rglob(checkpoint.DESCRIPTION))
    if not found:
        raise ModelLookupError(f"{reference}: this model was not made by dytrack publish")
    return found[0].parent


@contextmanager
def located(reference: str) -> Iterator[Path]:
    """Yield the folder of a tracker; what had to be downloaded is removed afterwards.

    Raises:
        ModelLookupError: The reference leads to nothing.
    """
    with TemporaryDirectory(prefix="dytrack-") as name:
        yield find(reference, Path(name))


def load(reference: str) -> checkpoint.SavedTracker:
    """Load a tracker by path or registry name.

    Raises:
        ModelLookupError: The reference leads to nothing.
        CheckpointError: It leads to a damaged tracker.
    """
    with located(reference) as folder:
        return checkpoint.load(folder)


def _on_disk(path: Path) -> Path:
    if str(path) not in checkpoint.SHIPPED and not path.exists():
        raise ModelLookupError(
            f"{path}: no such tracker; give its folder, models:/NAME@ALIAS for a published one, or "
            f"{' or '.join(checkpoint.SHIPPED)} for the one that comes with dytrack"
        )
    return checkpoint.find(path)


def _signature() -> ModelSignature:
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
    return ModelSignature(inputs=inputs, outputs=outputs)
