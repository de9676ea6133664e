"""No output ever takes the place of something that dytrack did not write."""

import os

import pytest

from dytrack_platform.errors import ConfigurationError
from dytrack_platform.storage.outputs import VIDEO_MARK, check_folder, check_outputs, is_ours


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def _refused(outputs, inputs=(), match=""):
    with pytest.raises(ConfigurationError, match=match):
        check_outputs(outputs, inputs)


@pytest.mark.parametrize("name", ["in.mp4", "./in.mp4", "sub/../in.mp4", "link", "hard"])
def test_an_output_that_is_an_input_is_refused(tmp_path, name):
    (tmp_path / "sub").mkdir()
    source = tmp_path / "in.mp4"
    source.write_bytes(b"frames" + VIDEO_MARK)
    (tmp_path / "link").symlink_to(source)
    os.link(source, tmp_path / "hard")
    _refused({"--out": name}, [source], match="--out .*: is (what is read|a link to)")


def test_two_outputs_of_one_name_are_refused():
    _refused({"--out": "a.csv", "--csv": "./a.csv"}, match=r"--csv a\.csv: is also what --out")


@pytest.mark.parametrize("name", [".", "..", "folder"])
def test_a_folder_is_no_file(tmp_path, name):
    (tmp_path / "folder").mkdir()
    _refused({"--csv": name}, match="is a folder; name a file")


def test_a_link_a_device_and_a_place_below_a_file_are_refused(tmp_path):
    (tmp_path / "dangling").symlink_to("nowhere")
    _refused({"--csv": "dangling"}, match="is a link to nowhere")
    _refused({"--csv": os.devnull}, match="is a device or a pipe")
    (tmp_path / "notes").write_text("mine")
    _refused({"--csv": "notes/a.csv"}, match="notes is a file, not a folder")


@pytest.mark.parametrize("content", [b"thesis", b'{"generator": "other"}', b"frame,x,y\n", b"\0"])
def test_what_somebody_else_wrote_stays(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    _refused({"--json": "a"}, match="is there, and dytrack did not write it")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"generator": "dytrack", "scores": 1}',
        b'<html><meta name="generator" content="dytrack">',
        b"frame,x,y,w,h,exit,predicted_iou,lost,state\n0,1,2,3,4\n",
        bytes(9000) + VIDEO_MARK,
    ],
)
def test_what_dytrack_wrote_is_written_again(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    check_outputs({"--out": "a", "--json": "new/b", "--csv": None, "--to": "s3://bucket/a"})
    assert is_ours(tmp_path / "a")


def test_a_folder_with_files_of_the_same_names_needs_our_mark(tmp_path):
    names, marks = ("summary.json", "results"), ("summary.json",)
    check_folder("--out", "new", names, marks)
    folder = tmp_path / "folder"
    (folder / "results").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match="--out folder: holds results, and dytrack did"):
        check_folder("--out", "folder", names, marks)
    (folder / "summary.json").write_text('{"generator": "dytrack"}')
    check_folder("--out", "folder", names, marks)
    (folder / "summary.json").write_text("mine")
    with pytest.raises(ConfigurationError, match="holds results"):
        check_folder("--out", "folder", names, marks)
    with pytest.raises(ConfigurationError, match="is a file; name a folder"):
        check_folder("--out", folder / "summary.json", names, marks)
