import uuid

import pytest

from dytrack_platform.errors import StorageError
from dytrack_platform.storage import files


@pytest.fixture(params=["path", "file", "memory"])
def location(request, tmp_path):
    roots = {
        "path": str(tmp_path),
        "file": f"file://{tmp_path}",
        "memory": f"memory://{uuid.uuid4()}",
    }
    return roots[request.param]


def test_json_is_read_as_it_was_written_and_none_where_there_is_none(location):
    assert files.read_json(f"{location}/a/b.json") is None
    files.write_json(f"{location}/a/b.json", {"step": 3})
    assert files.read_json(f"{location}/a/b.json") == {"step": 3}
    files.write_bytes(f"{location}/a/c.json", b"{")
    with pytest.raises(StorageError, match=r"a/c\.json: cannot be read"):
        files.read_json(f"{location}/a/c.json")


def test_folders_are_listed_last_name_first_and_copied_whole(location):
    for step in (5, 10):
        files.write_bytes(f"{location}/run/step_{step:08d}/tracker/a.bin", bytes([step]))
    files.write_bytes(f"{location}/run/other/a.bin", b"")
    kept = files.folders(f"{location}/run", "step_")
    assert [name.rpartition("/")[2] for name in kept] == ["step_00000010", "step_00000005"]
    for newest in kept:  # a target that is there already is replaced
        files.copy_folder(f"{newest}/tracker", f"{location}/run/tracker")
        with files.local_copy(f"{location}/run/tracker") as folder:
            assert (folder / "a.bin").read_bytes() == bytes([int(newest[-8:])])
    assert files.folders(f"{location}/nowhere", "step_") == []


def test_a_file_is_removed_once(location):
    files.write_bytes(f"{location}/a.bin", b"x")
    files.remove(f"{location}/a.bin")
    files.remove(f"{location}/a.bin")
    assert files.read_json(f"{location}/a.bin") is None
