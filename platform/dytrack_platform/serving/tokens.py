"""Resume tokens: a stream's targets and where they are, signed, for any server of the same key."""

import base64
import binascii
import hashlib
import hmac
import json
import zlib
from dataclasses import dataclass

from dytrack_platform.serving.messages import Refused
from dytrack_platform.serving.pictures import Origin

_MOST = 2**25


@dataclass(frozen=True, kw_only=True, slots=True)
class SavedTarget:
    """One target in a token."""

    id: str
    origin: Origin
    box_xywh: tuple[float, ...]
    """Where it was last, in pixels of the frame."""
    point: str
    wide_frames: int = 0
    """For how many frames the whole search region is looked at."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SavedStream:
    """A stream in a token."""

    targets: tuple[SavedTarget, ...]


def seal(stream: SavedStream, secret: str) -> str:
    """Write a token."""
    values = {
        "targets": [
            {
                "id": target.id,
                "png": base64.b64encode(target.origin.png).decode(),
                "from": list(target.origin.box_xywh),
                "box": list(target.box_xywh),
                "point": target.point,
                "wide": target.wide_frames,
            }
            for target in stream.targets
        ],
    }
    body = base64.urlsafe_b64encode(zlib.compress(json.dumps(values).encode(), 1)).decode()
    return f"{body}.{_sign(body, secret)}"


def unseal(token: str, secret: str) -> SavedStream:
    """Read a token.

    Raises:
        Refused: It was not written with this key, or is damaged.
    """
    body, _, signature = token.rpartition(".")
    known = secret and token.isascii()
    if not known or not hmac.compare_digest(_sign(body, secret), signature):
        raise Refused("resume", "the resume token is not one of this server's")
    try:
        unpacked = zlib.decompressobj().decompress(base64.urlsafe_b64decode(body), _MOST)
        values = json.loads(unpacked)
        return SavedStream(
            targets=tuple(
                SavedTarget(
                    id=row["id"],
                    origin=Origin(base64.b64decode(row["png"]), tuple(row["from"])),
                    box_xywh=tuple(row["box"]),
                    point=row["point"],
                    wide_frames=int(row.get("wide", 0)),
                )
                for row in values["targets"]
            ),
        )
    except (ValueError, KeyError, TypeError, zlib.error, binascii.Error):
        raise Refused("resume", "the resume token is damaged") from None


def _sign(body: str, secret: str) -> str:
    return hmac.new(secret.encode(), body.encode(), hashlib.sha256).hexdigest()
