"""Recipes: read YAML, set dotted keys, validate against the schema, write it back."""

import json
import math
import typing
from collections.abc import Collection, Mapping
from dataclasses import asdict, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from dytrack_model.config import VARIANTS, ModelConfig, refuse_renamed, require
from dytrack_platform.config.schema import ExperimentConfig
from dytrack_platform.config.search import flatten_space
from dytrack_platform.config.yaml_text import parse_yaml, read_yaml
from dytrack_platform.errors import ConfigurationError

RENAMED = {
    "data.draws_per_row": "data.pairs_per_clip",
    "data.grey": "data.grayscale_prob",
    "train.accumulate": "train.grad_accum_steps",
    "train.clip_norm": "train.max_grad_norm",
    "train.drop_at": "train.lr_drop_at",
    "train.initial": "train.init_from",
    "train.keep": "train.keep_checkpoints",
    "train.pictures": "train.sample_images",
    "search.concurrent": "search.max_concurrent",
    "search.exits": "search.space",
    "search.recycling": "search.space",
    "search.distillation": "search.space",
}
"""Keys of older recipes; a recipe that has one is refused with the new name."""

_ADAPTER: TypeAdapter[ExperimentConfig] = TypeAdapter(ExperimentConfig)


def dotted(values: Mapping[str, Any], key: str, value: object) -> dict[str, Any]:
    """Return a copy of nested ``values`` with the dotted ``key`` set.

    Raises:
        ConfigurationError: A part of the path is not a mapping.
    """
    head, _, rest = key.partition(".")
    result = dict(values)
    if not rest:
        result[head] = value
        return result
    inner = result.get(head, {})
    require(isinstance(inner, Mapping), f"{key}: {head!r} has no keys below it")
    result[head] = dotted(inner, rest, value)
    return result


def parse_override(text: str) -> tuple[str, Any]:
    """Split ``key=value``; the value is read as YAML, so lists and numbers work.

    Raises:
        ConfigurationError: There is no ``=`` or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    require(bool(equals and key), f"--set {text}: expected KEY=VALUE, as in train.epochs=3")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{key}: {value!r} is not a YAML value") from error
    return key.strip(), parsed


def resolve(
    values: Mapping[str, Any], overrides: Mapping[str, Any] | None = None
) -> ExperimentConfig:
    """Validate a nested mapping, after setting dotted keys.

    ``model.variant`` brings that preset's values, ``model.backbone`` the shape of that timm model;
    the other keys of ``model`` change them.

    Raises:
        ConfigurationError: The first mistake, as ``dotted.key: what was expected, got what``.
    """
    merged: dict[str, Any] = dict(values)
    for key, value in (overrides or {}).items():
        merged = dotted(merged, key, value)
    model = merged.get("model", {})
    require(isinstance(model, Mapping), f"model: must be a mapping, got {model!r}")
    preset = model.get("variant", "tiny")
    require(
        isinstance(preset, str) and preset in VARIANTS,
        f"model.variant: must be one of {', '.join(VARIANTS)}, got {preset!r}",
    )
    search = merged.get("search")
    if isinstance(search, Mapping) and "space" in search:
        merged["search"] = {**search, "space": flatten_space(search["space"])}
    _refuse_unknown(ExperimentConfig, merged, "")
    merged["model"] = _complete(VARIANTS[preset], model)
    try:
        return _ADAPTER.validate_python(typed(merged, ExperimentConfig, ""))
    except ValidationError as error:
        raise ConfigurationError(_first_mistake(error)) from None


def _complete(preset: ModelConfig, model: Mapping[str, Any]) -> dict[str, Any]:
    """Add what the preset and the named backbone say to the keys that are given."""
    given = {**preset.to_dict(), **model}
    try:
        refuse_renamed(given["iou_token"])
        if "backbone" not in model or set(given) == set(model):
            return given
        # Only a named backbone needs timm, and so torch: seconds that no other command waits for.
        from dytrack_model.vit import timm_vit

        return timm_vit.complete(preset, model)
    except ConfigurationError as error:
        raise ConfigurationError(f"model.{error}") from None


def load(path: str | Path, overrides: Mapping[str, Any] | None = None) -> ExperimentConfig:
    """Read a recipe.

    Raises:
        ConfigurationError: The file is missing, is not YAML, or holds a mistake.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigurationError(f"{path}: no such recipe; give a YAML file")
    values = read_yaml(path)
    if not isinstance(values, Mapping):
        raise ConfigurationError(f"{path}: must hold keys and values, got {values!r:.60}")
    for key, value in values.items():
        require(value is not None, f"{path}: {key}: has no keys; fill it or leave it out")
    return resolve(values, overrides)


def parse_text(text: str, name: str) -> ExperimentConfig:
    """Read a recipe from a text; ``name`` says where it is from.

    Raises:
        ConfigurationError: It is not YAML, or holds a mistake.
    """
    values = parse_yaml(text, name)
    require(isinstance(values, Mapping), f"{name}: must hold keys and values")
    assert isinstance(values, Mapping)  # just required
    return resolve(values)


