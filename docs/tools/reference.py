"""Write the reference pages from the schema and the command line: ``make reference``.

``python docs/tools/reference.py`` writes docs/reference/recipes.md and commands.md; a test holds
them equal to the code.
"""

import json
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from dytrack_pipelines.cli import app
from dytrack_platform.config.keys import REQUIRED, Key, keys

FOLDER = Path(__file__).resolve().parents[1] / "reference"
_MADE = "<!-- made by docs/tools/reference.py; make reference writes it anew -->"


def recipes_page() -> str:
    """Return the page of every recipe key."""
    lines = [
        _MADE,
        "# Recipes: every key",
        "",
        "A recipe is YAML over one checked schema. What it leaves out has the default here;",
        "`dytrack config show RECIPE` prints what it comes to, `dytrack config init FILE`",
        "begins one, and `--set KEY=VALUE` of most commands changes a key by its dotted name.",
        "`[]` stands for a member of a list, `KEY` for a name of the recipe's own. Keys of `model`",
        "take their defaults from `model.variant` and `model.backbone`; here are those of `tiny`.",
    ]
    for key in keys():
        top = key.name.split(".")[0]
        if key.section and key.name == top:
            lines += ["", f"## {top}", "", _plain(key.meaning), *_HEAD]
        elif top == key.name and key.name in ("name",):
            lines += [*_HEAD, _row(key)]
        else:
            lines.append(_row(key))
    return "\n".join(lines) + "\n"


_HEAD = ["", "| key | what |", "|---|---|"]
"""Two columns: a page is read on a telephone too."""


def _row(key: Key) -> str:
    said = ["keys below" if key.section else key.type]
    if key.default == REQUIRED:
        said.append("**required**")
    elif not (key.section and isinstance(key.default, dict)):
        said.append(f"default `{json.dumps(key.default)}`")
    if key.bounds:
        said.append(f"must {key.bounds}")
    return _cells(f"`{key.name}`", f"*{', '.join(said)}.* {_plain(key.meaning)}")


def _cells(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _plain(text: str) -> str:
    return text.replace("``", "`")


def commands_page() -> str:
    """Return the page of every command and option."""
    lines = [
        _MADE,
        "# Commands: every option",
        "",
        "`dytrack COMMAND --help` says the same. `--debug` shows the traceback of an error.",
        "Exit codes: 0 done, 1 a failure of the program or the machine, 2 a mistake in what was",
        "given, 130 Ctrl-C. `NO_COLOR` takes the colours off.",
    ]
    for name, command in sorted(_commands(typer.main.get_command(app), "dytrack")):
        lines += ["", f"## {name}", "", *_described(name, command)]
    return "\n".join(lines) + "\n"


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:  # noqa: ANN401  (typer's own)
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name, command
        return
    for one, child in inner.items():
        yield from _commands(child, f"{name} {one}")


def _described(name: str, command: Any) -> Iterator[str]:  # noqa: ANN401  (typer's own)
    shown = [one for one in command.params if one.name != "help" and not one.hidden]
    arguments = [one for one in shown if one.param_type_name == "argument"]
    words = [one.name.upper() if one.required else f"[{one.name.upper()}]" for one in arguments]
    help_text = " ".join((command.help or "").split("\f")[0].split())
    yield help_text
    yield ""
    yield f"`{' '.join([name, *words])}{' [OPTIONS]' if len(shown) > len(arguments) else ''}`"
    if not shown:
        return
    yield ""
    yield "| option | what |"
    yield "|---|---|"
    for one in shown:
        yield _option(one)


def _option(one: Any) -> str:  # noqa: ANN401  (typer's own)
    argument = one.param_type_name == "argument"
    spelt = one.name.upper() if argument else ", ".join((*one.opts, *one.secondary_opts))
    said = ["" if getattr(one, "is_bool_flag", False) else _takes(one)]
    said.append("repeatable" if one.multiple else "")
    said.append("**required**" if one.required else "")
    nothing = one.default is None or one.default is False or one.default in ("", [], ())
    if not one.required and not nothing:
        said.append(f"default `{one.default}`")
    words = ", ".join(part for part in said if part)
    help_text = " ".join((getattr(one, "help", None) or "").split())
    return _cells(f"`{spelt}`", f"*{words}.* {help_text}" if words else help_text)


def _takes(one: Any) -> str:  # noqa: ANN401  (typer's own)
    """Say what an option takes: its type in words, and its bounds."""
    hint = one.type_descriptor.annotation
    if typing.get_origin(hint) is list:
        hint = typing.get_args(hint)[0]
    words = " or ".join(map(str, typing.get_args(hint))) if _is_literal(hint) else ""
    words = words or _NAMES.get(hint, "text")
    low, high = one.type_descriptor.parameter_info.min, one.type_descriptor.parameter_info.max
    if low is not None:
        words += f" from {low:,}" + ("" if high is None else f" to {high:,}")
    return words


def _is_literal(hint: object) -> bool:
    return typing.get_origin(hint) is typing.Literal


_NAMES: dict[object, str] = {int: "whole number", float: "number", Path: "path", bool: ""}


PAGES = {"recipes.md": recipes_page, "commands.md": commands_page}


def main() -> None:
    """Write every page."""
    FOLDER.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
