"""Where a location is: on this machine, or in a store that pyarrow or fsspec opens.

Options of a store stand behind a question mark, as pyarrow takes them:
``s3://bucket/LaSOT?endpoint_override=localhost:9000&scheme=http``.
"""

import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from dytrack_platform.errors import DataError
from dytrack_platform.storage.patience import attempts

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_ARROW_SCHEMES = ("s3", "gs", "gcs", "hdfs")
_OPTIONS = re.compile(r"\?[a-z_]+=[^?]*$")


@lru_cache(maxsize=256)
def local_path(root: str) -> str | None:
    """Return a location on this machine as a plain path, or None where it is remote.

    Kept, because every frame's path begins with it.
    """
    scheme, separator, rest = root.partition("://")
    if not separator:
        return str(Path(root))
    return str(Path(rest)) if scheme == "file" else None


def split_options(url: str) -> tuple[str, str]:
    """Split a URL before its options; only pyarrow's stores have any."""
    found = _OPTIONS.search(url) if url.partition("://")[0] in _ARROW_SCHEMES else None
    return (url, "") if found is None else (url[: found.start()], found.group())


@lru_cache(maxsize=16)
def _system(scheme: str, address: str, options: str, tries: int) -> "AbstractFileSystem":
    if scheme in _ARROW_SCHEMES:  # these need no package beyond pyarrow
        import pyarrow.fs

        from dytrack_platform.storage.arrow_store import ArrowStore, open_s3

        url = f"{scheme}://{address}{options}"
        if scheme == "s3":
            return ArrowStore(open_s3(url, tries))
        return ArrowStore(pyarrow.fs.FileSystem.from_uri(url)[0])
    import fsspec

    return fsspec.filesystem(scheme)


def remote(url: str) -> tuple["AbstractFileSystem", str]:
    """Return the file system of a URL and the path in it.

    Raises:
        DataError: The store cannot be opened here, or a key stands in the URL.
    """
    plain, options = split_options(url)
    scheme, _, rest = plain.partition("://")
    address = rest.partition("/")[0]
    if "@" in address and scheme in _ARROW_SCHEMES:
        raise DataError(
            f"{scheme}://...@{address.rpartition('@')[2]}: a key in a URL would be stored with the "
            "data; give it by the environment or the machine's own files"
        )
    try:
        system = _system(scheme, address, options, attempts())
    except (ImportError, NotImplementedError, ValueError, OSError) as error:
        raise DataError(f"{url}: {scheme}:// cannot be opened here ({error})") from error
    if scheme in _ARROW_SCHEMES:
        return system, rest
    return system, str(system._strip_protocol(plain))
