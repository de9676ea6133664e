"""Every key that a recipe may have, with type, default, bounds and meaning, read from the schema.

The reference page, ``dytrack config init`` and the tests take them from here, so that none of them
can say something that the schema does not.
"""

import ast
import inspect
import textwrap
import types
import typing
from collections.abc import Iterator
from dataclasses import MISSING, Field, asdict, dataclass, fields, is_dataclass
from functools import lru_cache
from typing import Annotated, Literal, get_args, get_origin, get_type_hints

from dytrack_model.config import bounds_of
from dytrack_platform.config.schema import ExperimentConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """One key of a recipe."""

    name: str
    """Dotted; ``[]`` after a list's, ``KEY`` for names that the recipe chooses."""
    type: str
    """What it holds, in words; empty for one that has keys below it."""
    default: object
    """Its default as plain JSON types; :data:`REQUIRED` where there is none."""
    bounds: str
    """What the sentence "must ..." ends with; empty where the type says everything."""
    meaning: str
    """Its docstring on one line."""

    @property
    def section(self) -> bool:
        """Whether it has keys below it."""
        return not self.type


REQUIRED = "required"
"""Stands for the default of a key that a recipe must have."""


def keys() -> list[Key]:
    """Return every key in the schema's order, a section before its keys."""
    return list(_below(ExperimentConfig, ""))


def _below(owner: type, prefix: str) -> Iterator[Key]:
    hints = get_type_hints(owner, include_extras=True)
    told = docstrings(owner)
    for one in fields(owner):
        hint = _bare(hints[one.name])
        name, inner = f"{prefix}{one.name}", _schema(hint)
        bounds = bounds_of(owner).get(one.name)
        yield Key(
            name=name,
            type="" if inner is not None else _in_words(hint),
            default=_default(one),
            bounds=str(bounds) if bounds else "",
            meaning=told.get(one.name, ""),
        )
        if inner is not None:
            yield from _below(inner, f"{name}{_step(hint)}.")


def _step(hint: object) -> str:
    """Return what stands between a section's name and its keys' names."""
    origin = get_origin(hint)
    return "[]" if origin is tuple else ".KEY" if origin is dict else ""


def _schema(hint: object) -> type | None:
    """Return the dataclass that a key holds, holds a list of, or holds by name."""
    for part in (hint, *get_args(hint)):
        if isinstance(part, type) and is_dataclass(part):
            return part
    return None


def _bare(hint: object) -> object:
    """Take the bounds off."""
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


_WORDS = {int: "whole number", float: "number", str: "text", bool: "true or false"}


def _in_words(hint: object) -> str:
    """Say a type as a person who writes YAML knows it."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " or ".join(str(value) for value in inner)
    if origin in (typing.Union, types.UnionType):
        said = [_in_words(part) for part in inner if part is not type(None)]
        return " or ".join(said) + (" or null" if type(None) in inner else "")
    if origin is tuple:
        if Ellipsis in inner:
            return f"list of {_in_words(inner[0])}"
        return f"list of {len(inner)}: " + ", ".join(_in_words(part) for part in inner)
    return _WORDS.get(hint, "anything") if isinstance(hint, type) else "anything"


def _default(one: "Field[object]") -> object:
    if one.default is not MISSING:
        return list(one.default) if isinstance(one.default, tuple) else one.default
    if one.default_factory is not MISSING:
        made = one.default_factory()
        return asdict(made) if is_dataclass(made) and not isinstance(made, type) else made
    return REQUIRED


@lru_cache
def docstrings(owner: type) -> dict[str, str]:
    """Return the string under each field of a class, on one line."""
    body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
    assert isinstance(body, ast.ClassDef)  # the source of a class
    found = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            found[field.target.id] = " ".join(str(text.value.value).split())
    return found
