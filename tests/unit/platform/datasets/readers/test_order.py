"""Every box stays with its frame, however frames are named and whatever stands between rows."""

import cv2
import numpy as np
import pytest

from dytrack_model.errors import ImageError
from dytrack_model.images import RGB, open_images
from dytrack_pipelines.media.video import VideoWriter
from dytrack_platform.datasets.readers import read
from dytrack_platform.errors import DataError

FRAMES = 12
SCHEMES = {
    "plain": "{}.jpg",
    "padded": "{:08d}.jpg",
    "word": "frame{}.jpg",
    "word-padded": "frame_{:04d}.jpg",
    "dash": "img-{}.png",
    "dot": "cam.{}.jpg",
    "upper": "IMG_{:04d}.JPG",
    "two-numbers": "clip7_{}.jpg",
    "from-zero": "{0:02d}.jpg",
    "blank": "my frame {}.jpg",
    "brackets": "shot ({}).jpg",
    "step": "{:05d}.bmp",
}


def _number(scheme, position):
    return {"from-zero": position, "step": position + 100}.get(scheme, position + 1)


def _used(folder, faults):
    """Read what can be used; nothing at all is an error of its own."""
    try:
        return list(read("video", str(folder), None, faults))
    except DataError:
        assert faults
        return []


def _write(folder, scheme, name="walk"):
    for position in range(FRAMES):
        file = SCHEMES[scheme].format(_number(scheme, position))
        folder.image(f"{name}/{file}", 20 + 10 * position)
    rows = [f"{position},2,10,8" for position in range(FRAMES)]
    folder.text(f"{name}/groundtruth.txt", "\n".join(rows) + "\n")
    return rows


def _levels(sequence):
    return [round((float(frame.mean()) - 20) / 10) for frame in sequence.frames.iterate()]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_frames_come_in_the_order_of_their_numbers(folder, faults, scheme):
    _write(folder, scheme)
    (sequence,) = read("video", str(folder), None, faults)
    assert _levels(sequence) == list(range(FRAMES))
    assert faults == []


@pytest.mark.parametrize("twin", ["3.png", "03.jpg", "3.jpeg"])
def test_two_images_of_one_frame_are_refused(folder, faults, twin):
    _write(folder, "plain")
    folder.image(f"walk/{twin}", 0)
    assert _used(folder, faults) == []
    assert "it is not clear which of them is the frame" in faults[0].reason


HEADERS = ["x,y,w,h", "left top width height", "\ufeffx;y;w;h", "# x,y,w,h", "% boxes", "// made"]


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_is_passed_over_and_said(folder, faults, header):
    rows = _write(folder, "plain")
    folder.text("walk/groundtruth.txt", "\n".join([header, *rows]))
    (sequence,) = read("video", str(folder), None, faults)
    assert sequence.boxes_xywh[:, 0].tolist() == list(range(FRAMES))
    (fault,) = faults
    assert "groundtruth.txt: passed over" in fault.reason


@pytest.mark.parametrize("place", range(0, FRAMES + 1, 3))
@pytest.mark.parametrize("line", ["", "   ", ",,,", "# note", "a,b,c,d", "1,2,3", "1,,2,3,4"])
def test_no_inserted_line_moves_a_box_to_another_frame(folder, faults, place, line):
    rows = _write(folder, "plain")
    folder.text("walk/groundtruth.txt", "\n".join([*rows[:place], line, *rows[place:]]))
    for sequence in _used(folder, faults):
        used = np.flatnonzero(sequence.visible)
        wrong = [frame for frame in used if sequence.boxes_xywh[frame, 0] != frame]
        # A row that is no box takes a frame's place: then the surplus is said.
        assert not wrong or any("for 12 frames" in fault.reason for fault in faults)
        if not line.strip() or line == ",,,":
            assert place == FRAMES  # only trailing blank lines mean nothing
    if place < FRAMES and (not line.strip() or line == ",,,"):
        assert "it is not clear which box is whose" in faults[0].reason


def test_a_blank_row_is_a_frame_without_the_target_where_the_counts_fit(folder, faults):
    rows = _write(folder, "plain")
    rows[4] = ""
    folder.text("walk/groundtruth.txt", "\n".join(rows))
    (sequence,) = read("video", str(folder), None, faults)
    assert np.flatnonzero(~sequence.visible).tolist() == [4]
    assert sequence.boxes_xywh[5, 0] == 5
    assert faults == []


