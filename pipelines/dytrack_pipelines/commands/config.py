"""Look at recipes before they cost anything: ``dytrack config show | diff | init``.

    dytrack config init mine.yaml
    dytrack config show mine.yaml --set train.epochs=3
    dytrack config diff tiny small

Takes a second; nothing but the file that ``init`` is told to write is written.
"""

import json
from pathlib import Path
from typing import Annotated

import typer

from dytrack_pipelines import recipes
from dytrack_pipelines.terminal import screen
from dytrack_pipelines.terminal.options import AsJson, Overrides, Recipe

config_app = typer.Typer(
    help="Show recipes as they are resolved, compare two, begin a new one.", no_args_is_help=True
)


@config_app.command()
def show(
    recipe: Recipe,
    overrides: Overrides = [],  # noqa: B006  (typer copies it)
    as_json: AsJson = False,
) -> None:
    """Print a recipe with every default filled in, as YAML that trains the same."""
    from dytrack_platform.config import dump, load, parse_override, to_dict

    config = load(recipes.find(recipe), dict(parse_override(text) for text in overrides))
    if as_json:
        screen.json(to_dict(config))
    else:
        screen.raw(dump(config))


@config_app.command()
def diff(
    first: Annotated[str, typer.Argument(help="A recipe's file or name.")],
    second: Annotated[str, typer.Argument(help="Another one.")],
    overrides: Overrides = [],  # noqa: B006  (typer copies it)
    as_json: AsJson = False,
) -> None:
    """List the keys in which two recipes differ once resolved; --set changes the second one."""
    from dytrack_platform.config import flatten, load, parse_override, to_dict

    changes = dict(parse_override(text) for text in overrides)
    before = flatten(to_dict(load(recipes.find(first))))
    after = flatten(to_dict(load(recipes.find(second), changes)))
    keys = [key for key in before | after if before.get(key) != after.get(key)]
    if as_json:
        screen.json({key: [before.get(key), after.get(key)] for key in keys})
        return
    if not keys:
        screen.say(f"{first} and {second} come to the same")
        return
    rows = [[key, _short(before.get(key)), _short(after.get(key))] for key in keys]
    screen.table(f"{len(keys)} keys differ", ["key", first, second], rows)


@config_app.command()
def init(
    out: Annotated[Path, typer.Argument(help="File to write; its name names the run.")],
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a commented recipe with every key, its default and its meaning."""
    from dytrack_platform.config import parse_text
    from dytrack_platform.config.beginning import write_recipe
    from dytrack_platform.errors import ConfigurationError, StorageError

    if out.exists() and not force:
        raise ConfigurationError(f"{out}: is there already; choose another name, or add --force")
    text = write_recipe(out.stem)
    parse_text(text, str(out))  # a name that no run can have is refused here
    beside = out.with_name(f".{out.name}.unfinished")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8")
        beside.replace(out)
    except OSError as error:
        raise StorageError(
            f"{out}: cannot be written ({error.strerror}); choose another folder"
        ) from error
    screen.say(f"wrote {out}; dytrack train {out} trains it once data.train names prepared clips")


def _short(value: object) -> str:
    text = "" if value is None else json.dumps(value)
    return text if len(text) <= 48 else f"{text[:45]}..."
