"""The store that Ray Train writes to: one that waits where it refuses for a while, and says so.

Ray Train's controller writes its own notes beside the checkpoints, and ends the training where it
cannot. How often pyarrow tries is not among what travels to other processes, so the store has to
be opened anew in each. While the controller waits it takes no checkpoint from the workers, which
train on and have nothing to tell; so the store itself tells, through the driver's channel.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

import pyarrow.fs

from dytrack_platform.experiment.cluster import session  # noqa: F401  (sets Ray's environment first)

import ray  # isort: skip

from dytrack_platform.storage.arrow_store import open_s3
from dytrack_platform.storage.patience import attempts, telling_if_slow


class PatientS3(pyarrow.fs.S3FileSystem):  # type: ignore[misc]  # no types
    """A store on S3 that is as patient in another process, and that tells of requests of minutes.

    It tells of what Ray Train's controller asks for: writing a small file and removing a folder.
    """

    url: str
    channel_name: str
    tell_after_s = 10.0

    def __reduce__(self) -> tuple[Callable[[str, str], "PatientS3"], tuple[str, str]]:
        """Travel as the URL: keys stay in the environment of each process."""
        return _opened, (self.url, self.channel_name)

    @contextmanager
    def open_output_stream(self, path: str) -> Iterator[pyarrow.NativeFile]:
        """Write a file in the body of a ``with``."""
        with self._telling(path), super().open_output_stream(path) as stream:
            yield stream

    def delete_dir(self, path: str) -> None:
        """Remove a folder."""
        with self._telling(path):
            super().delete_dir(path)

    def say(self, sentence: str) -> None:
        """Post it to the driver, if that is still there."""
        with suppress(ValueError):
            ray.get_actor(self.channel_name).say.remote(sentence)

    def _telling(self, path: str) -> AbstractContextManager[None]:
        where = f"s3://{path}: the request"
        return telling_if_slow(where, "answered", self.say, self.tell_after_s)


def patient_store(url: str, channel_name: str) -> tuple[PatientS3 | None, str]:
    """Return what Ray Train takes as its file system and path: for S3 a patient one, else its own.

    Args:
        url: Folder or URL that runs lie in.
        channel_name: Of the actor that is told of requests that take long.
    """
    if not url.startswith("s3://"):
        return None, url
    return _opened(url, channel_name), url.removeprefix("s3://")


def _opened(url: str, channel_name: str) -> PatientS3:
    store = open_s3(url, attempts(patient=True), PatientS3)
    assert isinstance(store, PatientS3)
    store.url, store.channel_name = url, channel_name
    return store
