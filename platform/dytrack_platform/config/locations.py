"""Every folder and file that a recipe names, by its key.

One list of them, so that what makes paths absolute, what refuses a job the paths of one machine and
what looks whether they are there cannot know different keys.
"""

from collections.abc import Callable
from dataclasses import replace

from dytrack_model.folders import SHIPPED
from dytrack_platform.config.schema import (
    DataConfig,
    ExperimentConfig,
    ResidentSource,
    SourceConfig,
)


def changed(config: ExperimentConfig, change: Callable[[str, str], str]) -> ExperimentConfig:
    """Return a recipe whose locations are others.

    Args:
        config: The recipe.
        change: Returns the new location of a key, from the key and the location. It is asked of
            ``data.root`` only where something lies below it, and not of trackers that come with the
            package, which are where the package is.
    """

    def prepared(key: str, sources: tuple[SourceConfig, ...]) -> tuple[SourceConfig, ...]:
        return tuple(
            replace(source, path=change(f"{key}.{number}.path", source.path))
            for number, source in enumerate(sources)
        )

    def resident(key: str, sources: tuple[ResidentSource, ...]) -> tuple[ResidentSource, ...]:
        return tuple(
            replace(source, root=change(f"{key}.{number}.root", source.root))
            if _stands_alone(source.root)
            else source
            for number, source in enumerate(sources)
        )

    def model(key: str, location: str) -> str:
        return location if location in SHIPPED else change(key, location)

    data, train, distillation = config.data, config.train, config.distillation
    below = [source.root for source in (*data.resident, *data.resident_validation)]
    if not all(map(_stands_alone, below)):
        data = replace(data, root=change("data.root", data.root))
    data = replace(
        data,
        train=prepared("data.train", data.train),
        validation=prepared("data.validation", data.validation),
        resident=resident("data.resident", data.resident),
        resident_validation=resident("data.resident_validation", data.resident_validation),
    )
    if train.init_from is not None:
        train = replace(train, init_from=model("train.init_from", train.init_from))
    if distillation.teacher:
        teacher = model("distillation.teacher", distillation.teacher)
        distillation = replace(distillation, teacher=teacher)
    train = replace(train, storage=change("train.storage", train.storage))
    return replace(config, data=data, train=train, distillation=distillation)


def of_recipe(config: ExperimentConfig) -> dict[str, str]:
    """Return the locations by key; ``train.storage`` is the one that is written to."""
    found: dict[str, str] = {}

    def note(key: str, location: str) -> str:
        found[key] = location
        return location

    changed(config, note)
    return found


def rooted(data: DataConfig, sources: tuple[ResidentSource, ...]) -> tuple[ResidentSource, ...]:
    """Put relative roots below ``data.root``."""
    return tuple(
        source
        if _stands_alone(source.root)
        else replace(source, root=f"{data.root.rstrip('/')}/{source.root}")
        for source in sources
    )


def _stands_alone(root: str) -> bool:
    return root.startswith("/") or "://" in root
