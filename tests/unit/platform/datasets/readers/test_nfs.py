import pytest

from dytrack_platform.datasets.readers import read
from dytrack_platform.errors import DataError


def row(number, lost=0):
    return f'0 {number} 20 {number + 30} 60 {number} {lost} 0 1 "airboard"'


def a_clip(folder, name="airboard_1", rate=30, frames=3, rows=None):
    folder.images(f"{name}/{rate}/{name}", range(1, frames + 1), "{:05d}.jpg")
    folder.text(f"{name}/{rate}/{name}.txt", "\n".join(rows or map(row, range(frames))))


def test_the_30_fps_clip_takes_every_eighth_row_and_corners_become_sizes(folder):
    a_clip(folder, frames=3, rows=[row(i, lost=int(i == 8)) for i in range(24)])
    (sequence,) = read("nfs", str(folder), "30")
    assert sequence.boxes_xywh.tolist() == [[0, 20, 30, 40], [8, 20, 30, 40], [16, 20, 30, 40]]
    assert sequence.visible.tolist() == [True, False, True]


def test_the_240_fps_clip_takes_every_row(folder):
    a_clip(folder, rate=240, frames=3)
    (sequence,) = read("nfs", str(folder), "240")
    assert sequence.boxes_xywh[:, 0].tolist() == [0, 1, 2]


def test_the_clip_that_shows_another_scene_is_a_fault(folder, faults):
    a_clip(folder, "dog_2", frames=1)
    a_clip(folder, "dog_3", frames=1)
    assert [s.name for s in read("nfs", str(folder), "30", faults)] == ["dog_3"]
    assert "shows another scene" in faults[0].reason


def test_a_row_that_is_too_short_is_a_fault_of_its_frame(folder, faults):
    a_clip(folder, rate=240, frames=2, rows=[row(0), "0 1 2"])
    (sequence,) = read("nfs", str(folder), "240", faults)
    assert sequence.visible.tolist() == [True, False]
    assert [f.frame for f in faults] == [1]


def test_the_repacked_copy_is_read(folder):
    folder.images("sequences/dog_1", range(1, 3), "{:05d}.jpg")
    folder.text("anno/nfs_dog_1.txt", "1\t2\t3\t4\n5\t6\t7\t8\n")
    (sequence,) = read("nfs", str(folder))
    assert sequence.boxes_xywh.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]


def test_another_frame_rate_is_refused(folder):
    a_clip(folder)
    with pytest.raises(DataError, match="the splits 30 and 240"):
        list(read("nfs", str(folder), "60"))
