"""The platform's part of the tree of errors.

::

    DyTrackError
    ├── InputError        (2)
    │   ├── ConfigurationError, ImageError, BoxError, CheckpointError   (dytrack_model.errors)
    │   ├── DataError             a dataset, sequence or clip folder that cannot be used
    │   ├── ResultError           a result file that the chosen protocol cannot score
    │   ├── ModelLookupError      a model name, alias or file that leads to nothing
    │   └── AccessError           a cluster or a server that is not reached as it was named
    └── FailureError      (1)
        ├── RuntimeMissingError   (dytrack_model.errors)
        ├── TrainingError         training stopped: NaN loss, a worker that kept dying
        ├── ClusterError          Ray could not be started, or was lost
        └── StorageError          a disk is full, a folder cannot be written

The number is the exit code.
"""

from dytrack_model.errors import (
    BoxError,
    CheckpointError,
    ConfigurationError,
    DyTrackError,
    FailureError,
    ImageError,
    InputError,
    RuntimeMissingError,
)

__all__ = [
    "AccessError",
    "BoxError",
    "CheckpointError",
    "ClusterError",
    "ConfigurationError",
    "DataError",
    "DyTrackError",
    "FailureError",
    "ImageError",
    "InputError",
    "ModelLookupError",
    "ResultError",
    "RuntimeMissingError",
    "StorageError",
    "TrainingError",
    "first_line",
]


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says; the name of its kind where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


class DataError(InputError):
    """A dataset, a sequence or a prepared folder cannot be used; the message names the file."""


class ResultError(InputError):
    """A result file cannot be scored under the chosen protocol."""


class ModelLookupError(InputError):
    """A model reference (file, folder or registry name) leads to nothing usable."""


class AccessError(InputError):
    """A cluster or a server is not reached as it was named.

    Nobody answers at its address, it refuses the password or the token, it is of another version,
    or it does not know the job that was asked for.
    """


class TrainingError(FailureError):
    """Training ended before its last step."""


class ClusterError(FailureError):
    """Ray could not be started, or was lost on the way."""


class StorageError(FailureError):
    """A folder cannot be written: no space, no permission."""
