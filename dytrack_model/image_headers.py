"""What an encoded image says of itself, read without decoding it."""

import struct

LARGEST_IMAGE = 100_000_000
"""Pixels; a small file can claim many more, and would take the machine's memory."""
_PNG = b"\x89PNG\r\n\x1a\n"
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""JPEG markers whose segment starts with the image's size."""
_SCAN = 0xDA
"""JPEG marker of the compressed data, before which the size must have been said."""
_BARE_MARKERS = frozenset((0x01, *range(0xD0, 0xDA)))
"""JPEG markers without a segment."""


def is_cut_short(data: bytes) -> bool:
    """Tell whether a JPEG or PNG lacks its end.

    A JPEG's end marker must follow the last start of compressed data; inside of compressed data
    neither can occur. Other formats count as whole: their decoders notice.
    """
    if data[:2] == b"\xff\xd8":
        if len(data) >= 4 and data[-2:] == b"\xff\xd9":  # nearly every one: no search
            return False
        return data.rfind(b"\xff\xd9") < max(data.rfind(b"\xff\xda"), 2)
    return is_cut_short_png(data)


def is_cut_short_png(data: bytes) -> bool:
    """Tell whether data is a PNG with a chunk that ends beyond the data, or without its last one.

    A decoder takes memory for a chunk before it reads it, up to 4 GB: no such PNG may reach one.
    """
    if not data.startswith(_PNG):
        return False
    position = len(_PNG)
    while position + 12 <= len(data):  # each chunk: length, kind, content, checksum
        kind = data[position + 4 : position + 8]
        position += 12 + int.from_bytes(data[position : position + 4], "big")
        if kind == b"IEND":
            return position > len(data)
    return True


def too_large(width: int, height: int) -> str:
    """Say why an image of this size is refused; nothing where it is not."""
    if width * height <= LARGEST_IMAGE:
        return ""
    return f"says to be {width}x{height} pixels; images above {LARGEST_IMAGE:,} pixels are refused"


def stated_size(data: bytes) -> tuple[int, int] | None:
    """Return width and height in pixels as the header states them.

    Returns:
        None where the data is no JPEG, PNG, BMP or WebP, or its header is damaged.
    """
    try:
        if data[:2] == b"\xff\xd8":
            return _jpeg_size(data)
        if data.startswith(_PNG):
            return _pair(">II", data[16:24])
        if data[:2] == b"BM":
            return _pair("<ii", data[18:26])
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _webp_size(data)
    except struct.error:
        return None
    return None


def _pair(layout: str, data: bytes) -> tuple[int, int]:
    first, second = struct.unpack(layout, data)
    return abs(int(first)), abs(int(second))


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Walk the markers to the start of frame, over stray bytes as decoders do."""
    position = 2
    while position + 9 <= len(data):
        marker = data[position + 1]
        if data[position] != 0xFF:
            position = data.find(b"\xff", position)
            if position < 0:
                return None
        elif marker in (0x00, 0xFF):
            position += 1
        elif marker == _SCAN:
            return None
        elif marker in _FRAME_HEADERS:
            height, width = _pair(">HH", data[position + 5 : position + 9])
            return width, height
        elif marker in _BARE_MARKERS:
            position += 2
        else:
            position += 2 + int(struct.unpack(">H", data[position + 2 : position + 4])[0])
    return None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """Read the size from the first chunk: lossy, lossless or extended."""
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = _pair("<HH", data[26:30])
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        bits = int(struct.unpack("<I", data[21:25])[0])
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8X" and len(data) >= 30:
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    return None
