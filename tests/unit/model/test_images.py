import resource

import cv2
import numpy as np
import pytest

from dytrack_model.errors import ImageError
from dytrack_model.images import RGB, VideoReader, as_rgb, decoded, read_frames


def test_from_bgr_swaps_the_channels(image):
    np.testing.assert_array_equal(RGB.from_bgr(image).pixels, image[..., ::-1])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4), np.uint8), r"\(H, W, 3\), got uint8 of shape \(4, 4\)"),
        (np.zeros((4, 4, 3), np.float32), "must be uint8"),
        (np.zeros((0, 4, 3), np.uint8), "must not be empty"),
        ([[1]], "must be a numpy array, got list"),
    ],
)
def test_what_is_no_image_is_refused(array, message):
    with pytest.raises(ImageError, match=message):
        RGB(array)


def test_every_kind_of_frame_is_the_same_image(image, tmp_path):
    cv2.imwrite(str(tmp_path / "frame.png"), image[..., ::-1])
    frames = [as_rgb(image), as_rgb(RGB(image), "bgr"), as_rgb(tmp_path / "frame.png", "bgr")]
    frames.append(as_rgb(np.ascontiguousarray(image[..., ::-1]), "bgr"))
    for frame in frames:
        np.testing.assert_array_equal(frame.pixels, image)


@pytest.mark.parametrize(
    ("frame", "channels", "message"),
    [
        (3, "rgb", "array .* RGB image or the path of an image file, got int"),
        (np.zeros((4, 4, 3), np.uint8), "RGB", "channels: must be rgb or bgr, got 'RGB'"),
        (np.zeros((4, 4, 3), np.float32), "bgr", "must be uint8"),
    ],
)
def test_what_is_no_frame_is_refused(frame, channels, message):
    with pytest.raises(ImageError, match=message):
        as_rgb(frame, channels)


def test_images_of_a_folder_come_in_the_order_of_their_numbers(tmp_path):
    for number in (10, 2, 1):
        pixels = np.full((4, 4, 3), number, np.uint8)
        cv2.imwrite(str(tmp_path / f"frame{number}.png"), pixels)
    (tmp_path / "notes.txt").write_text("no image")
    assert [frame.pixels[0, 0, 0] for frame in read_frames(tmp_path)] == [1, 2, 10]


def test_a_source_without_frames_is_named(tmp_path):
    with pytest.raises(ImageError, match=r"holds no image \(\.jpg"):
        next(read_frames(tmp_path))
    with pytest.raises(ImageError, match="no such video file"):
        next(read_frames(tmp_path / "gone.mp4"))
    (tmp_path / "bad.mp4").write_bytes(b"not a video")
    with pytest.raises(ImageError, match="OpenCV does not open it"):
        next(read_frames(tmp_path / "bad.mp4"))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty; was it copied whole"),
        (b"\n<!DOCTYPE html><html><body>Log in</body></html>", "is a web page and no video"),
        (b"\0\0\0\x20ftypisom" + bytes(8000), "the recording was not finished"),
        (b"not a video", "give a video such as"),
    ],
)
def test_a_file_that_is_no_video_is_told_by_what_it_is(tmp_path, data, said):
    (tmp_path / "v.mp4").write_bytes(data)
    with pytest.raises(ImageError, match=said):
        next(read_frames(tmp_path / "v.mp4"))


def test_a_header_of_a_size_that_opencv_does_not_allow_is_no_image(tmp_path):
    """OpenCV raises there, where it answers None for other files that it cannot read."""
    header = b"BMf\0\0\0\0\0\0\0" + b"6\0\0\0(\0\0\0" + b"\x04*+,\x04\0\0\0\x01\0\x18\0" + bytes(10)
    for data in (header, b"", b"no image"):
        assert decoded(data, cv2.IMREAD_COLOR) is None
    path = tmp_path / "huge.bmp"
    path.write_bytes(header)
    with pytest.raises(ImageError, match=r"huge\.bmp: says to be 741026308x4 pixels; images above"):
        RGB.open(path)


def test_a_png_with_a_chunk_that_ends_beyond_the_file_takes_no_memory(tmp_path):
    """OpenCV takes 4 GB for this one before it notices."""
    whole = cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes()
    assert decoded(whole, cv2.IMREAD_COLOR) is not None
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    path = tmp_path / "a.png"
    path.write_bytes(whole[:33] + b"\xfb\0\0\0IEND")
    with pytest.raises(ImageError, match=r"a\.png: does not decode as an image"):
        RGB.open(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kilobytes
    for length in range(len(whole)):
        assert decoded(whole[:length], cv2.IMREAD_COLOR) is None


@pytest.mark.parametrize(("lasts", "whole"), [(39, True), (20, False)])
def test_a_film_of_uneven_rate_is_whole_where_it_lasts_as_long_as_it_says(
    tmp_path, monkeypatch, lasts, whole
):
    """Its header says 40 frames, which is time times rate; it has 20."""

    class Capture:
        left = 20

        def __init__(self, _):
            self.said = {cv2.CAP_PROP_FPS: 25.0, cv2.CAP_PROP_FRAME_COUNT: 40}

        def isOpened(self):
            return True

        def get(self, what):
            return self.said.get(what, (20 - self.left) * 1e3 * lasts / 20 / 25)

        def read(self):
            self.left -= 1
            return self.left >= 0, np.zeros((4, 4, 3), np.uint8)

        def release(self):
            pass

    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    (tmp_path / "v.mkv").write_bytes(b"film")
    frames = VideoReader(tmp_path / "v.mkv").frames()
    if whole:
        assert len(list(frames)) == 20
    else:
        with pytest.raises(ImageError, match="20 of the 40 frames that its header announces"):
            list(frames)
