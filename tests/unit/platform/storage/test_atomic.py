import os
import socket
import stat
import subprocess

import pytest

from dytrack_platform.errors import StorageError
from dytrack_platform.storage.atomic import beside, replacing, write_atomically


def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "folder" / "a.json"
    write_atomically(path, "old")
    with replacing(path) as beside:
        beside.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_a_body_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")

    def interrupted():
        with replacing(path) as beside:
            beside.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"below\.txt: cannot be written"):
        write_atomically(tmp_path / "file" / "below.txt", "x")


def test_a_name_beside_clears_what_killed_processes_left(tmp_path):
    gone = subprocess.Popen(["true"])
    gone.wait()
    host = socket.gethostname()
    dead = tmp_path / f".v.mp4.{host}.{gone.pid}.unfinished.mp4"
    kept = [
        tmp_path / f".v.mp4.{host}.{os.getppid()}.unfinished.mp4",  # its process lives
        tmp_path / f".v.mp4.elsewhere.{gone.pid}.unfinished.mp4",
        tmp_path / f".w.mp4.{host}.{gone.pid}.unfinished.mp4",
        tmp_path / f".v.mp4.{host}.{'9' * 30}.unfinished.mp4",
        tmp_path / f".v.mp4.{host}.mine.unfinished.mp4",
    ]
    for path in [dead, *kept]:
        path.write_text("")
    assert beside(tmp_path / "v.mp4", ".mp4") == (
        tmp_path / f".v.mp4.{host}.{os.getpid()}.unfinished.mp4"
    )
    assert sorted(tmp_path.iterdir()) == sorted(kept)
    assert beside(tmp_path / "no folder" / "v.csv").name == (
        f".v.csv.{host}.{os.getpid()}.unfinished"
    )