def to_dict(config: ExperimentConfig) -> dict[str, Any]:
    """Return the configuration as plain JSON types."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return plain


def dump(config: ExperimentConfig) -> str:
    """Return the configuration as YAML that :func:`load` reads back."""
    return yaml.safe_dump(to_dict(config), sort_keys=False)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as dotted keys (for MLflow parameters)."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def require_same(before: Mapping[str, Any], config: ExperimentConfig, location: str) -> None:
    """Refuse to go on with a run under another configuration.

    Args:
        before: What :func:`to_dict` gave when the run began.
        config: What it is now.
        location: The run's folder, for the message.

    Raises:
        ConfigurationError: A value differs.
    """
    old, new = flatten(before), flatten(to_dict(config))
    changed = sorted(key for key in old | new if old.get(key) != new.get(key))
    if changed:
        key = changed[0]
        raise ConfigurationError(
            f"name: {location} holds a run of another configuration ({key} was "
            f"{old.get(key)!r}, is {new.get(key)!r}; {len(changed)} in all): "
            "choose another name, or remove that folder"
        )


def typed(value: object, hint: object, path: str = "") -> object:
    """Read values as the schema's types, where YAML leaves it open what they are.

    YAML 1.1 takes ``1e-4`` for a string, for want of a point, and ``yes`` for a truth value. Lists
    become tuples.

    Raises:
        ConfigurationError: A number is not finite, a truth value stands for a number, or something
            else for a text.
    """
    inner = typing.get_origin(hint)
    options = get_args(hint)
    if inner is Annotated:
        return typed(value, options[0], path)
    if isinstance(value, Mapping):
        known = get_type_hints(hint, include_extras=True) if _is_schema(hint) else {}
        if inner is dict:
            options = options[1:]  # of its values
        return {
            key: typed(one, known.get(key, _one_of(options)), f"{path}.{key}".lstrip("."))
            for key, one in value.items()
        }
    if isinstance(value, list | tuple):
        return tuple(
            typed(one, _one_of(options, position), f"{path}.{position}")
            for position, one in enumerate(value)
        )
    return _plain(value, {hint, *options}, path)


def _is_schema(hint: object) -> bool:
    return isinstance(hint, type) and is_dataclass(hint)


def _one_of(options: tuple[object, ...], position: int = 0) -> object:
    """Return the type of a member of a tuple or of an optional part; Any where it is not said."""
    inner = [option for option in options if option not in (Ellipsis, type(None))]
    if len(inner) == 1:
        return inner[0]
    return inner[position] if position < len(inner) else Any


def _plain(value: object, kinds: set[object], path: str) -> object:
    """Check a single value against the kinds that its field may have."""
    wants_number = bool(kinds & {int, float})
    if isinstance(value, str) and str not in kinds and (wants_number or Any in kinds):
        try:
            value = float(value) if "e" in value.lower() else value
        except ValueError:
            return value
    if isinstance(value, bool) and wants_number and bool not in kinds:
        raise ConfigurationError(f"{path}: must be a number, got {str(value).lower()}")
    if isinstance(value, int | float) and kinds - {type(None)} == {str}:
        raise ConfigurationError(
            f"{path}: must be text, got {value!r}; put it in quotes, as in '{value}'"
        )
    require(
        not isinstance(value, float) or math.isfinite(value),
        f"{path}: must be a finite number, got {value}",
    )
    return value


def _refuse_unknown(owner: type, values: object, prefix: str) -> None:
    """Refuse a key that no field has, and name the field that was probably meant."""
    items = values if isinstance(values, list | tuple) else (values,)
    if not is_dataclass(owner):
        return
    hints = get_type_hints(owner)
    known = {f.name: hints[f.name] for f in fields(owner)}
    for item in items:
        if not isinstance(item, Mapping):
            continue
        for key, inner in item.items():
            _require_known(key, known, prefix)
            if get_origin(known[key]) is dict:  # its keys are the recipe's own
                if isinstance(inner, Mapping):
                    for name, one in inner.items():
                        _refuse_unknown(get_args(known[key])[1], one, f"{prefix}{key}.{name}.")
                continue
            for part in (known[key], *get_args(known[key])):
                if isinstance(part, type) and is_dataclass(part):
                    _refuse_unknown(part, inner, f"{prefix}{key}.")


def _require_known(key: object, known: Collection[str], prefix: str) -> None:
    renamed = RENAMED.get(f"{prefix}{key}")
    require(renamed is None, f"{prefix}{key}: is now called {renamed}")
    if key not in known:  # comparing it with all others takes a while
        near = get_close_matches(str(key), known, n=1)
        hint = f"did you mean {prefix}{near[0]}?" if near else f"known: {', '.join(known)}"
        raise ConfigurationError(f"{prefix}{key}: no such key; {hint}")


def _first_mistake(error: ValidationError) -> str:
    """Turn pydantic's first mistake into ``dotted.key: what was expected, got what``."""
    first = error.errors(include_url=False)[0]
    path = ".".join(str(part) for part in first["loc"])
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, ConfigurationError):
        return f"{path}.{cause}" if path else str(cause)
    if first["type"] == "missing":
        return f"{path}: is required"
    message = first["msg"][:1].lower() + first["msg"][1:]
    return f"{path}: {message}, got {first['input']!r:.80}"
