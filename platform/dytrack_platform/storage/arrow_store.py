"""Stores that pyarrow opens, as fsspec file systems that tell a refusal from a missing file."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow.fs
from fsspec.implementations.arrow import ArrowFile, ArrowFSWrapper

from dytrack_platform.errors import DataError, StorageError
from dytrack_platform.storage.patience import asking

_REFUSED = re.compile(
    r"AWS Error (ACCESS_DENIED|SIGNATURE_DOES_NOT_MATCH|INVALID_SIGNATURE|INVALID_ACCESS_KEY_ID|"
    r"INVALID_CLIENT_TOKEN_ID|UNRECOGNIZED_CLIENT|MISSING_AUTHENTICATION_TOKEN|EXPIRED_TOKEN)"
    r"|HTTP status 40[13]"
)


class StoredFile(ArrowFile):  # type: ignore[misc]  # no types
    """A file that a store opened: each read is a request, and closing sends what was written.

    Raises:
        DataError: By every method: the store refuses the keys.
    """

    fs: "ArrowStore"

    def read(self, size: int | None = None) -> bytes:
        """Read so many bytes, or all that is left."""
        with self.fs.asking(self.path):
            return bytes(self.stream.read(size))

    def readinto(self, buffer: memoryview) -> int:
        """Fill a buffer; returns how many bytes that were."""
        with self.fs.asking(self.path):
            return int(self.stream.readinto(buffer))

    def write(self, content: bytes) -> int:
        """Take bytes to be sent."""
        with self.fs.asking(self.path):
            return int(self.stream.write(content))

    def close(self) -> None:
        """Send what was written."""
        with self.fs.asking(self.path):
            self.stream.close()


class ArrowStore(ArrowFSWrapper):  # type: ignore[misc]  # no types
    """A store of pyarrow's.

    fsspec's own says that a file is missing where the store does not answer or refuses the keys.

    Raises:
        DataError: By every method: the store refuses the keys.
    """

    def info(self, path: str, **kwargs: object) -> dict[str, Any]:
        """Return type and size; FileNotFoundError where nothing is there."""
        with self.asking(path):
            found: dict[str, Any] = super().info(path, **kwargs)
        return found

    def isfile(self, path: str) -> bool:
        """Tell whether a file is there."""
        return self._type(path) == "file"

    def isdir(self, path: str) -> bool:
        """Tell whether a folder is there."""
        return self._type(path) == "directory"

    def ls(self, path: str, detail: bool = False, **kwargs: object) -> list[Any]:
        """List a folder."""
        with self.asking(path):
            found: list[Any] = super().ls(path, detail, **kwargs)
        return found

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Make a folder; on S3 there is none to make.

        pyarrow would write an empty object for it, which costs a request and which not every store
        takes.
        """
        if self.fs.type_name != "s3":
            super().makedirs(path, exist_ok)

    def pipe_file(self, path: str, value: bytes, **kwargs: object) -> None:
        """Write a whole file."""
        with self.asking(path):
            super().pipe_file(path, value, **kwargs)

    def rm(self, path: str, **kwargs: object) -> None:
        """Remove a file or a folder."""
        with self.asking(path):
            super().rm(path, **kwargs)

    def rm_file(self, path: str) -> None:
        """Remove a file."""
        with self.asking(path):
            super().rm_file(path)

    @contextmanager
    def asking(self, path: str) -> Iterator[None]:
        """Ask for something in the body: whoever is patient hears of it, and refusals are told."""
        try:
            with asking(f"{self.fs.type_name}://{path}"):
                yield
        except OSError as error:
            refused = _REFUSED.search(str(error))
            if refused is None:
                raise
            raise DataError(
                f"{self.fs.type_name}://{path}: the store refuses the keys it was given "
                f"({refused.group()}): set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, on every "
                "node, to keys that may use this bucket"
            ) from error

    def _open(self, path: str, mode: str = "rb", *words: object, **kwargs: object) -> StoredFile:
        with self.asking(path):
            opened = super()._open(path, mode, *words, **kwargs)
        # Not a second object for the same stream: the first one's end would close it.
        opened.__class__ = StoredFile
        assert isinstance(opened, StoredFile)
        return opened

    def _type(self, path: str) -> str:
        try:
            return str(self.info(path)["type"])
        except FileNotFoundError:
            return "nothing"
        except OSError as error:
            raise StorageError(
                f"{self.fs.type_name}://{path}: the store does not say what is there ({error}); "
                "look whether it answers"
            ) from error


def open_s3(url: str, tries: int, kind: type[pyarrow.fs.S3FileSystem] | None = None) -> Any:  # noqa: ANN401  (no types)
    """Open an S3 store whose requests are tried so often.

    Args:
        url: Of the store, with its options.
        tries: How often; what is forbidden or not there is asked for once.
        kind: A class derived from pyarrow's, for what is returned.
    """
    system, _ = pyarrow.fs.FileSystem.from_uri(url)
    # Made from a URL it would try again where nobody listens, but not where a store says that it is
    # busy. What the URL says is in the arguments that it would be made of in another process.
    _, (arguments,) = system.__reduce__()
    strategy = pyarrow.fs.AwsStandardS3RetryStrategy(max_attempts=tries)
    return (kind or pyarrow.fs.S3FileSystem)(**arguments, retry_strategy=strategy)
