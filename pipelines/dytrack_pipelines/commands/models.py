"""Look at published models, and undo a promotion: ``dytrack models``, ``dytrack rollback``.

``dytrack models --history`` tells who moved which alias when. A rollback moves ``champion``, or
another alias, back to the version that had it before, and writes that down too; run it again to go
back further. Servers that follow the alias load the earlier version within seconds.
"""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from dytrack_pipelines.terminal import screen
from dytrack_pipelines.terminal.options import AsJson


def models(
    name: Annotated[str, typer.Argument(help="Name of the registered model.")] = "dytrack",
    history: Annotated[
        bool, typer.Option("--history", help="Show every move of an alias, oldest first.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List a model's versions with their aliases and scores, or the history of its aliases."""
    from datetime import UTC, datetime

    from dytrack_platform.experiment.registry import promotion

    if as_json:
        screen.json(_history(name) if history else _versions(name))
        return
    if history:
        rows = [
            [
                one.at[:19].replace("T", " "),
                one.kind,
                one.alias,
                f"{one.before or '-'} to {one.after or '-'}",
                one.by,
                one.why,
            ]
            for one in promotion.history(name)
        ]
        screen.table(
            f"moves of {name}'s aliases (UTC)", ["when", "", "alias", "versions", "by", "why"], rows
        )
        return
    aliases = promotion.aliases(name)
    rows = []
    for version in promotion.versions(name):
        made = datetime.fromtimestamp(version.creation_timestamp / 1e3, UTC)
        tags = version.tags
        scores = [
            f"{key.removeprefix('success_auc.')} {value}"
            for key, value in sorted(tags.items())
            if key.startswith("success_auc.")
        ]
        rows.append(
            [
                str(version.version),
                ", ".join(aliases.get(int(version.version), ())),
                f"{made:%Y-%m-%d %H:%M}",
                tags.get("exits", ""),
                tags.get("ms", ""),
                ", ".join(scores),
            ]
        )
    columns = ["version", "", "published (UTC)", "exits", "ms of each exit", "success AUC"]
    screen.table(f"versions of {name}", columns, rows)


def _history(name: str) -> list[dict[str, Any]]:
    from dytrack_platform.experiment.registry import promotion

    return [asdict(one) for one in promotion.history(name)]


def _versions(name: str) -> list[dict[str, Any]]:
    from dytrack_platform.experiment.registry import promotion

    aliases = promotion.aliases(name)
    return [
        {
            "version": int(version.version),
            "aliases": list(aliases.get(int(version.version), ())),
            "published": version.creation_timestamp / 1e3,
            "tags": dict(version.tags),
        }
        for version in promotion.versions(name)
    ]


def rollback(
    name: Annotated[str, typer.Option(help="Name of the registered model.")] = "dytrack",
    alias: Annotated[str, typer.Option(help="Alias to move back.")] = "champion",
    why: Annotated[str, typer.Option(help="Why, for the journal.")] = "rolled back by hand",
    as_json: AsJson = False,
) -> None:
    """Move an alias back to the version that had it before."""
    from dytrack_platform.experiment.registry import promotion

    back = promotion.rollback(name, alias, why)
    screen.say(f"{alias} of {name} moved back from version {back.before} to version {back.after}")
    if as_json:
        screen.json(asdict(back))
