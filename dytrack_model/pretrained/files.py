"""Read named tensors from files that others wrote: safetensors, ``.pth``, ONNX.

No code in a file is ever run. A ``.pth`` goes through torch's restricted reader; the training
frameworks of the tracking field put objects of their own beside the tensors, and those become
empty stand-ins of ours.
"""

import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dytrack_model.errors import CheckpointError, RuntimeMissingError


class _Stranger:
    """Stands where a file holds an object of its author's program; it takes and keeps nothing."""

    def __new__(cls, *_: object) -> "_Stranger":
        return super().__new__(cls)

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


_STRANGERS: tuple[tuple[type, str], ...] = (
    # What pytracking's descendants (OSTrack, MixFormer, SeqTrack and so on) save beside "net".
    *(
        (_Stranger, f"{package}.admin.{name}")
        for package in ("lib.train", "ltr")
        for name in (
            "settings.Settings",
            "local.EnvironmentSettings",
            "stats.AverageMeter",
            "stats.StatValue",
        )
    ),
    (OrderedDict, "easydict.EasyDict"),
    (_Stranger, "argparse.Namespace"),
    (_Stranger, "numpy.core.multiarray.scalar"),
    (_Stranger, "numpy._core.multiarray.scalar"),
    (_Stranger, "numpy.dtype"),
)
_NESTED = ("net", "model", "state_dict", "module", "teacher")
"""Keys under which trainers keep the network; where several stand, the first one counts."""
_ANCHOR = "patch_embed.proj.weight"
"""A tensor of every plain vision transformer: what stands before it is a wrapper's prefix."""
_SIGNS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file that it stands for: fetch that"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
    (b"BZh", "a bzip2 archive: unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive: unpack it first"),
    (b"\x89HDF", "an HDF5 file of another framework"),
    (b"\x93NUMPY", "a NumPy array, not named tensors"),
    (b"%PDF", "a PDF document"),
)
"""How files begin that are often taken for weights."""


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read the named tensors of a file.

    What a file is, its content says: safetensors, ONNX, or torch's own format (``.pth``, ``.pt``,
    ``.pth.tar``), whose tensors may lie at its top or under ``net``, ``model``, ``state_dict``,
    ``module`` or ``teacher``. A prefix that wrappers put before the names of a vision transformer
    (``module.``, ``_orig_mod.``, ``teacher.backbone.``) is taken off.

    Raises:
        CheckpointError: The file is missing, damaged, no weights at all, holds objects that are not
            known to be harmless, or tensors that are quantised or not finite.
        RuntimeMissingError: It is an ONNX file, and the package ``onnx`` is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weights file")
    kind = _kind(path)
    if kind == "safetensors":
        try:
            tensors = load_file(path)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: damaged safetensors file: {error}") from error
    else:
        tensors = _from_onnx(path) if kind == "onnx" else _from_torch(path)
    return _checked(_without_prefix(tensors), path)


def _kind(path: Path) -> str:
    """Tell a file's format by its first bytes, and what it is instead of weights."""
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    if not start:
        raise CheckpointError(f"{path}: is empty; the download did not end")
    for sign, what in _SIGNS:
        if start.startswith(sign):
            raise CheckpointError(f"{path}: is {what}")
    if start.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise CheckpointError(
            f"{path}: is a web page, not weights: the download wants a sign-in or another address"
        )
    # safetensors: the length of a JSON header in eight bytes, then the header.
    if len(start) > 8 and start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 1 << 27:
        return "safetensors"
    # A zip archive and a pickle are torch's; what is left is believed by its name.
    if start.startswith((b"PK\x03\x04", b"\x80")):
        return "torch"
    return {".safetensors": "safetensors", ".onnx": "onnx"}.get(path.suffix, "torch")


def _without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take off what a wrapper put before the names, and leave out what stands beside it."""
    anchors = [name for name in tensors if name.endswith(_ANCHOR)]
    prefixes = sorted({name.removesuffix(_ANCHOR) for name in anchors}, key=len)
    if not prefixes or prefixes[0] == "":
        return tensors
    # OSTrack keeps its backbone under a name of its own, which its importer reads.
    if prefixes == ["backbone."] and any(name.startswith("box_head.") for name in tensors):
        return tensors
    chosen = next((p for p in prefixes if "teacher" in p), prefixes[0])
    return {
        name.removeprefix(chosen): value
        for name, value in tensors.items()
        if name.startswith(chosen)
    }


def _checked(tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    for name, value in tensors.items():
        if value.is_quantized:
            raise CheckpointError(f"{path}: {name} is quantised; give the weights before that")
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise CheckpointError(f"{path}: {name} holds NaN or infinity: that training diverged")
    return tensors


def _from_torch(path: Path) -> dict[str, Tensor]:
    try:
        # A file, not its name: torch has its own idea of what a suffix means.
        with torch.serialization.safe_globals(list(_STRANGERS)), path.open("rb") as file:
            content: Any = torch.load(file, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # a damaged pickle ends in any error there is
        foreign = re.search(r"GLOBAL (\S+) was not an allowed", str(error))
        # torch's own text would go on to advise to allow code.
        reason = f"a {foreign[1]}" if foreign else type(error).__name__
        raise CheckpointError(
            f"{path}: damaged, or holds more than tensors: {reason}; weights are safetensors, "
            "ONNX, or a .pth of named tensors"
        ) from error
    for key in _NESTED:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise CheckpointError(f"{path}: holds no plain dictionary of tensors")
    return dict(content)


def _from_onnx(path: Path) -> dict[str, Tensor]:
    """Name the initialisers of a graph as the module that was exported had them.

    torch's exporter keeps the name of a parameter that it passes on as it is, and gives an
    anonymous one (``onnx::MatMul_17``) to one that it folded: the transposed weight of a linear
    layer, whose node still says where it stood (``/encoder/layer.0/mlp/fc1/MatMul``), and the two
    parts of a position embedding, which go to a Concat and a Reshape of the embedding module.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
        from onnx import numpy_helper
    except ModuleNotFoundError as error:
        raise RuntimeMissingError(
            f"{path}: reading weights out of an ONNX file needs the package onnx, which is not "
            "installed here: pip install 'dytrack[export]'"
        ) from error
    try:
        # What lies in other files is not followed: a weights file is one file.
        graph = onnx.load(path, load_external_data=False).graph
        values = {i.name: i for i in graph.initializer if i.data_location != i.EXTERNAL}
        arrays = {name: numpy_helper.to_array(value) for name, value in values.items()}
    except (DecodeError, OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: damaged ONNX file: {error}") from error
    tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    named = {name: value for name, value in tensors.items() if not name.startswith("onnx::")}
    positions: dict[str, dict[str, Tensor]] = {}
    for node in graph.node:
        module = node.name.strip("/").rpartition("/")[0].replace("/", ".")
        for name in node.input:
            value = tensors.get(name)
            if value is None or name in named:
                continue
            if node.op_type == "MatMul" and value.ndim == 2:
                named[f"{module}.weight"] = value.T.contiguous()
            elif node.op_type in ("Concat", "Reshape") and value.ndim == 3:
                positions.setdefault(module, {})[node.op_type] = value
            else:
                named[name] = value
    for module, parts in positions.items():
        ordered = [parts[kind] for kind in ("Concat", "Reshape") if kind in parts]
        named[f"{module}.position_embeddings"] = torch.cat(ordered, dim=1)
    if not named:
        raise CheckpointError(f"{path}: an ONNX file without weights of its own")
    return named
