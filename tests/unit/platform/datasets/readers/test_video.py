import cv2
import numpy as np
import pytest

from dytrack_platform.datasets.readers import read
from dytrack_platform.errors import DataError


def a_video(folder, name="walk", frames=6, rows=None, file="video.mp4"):
    path = folder.root / name / file
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 48))
    for number in range(frames):
        writer.write(np.full((48, 64, 3), 20 + 10 * number, np.uint8))
    writer.release()
    count = frames if rows is None else rows
    folder.text(f"{name}/groundtruth.txt", "".join(f"{i},2,30,20\n" for i in range(count)))
    return path


def level(pixels):
    return round((float(pixels.mean()) - 20) / 10)


def test_frames_of_a_video_are_read_in_any_order(folder):
    a_video(folder)
    (sequence,) = read("video", str(folder))
    frames = sequence.frames
    assert [level(frames.read(i)) for i in (0, 3, 1, 5, 5, 0)] == [0, 3, 1, 5, 5, 0]
    assert [level(frame) for frame in frames.iterate()] == [0, 1, 2, 3, 4, 5]


def test_frames_of_a_video_are_red_first(folder):
    path = folder.root / "red" / "video.mp4"
    path.parent.mkdir(parents=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 48))
    writer.write(np.full((48, 64, 3), (0, 0, 250), np.uint8))  # OpenCV writes blue first
    writer.release()
    folder.text("red/groundtruth.txt", "1,2,30,20\n")
    (sequence,) = read("video", str(folder))
    red, _, blue = sequence.frames.read(0).reshape(-1, 3).mean(axis=0)
    assert red > 200
    assert blue < 50


def test_absent_frames_and_further_targets_are_read(folder):
    a_video(folder)
    folder.text("walk/absent.txt", "0\n0\n1\n1\n0\n0\n")
    folder.text("walk/groundtruth.2.txt", "5,5,9,9\n" * 6)
    first, second = read("video", str(folder))
    assert first.visible.tolist() == [True, True, False, False, True, True]
    assert (second.name, second.boxes_xywh[0].tolist()) == ("walk.2", [5, 5, 9, 9])


def test_a_split_is_a_list_in_the_root(folder, faults):
    a_video(folder, "a")
    a_video(folder, "b")
    folder.text("test.txt", "b\nc")
    assert [s.name for s in read("video", str(folder), "test", faults)] == ["b"]
    assert "c: no such folder, or a link that leads nowhere" in faults[0].reason


def test_images_may_stand_for_a_video(folder, number_of):
    folder.images("a", range(1, 4), "{:04d}.png")
    folder.text("a/groundtruth.txt", "1,2,3,4\n" * 3)
    folder.images("b/img", range(5, 8), "{:04d}.jpg")
    folder.text("b/groundtruth.txt", "1,2,3,4\n" * 3)
    first, second = read("video", str(folder))
    assert (number_of(first.frames.read(2)), number_of(second.frames.read(0))) == (3, 5)


def test_a_dataset_that_is_not_local_is_read_videos_included(folder):
    from dytrack_platform.storage.tree import Tree

    path = a_video(folder, frames=3)
    remote = Tree(f"memory://{folder.root.parent.name}")
    for name in (path.name, "groundtruth.txt"):
        remote.write_bytes(f"walk/{name}", (path.parent / name).read_bytes())
    folder.images("stills", range(1, 3), "{:04d}.png")
    for name in ("0001.png", "0002.png"):
        remote.write_bytes(f"stills/{name}", (folder.root / "stills" / name).read_bytes())
    remote.write_bytes("stills/groundtruth.txt", b"1,2,3,4\n1,2,3,4\n")
    stills, video = read("video", remote.root)
    assert stills.frames.read(1).shape == (24, 32, 3)
    assert [level(frame) for frame in video.frames.iterate()] == [0, 1, 2]


def test_fewer_boxes_than_frames_are_reported(folder, faults):
    a_video(folder, rows=4)
    (sequence,) = read("video", str(folder), None, faults)
    assert len(sequence) == 4
    assert [f.reason for f in faults] == ["4 boxes for 6 frames; only the first 4 are used"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("nan,2,30,20", "the box nan,2,30,20 has no area or is not finite"),
        ("1,2,0,20", "the box 1,2,0,20 has no area or is not finite"),
        ("1,2,inf,20", "the box 1,2,inf,20 has no area or is not finite"),
        ("1,2,3", "the box is not four numbers"),
    ],
)
def test_a_box_that_cannot_be_used_is_a_fault_of_its_frame(folder, faults, row, reason):
    a_video(folder, frames=2)
    folder.text("walk/groundtruth.txt", f"1,2,30,20\n{row}\n")
    (sequence,) = read("video", str(folder), None, faults)
    assert sequence.visible.tolist() == [True, False]
    assert [(f.sequence, f.frame, f.reason) for f in faults] == [("walk", 1, reason)]


