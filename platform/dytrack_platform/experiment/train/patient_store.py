"""The store that Ray Train writes to: one that waits where it refuses for a while.

Ray Train's controller writes its own notes beside the checkpoints, and ends the training where it
cannot. How often pyarrow tries is not among what travels to other processes, so the store has to
be opened anew in each.
"""

from collections.abc import Callable

import pyarrow.fs

from dytrack_platform.storage.arrow_store import open_s3
from dytrack_platform.storage.patience import attempts


class PatientS3(pyarrow.fs.S3FileSystem):  # type: ignore[misc]  # no types
    """A store on S3 that is as patient in another process."""

    url: str

    def __reduce__(self) -> tuple[Callable[[str], "PatientS3"], tuple[str]]:
        """Travel as the URL: keys stay in the environment of each process."""
        return _opened, (self.url,)


def patient_store(url: str) -> tuple[PatientS3 | None, str]:
    """Return what Ray Train takes as its file system and path: for S3 a patient one, else its own.

    Args:
        url: Folder or URL that runs lie in.
    """
    if not url.startswith("s3://"):
        return None, url
    return _opened(url), url.removeprefix("s3://")


def _opened(url: str) -> PatientS3:
    store = open_s3(url, attempts(patient=True), PatientS3)
    assert isinstance(store, PatientS3)
    store.url = url
    return store
