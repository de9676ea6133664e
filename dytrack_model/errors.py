"""The errors that the tracker raises, and the root of the whole program's tree.

::

    DyTrackError                  the command line prints its one sentence, no traceback
    ├── InputError        (2)     the user can mend it: a file, an option, a recipe
    │   ├── ConfigurationError    a key of the configuration, named by its dotted path
    │   ├── ImageError            not an RGB uint8 image, or a file that does not decode
    │   ├── BoxError              a box with NaN, without area, or outside the image
    │   └── CheckpointError       a file that is not a checkpoint, or one of another model
    └── FailureError      (1)     the program or the machine failed
        ├── RuntimeMissingError   an inference runtime that is not installed
        └── ExportError           exported graphs that disagree with PyTorch

The number is the exit code. ``dytrack_platform.errors`` continues the tree.
"""


class DyTrackError(Exception):
    """Root of every error that the program raises on purpose."""

    exit_code = 1


class InputError(DyTrackError):
    """What the user gave cannot be used; the message says what to change."""

    exit_code = 2


class FailureError(DyTrackError):
    """The program could not finish for a reason outside the user's input."""

    exit_code = 1


class ConfigurationError(InputError, ValueError):
    """A configuration value is wrong; the message starts with the dotted key.

    A ``ValueError`` too, so that a validator at the edge can add the path in front.
    """


class ImageError(InputError):
    """An image is not what the tracker takes: RGB, uint8, (H, W, 3)."""


class BoxError(InputError):
    """A box has NaN, no area, or lies outside its image."""


class CheckpointError(InputError):
    """A file is not a checkpoint of this program, is damaged, or belongs to another model."""


class RuntimeMissingError(FailureError):
    """The chosen inference runtime is not installed here."""


class ExportError(FailureError):
    """Exported graphs do not give what PyTorch gives."""
