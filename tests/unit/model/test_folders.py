"""Nothing that dytrack did not write is ever removed or changed."""

import threading
from pathlib import Path

import pytest
from safetensors.torch import load_file

from dytrack_model import checkpoint
from dytrack_model.config import variant
from dytrack_model.errors import ConfigurationError
from dytrack_model.folders import require_own, write_folder
from dytrack_model.network import DyTrackNetwork


@pytest.fixture
def network():
    return DyTrackNetwork(variant("test"))


def listing(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def test_saving_a_tracker_leaves_other_files_alone(network, tmp_path):
    folder = checkpoint.save(tmp_path / "t", network, notes={"n": 1})
    (folder / "NOTES.md").write_text("mine")
    (folder / "sub").mkdir()
    (folder / "sub/more.txt").write_text("mine too")
    checkpoint.save(folder, network, notes={"n": 2})
    assert checkpoint.load(folder).notes == {"n": 2}
    files = listing(folder)
    assert files["NOTES.md"] == b"mine"
    assert files["sub/more.txt"] == b"mine too"
    assert set(files) == {"NOTES.md", "sub/more.txt", "model.safetensors", "tracker.json"}


def test_what_is_saved_can_be_read_by_others(network, tmp_path):
    for _ in range(2):
        folder = checkpoint.save(tmp_path / "t", network)
        assert {oct(path.stat().st_mode & 0o777) for path in folder.iterdir()} == {"0o644"}
    assert folder.stat().st_mode & 0o777 == 0o755


def test_a_crash_while_writing_leaves_the_old_tracker(network, tmp_path, monkeypatch):
    folder = checkpoint.save(tmp_path / "t", network, notes={"n": 1})
    before = listing(folder)

    def dies(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save_file", dies)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(folder, network, notes={"n": 2})
    assert listing(folder) == before
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(tmp_path / "new", network)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t"]


def test_a_crash_between_two_files_leaves_each_whole(tmp_path, monkeypatch):
    folder = tmp_path / "f"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / name).write_text("old")
    real, calls = Path.replace, []

    def second_dies(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(Path, "replace", second_dies)

    def write(beside):
        for name in ("a", "b"):
            (beside / name).write_text("new")

    with pytest.raises(KeyboardInterrupt):
        write_folder(folder, write)
    assert {p.name: p.read_text() for p in folder.iterdir()} == {"a": "new", "b": "old"}


def test_several_writers_of_one_folder_do_not_meet(network, tmp_path):
    faults = []

    def save(number):
        try:
            checkpoint.save(tmp_path / "t", network, notes={"n": number})
        except Exception as error:  # noqa: BLE001  (any fault of a thread is told)
            faults.append(error)

    threads = [threading.Thread(target=save, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert checkpoint.load(tmp_path / "t").notes["n"] in range(6)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["model.safetensors", "t", "tracker.json"]
    assert load_file(tmp_path / "t/model.safetensors")


def test_the_current_folder_and_a_link_are_written_into(network, tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    checkpoint.save(tmp_path / "link", network, notes={"n": 1})
    assert (tmp_path / "link").is_symlink()
    assert checkpoint.load(tmp_path / "real").notes == {"n": 1}
    monkeypatch.chdir(tmp_path / "real")
    checkpoint.save(".", network, notes={"n": 2})
    assert checkpoint.load(tmp_path / "real").notes == {"n": 2}


def test_a_file_is_no_folder(network, tmp_path):
    (tmp_path / "f").write_text("thesis")
    with pytest.raises(ConfigurationError, match="is a file; name a folder"):
        checkpoint.save(tmp_path / "f", network)
    with pytest.raises(ConfigurationError, match="is a file"):
        require_own(tmp_path / "f", (), "the export")
    assert (tmp_path / "f").read_text() == "thesis"


def test_a_folder_with_other_things_is_refused_by_name(tmp_path):
    (tmp_path / "thesis.txt").write_text("")
    with pytest.raises(ConfigurationError, match=r"other things \(thesis.txt\); name a folder"):
        require_own(tmp_path, {"stages.json"}, "the export")
    require_own(tmp_path, {"thesis.txt"}, "the export")
    require_own(tmp_path / "new", (), "the export")


@pytest.mark.slow
def test_an_export_removes_nothing_that_it_did_not_write(network, tmp_path):
    from dytrack_model.runtime.export import export

    saved = checkpoint.SavedTracker(network=network)
    own = checkpoint.save(tmp_path / "own", network)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("thesis")
    before = listing(tmp_path)
    for folder in (own, tmp_path / "out", tmp_path):
        with pytest.raises(ConfigurationError, match="holds other things"):
            export(saved, folder, "onnx")
    assert listing(tmp_path) == before
    # A second export takes the place of the first.
    export(saved, tmp_path / "e", "onnx")
    first = set(listing(tmp_path / "e"))
    export(saved, tmp_path / "e", "openvino")
    second = set(listing(tmp_path / "e"))
    assert "stages.json" in first & second
    assert not any(name.endswith(".onnx") for name in second)
