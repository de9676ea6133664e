import struct
import zlib

import cv2
import numpy as np
import pytest

from dytrack_model.image_headers import is_cut_short, stated_size
from dytrack_platform.datasets.io.frames import decode, image_frames, in_number_order
from dytrack_platform.errors import DataError
from dytrack_platform.storage.tree import Tree


def noise(suffix=".jpg", size=(64, 48)):
    pixels = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)
    return cv2.imencode(suffix, pixels)[1].tobytes()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp"])
def test_a_header_states_the_size_that_decoding_gives(suffix):
    assert stated_size(noise(suffix)) == (64, 48)
    assert decode(noise(suffix), "a").shape == (48, 64, 3)


def test_images_are_red_first():
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 2] = 255  # OpenCV encodes blue first
    assert decode(cv2.imencode(".png", red)[1].tobytes(), "a")[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_an_image_cut_short_anywhere_is_refused(suffix):
    whole = noise(suffix)
    for length in np.random.default_rng(1).integers(1, len(whole) - 2, 50):
        with pytest.raises(DataError, match=r"^name\.jpg: "):
            decode(whole[:length], "name.jpg")


def test_a_jpeg_with_bytes_after_its_end_is_whole():
    assert not is_cut_short(noise() + b"\0" * 100)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"\0" * 500, "does not decode as an image"),
        (b"<html>not found</html>", "does not decode as an image"),
    ],
)
def test_what_is_no_image_is_refused(data, reason):
    with pytest.raises(DataError, match=f"a.jpg: {reason}"):
        decode(data, "a.jpg")


def test_other_formats_are_refused_since_their_size_is_not_known_before(tmp_path):
    for suffix in (".tiff", ".ppm"):
        with pytest.raises(DataError, match=r"a\.jpg: does not decode as an image \(JPEG, PNG"):
            decode(noise(suffix), "a.jpg")


def test_stray_bytes_between_the_headers_of_a_jpeg_do_not_hide_its_size():
    whole = noise()
    frame = whole.find(b"\xff\xc0")
    strayed = whole[:frame] + bytes(50) + b"\xff\xff" + whole[frame:]
    assert stated_size(strayed) == (64, 48)
    huge = whole[: frame + 5] + struct.pack(">HH", 30_000, 30_000) + whole[frame + 9 :]
    with pytest.raises(DataError, match="says to be 30000x30000 pixels"):
        decode(huge, "a.jpg")


@pytest.mark.parametrize("quality", [80, 101])  # above 100: lossless, another kind of chunk
def test_a_webp_of_either_kind_states_its_size(quality):
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    data = cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, quality])[1].tobytes()
    assert stated_size(data) == (64, 48)
    extended = b"RIFF" + bytes(4) + b"WEBPVP8X" + bytes(8) + b"\x2f\x75\0" * 2
    with pytest.raises(DataError, match="says to be 30000x30000 pixels"):
        decode(extended, "a.webp")


def test_an_image_that_claims_to_be_huge_is_refused_before_it_is_decoded():
    def chunk(kind, body):
        crc = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + crc

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IEND", b"")
    with pytest.raises(DataError, match=r"says to be 30000x30000 pixels; images above 100,000,000"):
        decode(bomb, "a.png")


def test_images_are_listed_by_name_or_by_number(folder):
    folder.images("a", (0, 1, 10), "{}.jpg")
    folder.text("a/notes.txt", "not an image")
    tree = Tree(str(folder))
    assert image_frames(tree, "a").names == ("0.jpg", "1.jpg", "10.jpg")
    assert image_frames(tree, "a", numbered=True).names == tuple(f"{i}.jpg" for i in range(11))
    folder.text("b/notes.txt", "")
    with pytest.raises(DataError, match="b: holds no image"):
        image_frames(tree, "b")


@pytest.mark.parametrize(
    ("names", "first", "ordered"),
    [
        (["1.jpg", "3.jpg", "2.jpg"], 9, ["1.jpg", "2.jpg", "3.jpg"]),
        (["0001.jpg", "0004.jpg"], None, ["0001.jpg", "0002.jpg", "0003.jpg", "0004.jpg"]),
        (["00000003.jpg"], 1, ["00000001.jpg", "00000002.jpg", "00000003.jpg"]),
        (["0.jpg", "2.jpg"], 0, ["0.jpg", "1.jpg", "2.jpg"]),
        (["8.png", "11.png"], None, ["8.png", "9.png", "10.png", "11.png"]),
        (["b.jpg", "a.jpg"], 1, ["a.jpg", "b.jpg"]),
        (["1.jpg", "1.png", "2.jpg"], 1, ["1.jpg", "1.png", "2.jpg"]),
    ],
)
def test_a_missing_number_keeps_its_place(names, first, ordered):
    assert in_number_order(names, first) == ordered


def test_numbers_that_are_no_frame_numbers_are_not_filled_up():
    names = ["20240101.jpg", "20250101.jpg"]
    assert in_number_order(names, 1) == names


def test_a_missing_frame_is_named_and_the_others_keep_their_boxes(folder, number_of):
    folder.images("a", (1, 2, 4), "{:04d}.jpg")
    frames = image_frames(Tree(str(folder)), "a", numbered=True, first=1)
    assert number_of(frames.read(3)) == 4
    with pytest.raises(DataError, match=r"a/0003\.jpg: cannot be read"):
        frames.read(2)
