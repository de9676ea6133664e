"""Where served models come from: the registry, looked up again and again, or a folder."""

import hashlib
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from dytrack_model import checkpoint
from dytrack_model.folders import SHIPPED
from dytrack_model.runtime import export
from dytrack_model.runtime.engine import Precision
from dytrack_platform.errors import ModelLookupError
from dytrack_platform.experiment.registry import promotion, registry
from dytrack_platform.serving.batching import ServedTracker, open_served
from dytrack_platform.serving.models import Source


def make_source(
    reference: str, runtime: str | None, precision: Precision, device: str, threads: int
) -> Source:
    """Return the source of a reference.

    Args:
        reference: ``models:/NAME@ALIAS``, whose version may change while it is served;
            ``models:/NAME/3``; a tracker's, a run's or an export's folder; or ``reference``.
        runtime: What runs it; torch, or an export's own, where None.
        precision: Of the runtime.
        device: Where PyTorch runs.
        threads: Threads of the network.

    Raises:
        ModelLookupError: The reference leads to nothing.
    """
    opened = partial(_load, runtime=runtime, precision=precision, device=device, threads=threads)
    if not reference.startswith("models:/"):
        folder = Path(reference)
        if not (folder / export.DESCRIPTION).is_file():
            folder = registry.find(reference)
        version = _digest(folder)
        name = reference if reference in SHIPPED else Path(reference).name
        return Source(name, lambda: version, lambda _: opened(folder))
    path = reference.removeprefix("models:/")
    if "@" in path:
        name, _, alias = path.partition("@")

        def look_up() -> str:
            held = promotion.holder(name, alias)
            if held is None:
                raise ModelLookupError(
                    f"{reference}: nobody has this alias; dytrack publish --promote moves champion"
                )
            return str(held)

        return Source(path, look_up, lambda version: _from_registry(name, version, opened))
    name, _, number = path.partition("/")
    return Source(path, lambda: number, lambda version: _from_registry(name, version, opened))


def _from_registry(name: str, version: str, opened: "partial[ServedTracker]") -> ServedTracker:
    with TemporaryDirectory(prefix="dytrack-") as downloads:
        return opened(registry.find(f"models:/{name}/{version}", Path(downloads)))


def _load(
    folder: Path, *, runtime: str | None, precision: Precision, device: str, threads: int
) -> ServedTracker:
    exported = (folder / export.DESCRIPTION).is_file()
    saved = folder if exported else checkpoint.load(folder)
    return open_served(saved, runtime, precision, device, threads=threads)


def _digest(folder: Path) -> str:
    """Name what lies in a folder by its content."""
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix in (".json", ".safetensors", ".onnx", ".xml", ".bin"):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]
