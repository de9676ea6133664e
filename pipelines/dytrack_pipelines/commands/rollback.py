"""Undo the last promotion: ``dytrack rollback --name dytrack``.

Moves ``champion``, or another alias, back to the version that had it before, and writes that down
too; run it again to go back further. Servers that follow the alias load the earlier version within
seconds.
"""

from typing import Annotated

import typer

from dytrack_pipelines.terminal import screen


def rollback(
    name: Annotated[str, typer.Option(help="Name of the registered model.")] = "dytrack",
    alias: Annotated[str, typer.Option(help="Alias to move back.")] = "champion",
    why: Annotated[str, typer.Option(help="Why, for the journal.")] = "rolled back by hand",
) -> None:
    """Move an alias back to the version that had it before."""
    from dytrack_platform.experiment.registry import promotion

    back = promotion.rollback(name, alias, why)
    screen.say(f"{alias} of {name} moved back from version {back.before} to version {back.after}")