@pytest.mark.parametrize("mark", [",", ";", "\t", " ", ", ", " ; ", ",\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_every_delimiter_is_read(folder, faults, mark, end, bom):
    rows = _write(folder, "plain")
    folder.text("walk/groundtruth.txt", bom + end.join(row.replace(",", mark) for row in rows))
    (sequence,) = read("video", str(folder), None, faults)
    assert sequence.boxes_xywh[:, 0].tolist() == list(range(FRAMES))
    assert faults == []


@pytest.mark.parametrize("word", ["7_0", "1e3_", "0x1F", "\uff11\uff12", "--3", "1.2.3", "None"])
def test_what_only_looks_like_a_number_is_none(folder, faults, word):
    rows = _write(folder, "plain")
    rows[3] = f"{word},2,10,8"
    folder.text("walk/groundtruth.txt", "\n".join(rows))
    (sequence,) = read("video", str(folder), None, faults)
    assert [(fault.frame, fault.reason) for fault in faults] == [(3, "the box is not four numbers")]
    assert not sequence.visible[3]


def _film(path, level):
    with VideoWriter(path, 25) as writer:
        for _ in range(FRAMES):
            writer.write(np.full((48, 64, 3), level, np.uint8))


def test_our_own_overlay_is_not_taken_for_the_source(folder, faults):
    inside = folder.root / "walk"
    folder.text("walk/groundtruth.txt", "1,2,10,8\n" * FRAMES)
    source = cv2.VideoWriter(str(inside / "b.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 25, (64, 48))
    for _ in range(FRAMES):
        source.write(np.full((48, 64, 3), 200, np.uint8))
    source.release()
    _film(inside / "a.mp4", 20)  # what dytrack track --out a.mp4 left there
    (sequence,) = read("video", str(folder), None, faults)
    assert sequence.frames.read(0).mean() > 150
    (inside / "c.mp4").write_bytes((inside / "b.mp4").read_bytes())
    assert _used(folder, faults) == []
    assert "holds b.mp4 and c.mp4: keep the one" in faults[0].reason


def test_a_video_beside_images_is_refused(folder, faults):
    _write(folder, "plain")
    _film(folder.root / "walk" / "video.mp4", 20)
    assert _used(folder, faults) == []
    assert "holds video.mp4 and images" in faults[0].reason


@pytest.mark.parametrize("bits", [1, 10, 12, 14])
def test_an_image_that_would_be_nearly_black_is_refused(folder, faults, bits):
    _write(folder, "dash")
    image = np.full((24, 32), 2**bits - 1, np.uint16)
    png = folder.data("walk/img-3.png", cv2.imencode(".png", image)[1].tobytes())
    (sequence,) = read("video", str(folder), None, faults)
    frames = list(sequence.frames.iterate())
    assert [index for index, frame in enumerate(frames) if frame is None] == [2]
    with pytest.raises(ImageError, match=f"uses {bits} of its 16 bits"):
        RGB.open(png)


def test_a_dark_frame_among_bright_ones_of_16_bits_is_a_frame(folder, faults):
    _write(folder, "dash")
    for number, value in ((1, 40_000), (3, 900)):
        png = cv2.imencode(".png", np.full((24, 32), value, np.uint16))[1].tobytes()
        file = folder.data(f"walk/img-{number}.png", png)
    (sequence,) = read("video", str(folder), None, faults)
    assert [index for index, frame in enumerate(sequence.frames.iterate()) if frame is None] == []
    assert sequence.frames.read(2).max() == 3
    first = file.with_name("img-1.png")
    assert [image.pixels.max() for image in open_images([first, file])] == [156, 3]
    with pytest.raises(ImageError, match="uses 10 of its 16 bits"):
        list(open_images([file, first]))


def test_an_image_with_16_bits_is_read_as_bright_as_it_is(folder, faults):
    _write(folder, "dash")
    image = np.full((24, 32, 3), 40_000, np.uint16)
    png = folder.data("walk/img-3.png", cv2.imencode(".png", image)[1].tobytes())
    (sequence,) = read("video", str(folder), None, faults)
    assert sequence.frames.read(2).mean() == pytest.approx(156, abs=1)
    assert RGB.open(png).pixels.mean() == pytest.approx(156, abs=1)
