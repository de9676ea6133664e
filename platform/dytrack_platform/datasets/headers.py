"""What an encoded image says of itself, read without decoding it."""

import struct


def is_cut_short(data: bytes) -> bool:
    """Tell whether a JPEG or PNG lacks its end.

    A JPEG's end marker must follow the last start of compressed data; inside of compressed data
    neither can occur. Other formats count as whole: their decoders notice.
    """
    if data[:2] == b"\xff\xd8":
        return data.rfind(b"\xff\xd9") < max(data.rfind(b"\xff\xda"), 2)
    return data[:4] == b"\x89PNG" and b"IEND" not in data[-64:]


def stated_size(data: bytes) -> tuple[int, int]:
    """Give width and height in pixels as the header states them.

    Returns:
        (0, 0) where the format is not JPEG, PNG or BMP, or the header is damaged.
    """
    if data[:2] == b"\xff\xd8":
        return _jpeg_size(data)
    try:
        if data[:4] == b"\x89PNG":
            width, height = struct.unpack(">II", data[16:24])
        elif data[:2] == b"BM":
            width, height = struct.unpack("<ii", data[18:26])
        else:
            return 0, 0
    except struct.error:
        return 0, 0
    return abs(width), abs(height)


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Walk the markers to the start of frame."""
    position = 2
    while position + 9 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # padding
            position += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[position + 5 : position + 9])
            return width, height
        else:
            position += 2 + int(struct.unpack(">H", data[position + 2 : position + 4])[0])
    return 0, 0
