"""Import timm beside any torchvision, and without torch's compiler.

PyPI's torchvision is built for CUDA. Beside a CPU build of torch its compiled operators do not
load, and its Python side then fails on import with ``operator torchvision::nms does not exist``,
because it registers fake kernels for operators that nobody defined. timm imports torchvision,
though the tracker uses none of its operators. Defining the two missing *schemas* (not kernels)
lets the import succeed; calling them still fails, loudly.

Where torchvision was built for this torch (both for CUDA, or both for the CPU), its own operators
load, and nothing may be defined before them: a second registration of a schema ends the process.
So they are loaded first, and only what is missing then is defined.

For one function of torchvision's and one decorator of timm's, neither of which is ever called here,
their import would take in torch's compiler, which is two seconds of every process that tracks.
:func:`without_compiler` puts it off until somebody uses it.
"""

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

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


_COMPILER, _UTILITIES = "torch._dynamo", "torch._dynamo.utils"
_Function = Callable[..., Any]


class _Later(ModuleType):
    """Stands for a module until somebody wants something of it that it does not have."""

    def __getattr__(self, name: str) -> object:
        # Importing from a module and looking through all of them asks for such names of each.
        if name.startswith("__") and (name, self.__name__) != ("__path__", _COMPILER):
            raise AttributeError(name)
        return getattr(_real(self.__name__), name)


def _real(name: str) -> ModuleType:
    _forget()
    import torch._dynamo.utils  # noqa: F401

    return sys.modules[name]


def _forget() -> None:
    for name in (_COMPILER, _UTILITIES):
        if isinstance(sys.modules.get(name), _Later):
            del sys.modules[name]


def _is_compile_supported(device_type: str) -> bool:
    """Ask torch's own function of that name, which torchvision calls when it runs an operator."""
    return bool(_real(_UTILITIES).is_compile_supported(device_type))


def _disable(function: _Function | None, recursive: bool, *, reason: str | None) -> _Function:
    """Decorate as torch's own does, once the function is called."""
    if function is None:
        return functools.partial(_disable, recursive=recursive, reason=reason)

    @functools.wraps(function)
    def disabled(*words: object, **more: object) -> object:
        own = _real(_COMPILER).disable(function, recursive, reason=reason)
        return own(*words, **more)

    return disabled


@contextmanager
def without_compiler() -> Iterator[None]:
    """Leave torch's compiler for later in the body; whoever needs more of it gets all of it."""
    if _COMPILER not in sys.modules:
        compiler, utilities = _Later(_COMPILER), _Later(_UTILITIES)
        vars(compiler)["disable"] = _disable
        vars(utilities)["is_compile_supported"] = _is_compile_supported
        sys.modules.update({_COMPILER: compiler, _UTILITIES: utilities})
    try:
        yield
    finally:
        _forget()
