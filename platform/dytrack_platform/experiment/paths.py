"""Paths of an experiment as every worker understands them."""

from dytrack_platform.config import ExperimentConfig, locations
from dytrack_platform.storage import files
from dytrack_platform.storage.job import require_kept


def with_absolute_paths(config: ExperimentConfig) -> ExperimentConfig:
    """Make local paths absolute: a worker runs in another folder.

    Raises:
        ConfigurationError: This is a job, and its results would be removed with it.
    """
    require_kept("train.storage", config.train.storage)
    return locations.changed(config, lambda key, location: files.absolute(location))