@pytest.mark.parametrize("content", [b"", b"not a video at all", b"\0" * 4096])
def test_a_video_that_does_not_open_is_named_and_the_others_are_read(folder, faults, content):
    a_video(folder, "good")
    folder.data("bad/video.mp4", content)
    folder.text("bad/groundtruth.txt", "1,2,3,4\n")
    assert [s.name for s in read("video", str(folder), None, faults)] == ["good"]
    assert "bad/video.mp4: does not open as a video" in faults[0].reason


def test_a_video_without_frames_is_named(folder, faults):
    a_video(folder, "good")
    a_video(folder, "none", frames=0, rows=1)
    assert [s.name for s in read("video", str(folder), None, faults)] == ["good"]
    assert "none/video.mp4" in faults[0].reason


@pytest.mark.parametrize("name", ["two words", "späße", "a=b&c", "名前", "-x", "quote'd"])
def test_unusual_names_are_read(folder, name):
    a_video(folder, name, frames=2)
    folder.text("test.txt", f"{name}\n")
    (sequence,) = read("video", str(folder), "test")
    assert sequence.name == name
    assert sequence.frames.read(1) is not None


def test_a_name_that_points_outside_is_refused(folder, faults):
    a_video(folder, "good")
    folder.text("test.txt", "../secret\n/etc\ngood\n")
    assert [s.name for s in read("video", str(folder), "test", faults)] == ["good"]
    assert all("points outside of the folder" in fault.reason for fault in faults)
    assert len(faults) == 2


def test_a_loop_of_links_is_a_fault(folder, faults):
    a_video(folder, "good")
    (folder.root / "loop").symlink_to(folder.root / "loop")
    folder.text("test.txt", "good\nloop\n")
    for split in ("test", None):
        assert [s.name for s in read("video", str(folder), split, faults)] == ["good"]
    assert [f.sequence for f in faults] == ["loop", "loop"]
    assert all("or a link that leads nowhere" in fault.reason for fault in faults)


def test_a_folder_that_holds_itself_is_a_fault(folder, faults):
    a_video(folder, "good")
    folder.text("cycle/groundtruth.txt", "1,2,3,4\n")
    (folder.root / "cycle/img").symlink_to("..")
    assert [s.name for s in read("video", str(folder), None, faults)] == ["good"]
    assert "cycle/img: holds no image" in faults[0].reason


def test_frames_of_a_video_that_are_huge_are_refused_before_one_is_decoded(
    folder, faults, monkeypatch
):
    from dytrack_model import image_headers

    a_video(folder)
    monkeypatch.setattr(image_headers, "LARGEST_IMAGE", 64 * 48 - 1)
    with pytest.raises(DataError, match=r"video\.mp4: says to be 64x48 pixels; images above"):
        list(read("video", str(folder), None, faults))


def test_a_name_that_looks_like_a_protocol_or_a_pattern_is_a_name(folder, monkeypatch):
    monkeypatch.chdir(folder.root.parent)
    a_video(folder, "http:a", frames=2, file="100%d.mp4")
    folder.root.rename(folder.root.parent / "tcp:x")
    (sequence,) = read("video", "tcp:x")
    assert [level(frame) for frame in sequence.frames.iterate()] == [0, 1]


def test_a_missing_root_an_empty_split_and_an_unknown_dataset_are_refused(folder):
    with pytest.raises(DataError, match=r"source: no such folder"):
        list(read("video", str(folder)))
    folder.text("test.txt", "\n\n")
    with pytest.raises(DataError, match=r"test\.txt: the list of sequences is empty"):
        list(read("video", str(folder), "test"))
    with pytest.raises(DataError, match=r"val\.txt: no such list of sequences"):
        list(read("video", str(folder), "val"))
    with pytest.raises(DataError, match="dataset 'mnist' is not known; choose one of coco, got10k"):
        list(read("mnist", str(folder)))


def test_faults_go_to_the_log_where_nobody_collects_them(folder, log):
    a_video(folder, rows=4)
    list(read("video", str(folder)))
    assert "video walk: 4 boxes for 6 frames" in log.getvalue()


def test_the_reference_videos_have_as_many_frames_as_boxes(shared, faults):
    root = str(shared / "data" / "sequences")
    train = list(read("video", root, "train", faults))
    test = list(read("video", root, "test", faults))
    assert faults == []
    assert (len(train), len(test)) == (27, 12)  # 38 videos, one of them with two targets
    panda = next(s for s in train if s.name == "tld_panda")
    assert len(panda) == 3000
    assert panda.boxes_xywh[0].tolist() == [57, 99, 27, 22]
    assert int((~panda.visible).sum()) > 0


def test_boxes_that_are_shares_of_the_image_are_refused(folder, faults):
    a_video(folder, "good")
    a_video(folder, "shares")
    rows = (folder.root / "shares/groundtruth.txt").read_text().splitlines()
    folder.text(
        "shares/groundtruth.txt", "0.1,0.2,0.3,0.4\n" * (len(rows) - 1) + "NaN,NaN,NaN,NaN\n"
    )
    assert [s.name for s in read("video", str(folder), None, faults)] == ["good"]
    assert "every box lies within the first pixel" in faults[-1].reason
