"""Make torchvision importable beside a torch it was not built for.

PyPI's torchvision is built for CUDA. Beside a CPU build of torch its compiled operators do not
load, and its Python side then fails on import with ``operator torchvision::nms does not exist``,
because it registers fake kernels for operators that nobody defined. timm imports torchvision,
though the tracker uses none of its operators. Defining the two missing *schemas* (not kernels)
lets the import succeed; calling them still fails, loudly. Where the operators load, as with a
CUDA build of torch, nothing is defined.
"""

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_OPERATORS = ("nms", "qnms")

# Schemas live as long as the library object that defined them.
_library: torch.library.Library | None = None


def missing_operators() -> tuple[str, ...]:
    """Name the operators that torchvision's import needs and nobody has defined."""
    torchvision = torch.ops.torchvision
    return tuple(name for name in _OPERATORS if not hasattr(torchvision, name))


def define_missing(names: tuple[str, ...]) -> None:
    """Define the schemas of ``names`` in the library "torchvision"; nothing for an empty tuple."""
    global _library
    if not names:
        return
    if _library is None:
        _library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in names:
        _library.define(name + _SCHEMA)  # type: ignore[no-untyped-call]


def apply() -> None:
    """Prepare for ``import timm``; safe to call any number of times."""
    if torch.version.cuda is None:
        define_missing(missing_operators())
