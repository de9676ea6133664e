"""Things with masks: cut out of pictures by COCO's run-length masks, or read from RGBA files."""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dytrack_model.image_headers import LARGEST_IMAGE
from dytrack_model.images import decoded
from dytrack_platform.datasets.io.frames import decode
from dytrack_platform.datasets.sequence import Pixels
from dytrack_platform.errors import DataError
from dytrack_platform.storage.tree import Tree

HULL_POINTS = 24
_THREADS = 8
_LEAST_SIDE = 16
_LEAST_FILL = 0.15
"""A mask that covers less of its box than this is a frame or a thread; pasted, it shows little."""


@dataclass(frozen=True, slots=True)
class CutOut:
    """A thing without its surroundings."""

    picture: Pixels
    """(H, W, 4) uint8, red first, the last channel its silhouette."""
    hull: NDArray[np.float64]
    """(HULL_POINTS, 2) points of the silhouette's convex hull in pixels; some may be equal."""
    category: str


def cut_out(pixels: Pixels, mask: NDArray[np.bool_], category: str) -> CutOut | None:
    """Cut a thing out of a picture; None where its mask is too small or too thin.

    Args:
        pixels: (H, W, 3) uint8.
        mask: (H, W).
        category: What it is.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        return None
    y1, y2, x1, x2 = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    inside = mask[y1:y2, x1:x2]
    if min(inside.shape) < _LEAST_SIDE or inside.mean() < _LEAST_FILL:
        return None
    # A soft edge of a pixel: a hard one would tell pasted things from real ones.
    alpha = cv2.GaussianBlur(inside.astype(np.uint8) * 255, (3, 3), 0)
    picture = np.dstack([pixels[y1:y2, x1:x2], alpha])
    return CutOut(picture, _hull(inside), category)


def read_folder(tree: Tree) -> Iterator[CutOut]:
    """Read cut-outs from a folder with ``index.json`` and RGBA PNG files.

    Raises:
        DataError: There is no index, or it is damaged.
    """
    try:
        listed = [(str(e["file"]), str(e.get("category", ""))) for e in _index(tree)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{tree.path('index.json')}: is no list of objects with a file ({error!r})"
        ) from error
    for file, category in listed:
        picture = decoded(tree.read_bytes(file), cv2.IMREAD_UNCHANGED)
        if picture is None or picture.ndim != 3 or picture.shape[2] != 4:
            raise DataError(f"{tree.path(file)}: is no picture with a silhouette (RGBA PNG)")
        rgba = cv2.cvtColor(picture, cv2.COLOR_BGRA2RGBA)
        found = cut_out(np.asarray(rgba[..., :3], np.uint8), rgba[..., 3] > 127, category)
        if found is not None:
            yield found


def read_coco(tree: Tree, split: str, extra: str | None = None) -> Iterator[CutOut]:
    """Cut every object with a run-length mask out of a split in COCO's layout.

    Args:
        tree: The dataset's root.
        split: train or val.
        extra: A file in ``annotations`` with masks of the same pictures, if there is one.

    Raises:
        DataError: An annotation file is missing or damaged.
    """
    year = f"{split}2017"
    inside = f"annotations/{extra or f'instances_{year}.json'}"
    try:
        content = json.loads(tree.read_bytes(inside))
        files = {int(image["id"]): str(image["file_name"]) for image in content["images"]}
        names = {int(c["id"]): str(c["name"]) for c in content.get("categories", [])}
        by_image: dict[int, list[dict[str, Any]]] = {}
        for annotation in content["annotations"]:
            if isinstance(annotation.get("segmentation"), dict) and not annotation.get("iscrowd"):
                by_image.setdefault(int(annotation["image_id"]), []).append(annotation)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise DataError(
            f"{tree.path(inside)}: is not COCO's annotation file ({error!r})"
        ) from error
    with ThreadPoolExecutor(_THREADS) as pool:  # OpenCV lets go of the interpreter
        for found in pool.map(
            lambda image: list(_of_image(tree, f"{year}/{files[image]}", by_image[image], names)),
            by_image,
        ):
            yield from found


def _of_image(
    tree: Tree, file: str, annotations: list[dict[str, Any]], names: dict[int, str]
) -> Iterator[CutOut]:
    if not tree.is_file(file):
        return  # of the other split
    pixels = decode(tree.read_bytes(file), file)
    for annotation in annotations:
        mask = decode_runs(annotation["segmentation"])
        if mask.shape != pixels.shape[:2]:
            continue
        found = cut_out(pixels, mask, names.get(int(annotation["category_id"]), ""))
        if found is not None:
            yield found


def decode_runs(segmentation: dict[str, Any]) -> NDArray[np.bool_]:
    """Decode COCO's run-length mask, compressed or not, to (H, W).

    Runs alternate between outside and inside, column by column. The compressed form writes each
    run as a difference to the one before the last, in groups of five bits above the character
    ``0`` (cocodataset/cocoapi, ``maskApi.c``).
    """
    height, width = (int(value) for value in segmentation["size"])
    counts = segmentation["counts"]
    runs = _decompress(counts) if isinstance(counts, str) else [int(value) for value in counts]
    if min(runs, default=0) < 0 or sum(runs) != height * width or sum(runs) > LARGEST_IMAGE:
        raise DataError(
            f"a run-length mask of {height}x{width} has {sum(runs)} pixels; it is damaged"
        )
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape(width, height).T


def _decompress(text: str) -> list[int]:
    runs: list[int] = []
    place = 0
    while place < len(text):
        value, shift, more = 0, 0, True
        while more:
            bits = ord(text[place]) - 48
            value |= (bits & 0x1F) << shift
            more = bool(bits & 0x20)
            place, shift = place + 1, shift + 5
            if not more and bits & 0x10:
                value |= -1 << shift  # the sign of a difference
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    return runs


def _index(tree: Tree) -> Sequence[dict[str, Any]]:
    if not tree.is_file("index.json"):
        raise DataError(f"{tree.root}: holds no index.json that lists cut-outs")
    listed: Sequence[dict[str, Any]] = json.loads(tree.read_bytes("index.json"))
    return listed


def _hull(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    ys, xs = np.nonzero(mask)
    points = np.stack([xs, ys], axis=1).astype(np.int32)
    hull = cv2.convexHull(points)[:, 0].astype(np.float64) + 0.5
    # The outermost point in each of as many directions. A corner is the outermost one in all
    # directions that its angle leaves open: none that shows is lost, however the thing is turned.
    angles = np.linspace(0, 2 * np.pi, HULL_POINTS, endpoint=False)
    outwards = np.stack([np.cos(angles), np.sin(angles)])
    return np.asarray(hull[(hull @ outwards).argmax(axis=0)], np.float64)
