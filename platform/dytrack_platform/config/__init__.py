"""The one schema of an experiment: load a recipe, override by dotted key, validate, dump.

A recipe is YAML with the fields of :class:`ExperimentConfig`. ``--set train.epochs=3`` and a
search space ``{"train.epochs": ...}`` use the same dotted keys, and both pass through
:func:`resolve`, so nothing unchecked reaches a worker.
"""

from dytrack_platform.config.recipes import (
    dotted,
    dump,
    flatten,
    load,
    parse_override,
    require_same,
    resolve,
    to_dict,
    typed,
)
from dytrack_platform.config.schema import (
    DataConfig,
    ExperimentConfig,
    Parallel,
    Precision,
    Schedule,
    SearchConfig,
    SourceConfig,
    TrainConfig,
)

__all__ = [
    "DataConfig",
    "ExperimentConfig",
    "Parallel",
    "Precision",
    "Schedule",
    "SearchConfig",
    "SourceConfig",
    "TrainConfig",
    "dotted",
    "dump",
    "flatten",
    "load",
    "parse_override",
    "require_same",
    "resolve",
    "to_dict",
    "typed",
]
