"""Read named tensors from files that others wrote: safetensors, ``.pth``, ONNX.

No code in a file is ever run. A ``.pth`` goes through torch's restricted reader; the training
frameworks of the tracking field put objects of their own beside the tensors, and those become
empty stand-ins of ours.
"""

import re
from collections import OrderedDict
from pathlib import Path
from pickle import UnpicklingError  # noqa: TID251  (only the name of torch's error)
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
    (_Stranger, "numpy.core.multiarray.scalar"),
    (_Stranger, "numpy._core.multiarray.scalar"),
    (_Stranger, "numpy.dtype"),
)
_NESTED = ("net", "model", "state_dict")


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read the named tensors of a file.

    ``.safetensors`` and ``.onnx`` by their suffix, anything else as torch's own format
    (``.pth``, ``.pt``, ``.pth.tar``), whose tensors may lie at its top or under ``net``, ``model``
    or ``state_dict``.

    Raises:
        CheckpointError: The file is missing, damaged, or holds objects that are not known to be
            harmless.
        RuntimeMissingError: It is an ONNX file, and the package ``onnx`` is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weights file")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: damaged safetensors file: {error}") from error
    return _from_onnx(path) if path.suffix == ".onnx" else _from_torch(path)


def _from_torch(path: Path) -> dict[str, Tensor]:
    try:
        with torch.serialization.safe_globals(list(_STRANGERS)):
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, UnpicklingError) as error:
        foreign = re.search(r"GLOBAL (\S+) was not an allowed", str(error))
        reason = f"a {foreign[1]}" if foreign else str(error).splitlines()[0]
        raise CheckpointError(f"{path}: damaged, or holds more than tensors: {reason}") from error
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
