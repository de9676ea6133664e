"""A recipe to begin with: what must be said stands there, the rest as comments with its meaning."""

import textwrap

import yaml

from dytrack_platform.config.keys import Key, keys

_LINE = 100
_GIVEN: dict[str, str] = {
    "model.variant": "tiny",
    "data.train": "[{path: clips}]",
    "train.workers": "1",
}
"""Keys that a first recipe says, beside its name; all others keep their defaults."""


def write_recipe(name: str) -> str:
    """Return a commented recipe.

    A section that says nothing is a comment as a whole: YAML takes a head without keys for null.

    Args:
        name: Name of the run.
    """
    lines = [
        "# A recipe for dytrack train and dytrack search. To change a key take the # off it and",
        "# off the section above it; dytrack config show FILE says what all of it comes to.",
        "",
        f"name: {name}",
    ]
    known = keys()
    for key in known:
        if "[]" in key.name or ".KEY" in key.name or key.name == "name":
            continue  # of lists and names of the recipe's own: the reference has them
        lines += _lines(key)
    return "\n".join(lines) + "\n"


def _lines(key: Key) -> list[str]:
    *above, name = key.name.split(".")
    indent = "  " * len(above)
    given = _GIVEN.get(key.name)
    if key.section and not above and _has_keys(key):
        mark = "" if any(one.startswith(f"{name}.") for one in _GIVEN) else "#"
        return ["", f"{mark}{name}:  # {key.meaning}"]
    if given is not None:
        return [*_comment(indent, key), f"{indent}{name}: {given}"]
    value = yaml.safe_dump(key.default, default_flow_style=True, width=10_000).strip()
    value = value.removesuffix("...").strip()
    head = "" if key.section and _has_keys(key) else f" {value}"
    return [*_comment(indent, key), f"{indent}#{name}:{head}"]


def _has_keys(key: Key) -> bool:
    """Say whether a section's own keys follow, and not those of a list's members."""
    return isinstance(key.default, dict) and bool(key.default)


def _comment(indent: str, key: Key) -> list[str]:
    said = key.meaning + (f" Must {key.bounds}." if key.bounds else "")
    return [f"{indent}# {line}" for line in textwrap.wrap(said, _LINE - len(indent) - 2)]
