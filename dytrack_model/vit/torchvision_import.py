"""Make torchvision importable beside a torch it was not built for.

PyPI's torchvision is built for CUDA. Beside a CPU build of torch its compiled operators do not
load, and its Python side then fails on import with ``operator torchvision::nms does not exist``,
because it registers fake kernels for operators that nobody defined. timm imports torchvision,
though the tracker uses none of its operators. Defining the two missing *schemas* (not kernels)
lets the import succeed; calling them still fails, loudly.

Where torchvision was built for this torch (both for CUDA, or both for the CPU), its own operators
load, and nothing may be defined before them: a second registration of a schema ends the process.
So they are loaded first, and only what is missing then is defined.
"""

from importlib.util import find_spec
from pathlib import Path

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_OPERATORS = ("nms", "qnms")

# Schemas live as long as the library object that defined them.
_library: torch.library.Library | None = None


def load_own_operators() -> bool:
    """Load torchvision's compiled operators without importing it; say whether that went well.

    Loading them again, as torchvision's import does, has no effect.
    """
    found = find_spec("torchvision")
    loaded = False
    for place in (found.submodule_search_locations or ()) if found else ():
        for library in sorted(Path(place).glob("_C*")):
            if library.suffix not in (".so", ".pyd", ".dylib"):
                continue
            try:
                torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
            except OSError:  # built for another torch, or for CUDA where there is none
                continue
            loaded = True
    return loaded


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
        load_own_operators()
        define_missing(missing_operators())
