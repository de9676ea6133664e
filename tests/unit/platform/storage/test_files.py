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


def test_writers_of_one_file_do_not_meet(tmp_path):
    import threading

    target = f"{tmp_path}/a/record.json"
    writers = [
        threading.Thread(target=files.write_json, args=(target, {"n": n, "x": "y" * 50_000}))
        for n in range(16)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert files.read_json(target)["n"] in range(16)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["record.json"]


def test_a_copied_folder_leaves_other_files_alone(tmp_path):
    for name, text in (("from/a", "new"), ("to/a", "old"), ("to/NOTES", "mine")):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    files.copy_folder(f"{tmp_path}/from", f"{tmp_path}/to")
    assert (tmp_path / "to" / "a").read_text() == "new"
    assert (tmp_path / "to" / "NOTES").read_text() == "mine"


def test_a_store_without_its_driver_is_said(monkeypatch):
    from dytrack_platform.errors import DataError
    from dytrack_platform.storage import filesystem

    def lacks(*_):
        raise NotImplementedError("built without S3")

    monkeypatch.setattr(filesystem, "_system", lacks)
    with pytest.raises(DataError, match=r"s3:// cannot be opened here \(built without S3\)"):
        filesystem.remote("s3://bucket/a")
    monkeypatch.undo()
    with pytest.raises(DataError, match="nosuch:// cannot be opened here"):
        filesystem.remote("nosuch://a/b")


def test_a_copied_folder_is_its_files_whatever_a_killed_writer_left_in_it(tmp_path):
    source = tmp_path / "source"
    (source / ".source.x.unfinished").mkdir(parents=True)
    (source / "a.json").write_text("{}")
    files.copy_folder(str(source), str(tmp_path / "target"))
    assert [path.name for path in (tmp_path / "target").iterdir()] == ["a.json"]
