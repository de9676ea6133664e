"""Paths of an experiment as every worker understands them."""

from dataclasses import replace

from dytrack_platform.config import ExperimentConfig, SourceConfig
from dytrack_platform.storage import files
from dytrack_platform.storage.job import require_kept


def with_absolute_paths(config: ExperimentConfig) -> ExperimentConfig:
    """Make local paths absolute: a worker runs in another folder.

    Raises:
        ConfigurationError: This is a job, and its results would be removed with it.
    """
    require_kept("train.storage", config.train.storage)

    def sources(found: tuple[SourceConfig, ...]) -> tuple[SourceConfig, ...]:
        return tuple(replace(source, path=files.absolute(source.path)) for source in found)

    resident = config.data.resident or config.data.resident_validation
    data = replace(
        config.data,
        train=sources(config.data.train),
        validation=sources(config.data.validation),
        root=files.absolute(config.data.root) if resident else config.data.root,
    )
    init_from = config.train.init_from
    train = replace(
        config.train,
        storage=files.absolute(config.train.storage),
        init_from=files.absolute(init_from) if init_from else None,
    )
    return replace(config, data=data, train=train)
