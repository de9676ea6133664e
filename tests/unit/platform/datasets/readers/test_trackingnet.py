import io
import zipfile

import numpy as np
import pytest

from dytrack_platform.datasets.readers import read
from dytrack_platform.errors import DataError


def annotation(frames):
    return "".join(f" {i}.00,102.00,245.00,174.00\r\n" for i in range(1, frames + 1))


def a_zip(folder, path, members, method=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return folder.data(path, buffer.getvalue())


@pytest.fixture
def jpegs(folder):
    """Twelve frames named 0.jpg to 11.jpg, as bytes."""
    folder.images("scratch", range(12), "{}.jpg")
    return {f"{i}.jpg": (folder.root / f"scratch/{i}.jpg").read_bytes() for i in range(12)}


def test_frames_are_sorted_by_number(folder, number_of):
    folder.images("TRAIN_0/frames/-3TIfnTSM6c_2", range(12), "{}.jpg")
    folder.text("TRAIN_0/anno/-3TIfnTSM6c_2.txt", annotation(12))
    (sequence,) = read("trackingnet", str(folder), "train")
    assert sequence.name == "-3TIfnTSM6c_2"
    assert [number_of(sequence.frames.read(i)) for i in range(12)] == list(range(12))
    assert sequence.boxes_xywh[-1].tolist() == [12, 102, 245, 174]


def test_published_archives_are_read_without_unpacking(folder, jpegs, number_of):
    a_zip(folder, "TRAIN_1/zips/a_b_0.zip", jpegs)
    folder.text("TRAIN_1/anno/a_b_0.txt", annotation(12))
    before = sorted(folder.root.rglob("*"))
    (sequence,) = read("trackingnet", str(folder), "train")
    assert [number_of(frame) for frame in sequence.frames.iterate()] == list(range(12))
    assert sorted(folder.root.rglob("*")) == before


def test_a_missing_archive_is_a_fault_of_that_video_alone(folder, jpegs, faults):
    a_zip(folder, "TRAIN_10/zips/a_0.zip", jpegs)
    folder.text("TRAIN_10/anno/a_0.txt", annotation(12))
    folder.text("TRAIN_10/anno/ekw22HGT0TY_0.txt", annotation(12))
    assert [s.name for s in read("trackingnet", str(folder), "train", faults)] == ["a_0"]
    assert [f.sequence for f in faults] == ["ekw22HGT0TY_0"]


def test_the_test_split_has_one_box(folder, faults):
    folder.images("TEST/frames/a_0", range(3), "{}.jpg")
    folder.text("TEST/anno/a_0.txt", annotation(1))
    (sequence,) = read("trackingnet", str(folder), "test", faults)
    assert sequence.visible.tolist() == [True, False, False]
    assert np.isnan(sequence.boxes_xywh[1:]).all()
    assert faults == []


@pytest.mark.parametrize("member", ["../0.jpg", "/etc/0.jpg", "a/../../0.jpg", "..\\0.jpg"])
def test_an_archive_whose_member_points_outside_is_refused(folder, jpegs, faults, member):
    a_zip(folder, "TRAIN_0/zips/a_0.zip", {**jpegs, member: b"x"})
    folder.text("TRAIN_0/anno/a_0.txt", annotation(12))
    with pytest.raises(DataError, match="points outside of its folder"):
        list(read("trackingnet", str(folder), "train", faults))


def test_a_damaged_archive_is_a_fault(folder, jpegs, faults):
    path = a_zip(folder, "TRAIN_0/zips/a_0.zip", jpegs)
    path.write_bytes(path.read_bytes()[:200])
    folder.text("TRAIN_0/anno/a_0.txt", annotation(12))
    with pytest.raises(DataError, match="is not a whole zip archive"):
        list(read("trackingnet", str(folder), "train", faults))


def test_a_damaged_member_is_a_fault_of_its_frame(folder, jpegs):
    path = a_zip(folder, "TRAIN_0/zips/a_0.zip", jpegs)
    content = bytearray(path.read_bytes())
    place = content.find(jpegs["5.jpg"])
    content[place + 30] ^= 0xFF
    path.write_bytes(bytes(content))
    folder.text("TRAIN_0/anno/a_0.txt", annotation(12))
    (sequence,) = read("trackingnet", str(folder), "train")
    assert sequence.frames.read(4) is not None
    with pytest.raises(DataError, match=r"a_0\.zip!5\.jpg: cannot be read"):
        sequence.frames.read(5)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_to_a_compressed_member_is_a_fault_of_its_frame(folder, jpegs, method):
    path = a_zip(folder, "TRAIN_0/zips/a_0.zip", jpegs, method)
    with zipfile.ZipFile(path) as archive:
        places = {name: archive.getinfo(name) for name in jpegs}
    content = bytearray(path.read_bytes())
    start = places["5.jpg"].header_offset + 30 + len("5.jpg")
    for place in range(start, start + places["5.jpg"].compress_size):
        content[place] ^= 0x5A
    path.write_bytes(bytes(content))
    folder.text("TRAIN_0/anno/a_0.txt", annotation(12))
    (sequence,) = read("trackingnet", str(folder), "train")
    assert [frame is None for frame in sequence.frames.iterate()] == [i == 5 for i in range(12)]
    with pytest.raises(DataError, match=r"a_0\.zip!5\.jpg: cannot be read"):
        sequence.frames.read(5)


def test_a_member_behind_a_password_is_a_fault_of_its_frame(folder, jpegs):
    path = a_zip(folder, "TRAIN_0/zips/a_0.zip", jpegs)
    content = bytearray(path.read_bytes())
    content[6] |= 1  # the flag in the first member's header and in the directory
    content[content.find(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(bytes(content))
    folder.text("TRAIN_0/anno/a_0.txt", annotation(12))
    (sequence,) = read("trackingnet", str(folder), "train")
    with pytest.raises(DataError, match=r"a_0\.zip!0\.jpg: cannot be read .*password"):
        sequence.frames.read(0)
    assert sequence.frames.read(1) is not None


def test_an_archive_on_a_store_that_is_not_local_is_read_in_place(folder, jpegs, number_of):
    from dytrack_platform.storage.tree import Tree

    path = a_zip(folder, "a.zip", jpegs)
    remote = Tree(f"memory://{folder.root.parent.name}-zip")
    remote.write_bytes("TRAIN_3/zips/a_0.zip", path.read_bytes())
    remote.write_bytes("TRAIN_3/anno/a_0.txt", annotation(12).encode())
    (sequence,) = read("trackingnet", remote.root, "train_3")
    assert [number_of(frame) for frame in sequence.frames.iterate()] == list(range(12))


def test_boxes_that_are_known_to_be_wrong_are_reported(folder, faults):
    for name in ("A63BoLTUNAM_0", "b_0"):
        folder.images(f"TRAIN_0/frames/{name}", range(2), "{}.jpg")
        folder.text(f"TRAIN_0/anno/{name}.txt", annotation(2))
    assert [s.name for s in read("trackingnet", str(folder), "train", faults)] == ["b_0"]
    assert [(f.sequence, f.reason) for f in faults] == [
        ("A63BoLTUNAM_0", "its published boxes are known to be wrong")
    ]


def test_a_split_that_is_not_there_is_named(folder):
    folder.text("TRAIN_0/anno/a_0.txt", annotation(1))
    with pytest.raises(DataError, match="no folder for split 'test'"):
        list(read("trackingnet", str(folder), "test"))
