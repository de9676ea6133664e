import errno
import os
import time
import uuid

import pytest

from dytrack_platform.errors import DataError, StorageError
from dytrack_platform.storage import tree as module
from dytrack_platform.storage.tree import Tree


@pytest.fixture(params=["path", "file", "memory"])
def place(request, tmp_path):
    """The same folder by path, by file:// and on a file system that is not local."""
    roots = {
        "path": str(tmp_path),
        "file": f"file://{tmp_path}",
        "memory": f"memory://{uuid.uuid4()}",
    }
    return Tree(roots[request.param])


def test_what_was_written_can_be_listed_and_read(place):
    place.write_bytes("a/b.txt", b"\xef\xbb\xbfone\r\n")
    place.write_bytes("a/c.txt", b"two")
    assert place.names() == ["a"]
    assert (place / "a").names() == ["b.txt", "c.txt"]
    assert place.read_text("a/b.txt") == "one\r\n"
    assert place.read_bytes("a/c.txt") == b"two"
    assert place.is_file("a/c.txt")
    assert not place.is_file("a")
    assert place.is_folder("a")
    assert not place.is_folder("d")
    place.remove("a/c.txt")
    place.remove("a/c.txt")
    assert place.names("a") == ["b.txt"]


def test_what_is_missing_is_named(place):
    with pytest.raises(DataError, match="no/such: no such folder"):
        place.names("no/such")
    with pytest.raises(DataError, match=r"no\.txt: cannot be read"):
        place.read_bytes("no.txt")


@pytest.mark.parametrize("inside", ["../a", "a/../../b", "/etc/passwd"])
def test_nothing_outside_of_the_folder_is_reached(place, inside):
    assert not place.is_file(inside)
    assert not place.is_folder(inside)
    with pytest.raises(DataError, match="points outside of the folder"):
        place.read_bytes(inside)
    with pytest.raises(DataError, match="points outside of the folder"):
        place.write_bytes(inside, b"")


def test_a_scheme_that_cannot_be_opened_is_named():
    with pytest.raises(DataError, match="nosuch:// cannot be opened here"):
        Tree("nosuch://bucket/a").names()


def test_a_full_disk_leaves_neither_a_file_nor_a_part_of_one(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    Tree(str(tmp_path)).write_bytes("a.txt", b"old")
    monkeypatch.setattr(module.Path, "replace", full)
    with pytest.raises(
        StorageError, match=r"a\.txt: cannot be written \(No space left on device\)"
    ):
        Tree(str(tmp_path)).write_bytes("a.txt", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_bytes() == b"old"


def test_only_old_leftovers_are_removed(tmp_path):
    old, young = tmp_path / ".a.x.unfinished", tmp_path / ".b.y.unfinished"
    for path in (old, young):
        path.write_bytes(b"part")
    hour_ago = time.time() - 3600
    os.utime(old, (hour_ago, hour_ago))
    Tree(str(tmp_path)).remove_leftovers()
    assert [path.name for path in tmp_path.iterdir()] == [young.name]
