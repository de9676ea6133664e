"""What synthetic scenes are made from: drawn textures, or pieces of real images."""

from functools import lru_cache
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from dytrack_platform.datasets.io.frames import image_frames
from dytrack_platform.datasets.readers import coco
from dytrack_platform.datasets.resident.masks import CutOut, read_coco, read_folder
from dytrack_platform.datasets.sequence import Fault, Pixels, VideoSequence
from dytrack_platform.datasets.synthetic.textures import blob, cut_out, palette, texture
from dytrack_platform.errors import DataError
from dytrack_platform.storage.tree import Tree

Look = NDArray[np.float32] | Pixels
"""What makes an object recognisable: a palette, or a piece of an image."""

_SMALLEST_OBJECT = 32
"""Shorter side in pixels below which an annotated object is too coarse to cut out."""
_TRIES = 20


class Supply(Protocol):
    """Gives backgrounds and objects; all chance is the caller's."""

    def background(self, rng: np.random.Generator, height: int, width: int) -> Pixels:
        """Return (height, width, 3) uint8, red first."""
        ...

    def look(self, rng: np.random.Generator) -> Look:
        """Return the look of a new object."""
        ...

    def similar(self, rng: np.random.Generator, look: Look) -> Look:
        """Return a look that is easily taken for ``look``."""
        ...

    def cut_out(self, rng: np.random.Generator, side: int, aspect: float, look: Look) -> Pixels:
        """Return (side, side, 4) uint8 of an object, its silhouette in the last channel."""
        ...


class DrawnSupply:
    """Textures from noise: needs nothing."""

    def background(self, rng: np.random.Generator, height: int, width: int) -> Pixels:
        """Return (height, width, 3) uint8, red first."""
        return texture(rng, height, width)

    def look(self, rng: np.random.Generator) -> Look:
        """Return a palette."""
        return palette(rng)

    def similar(self, rng: np.random.Generator, look: Look) -> Look:
        """Return nearly the same palette."""
        return np.clip(look + rng.normal(0, 12, look.shape), 0, 255).astype(np.float32)

    def cut_out(self, rng: np.random.Generator, side: int, aspect: float, look: Look) -> Pixels:
        """Return (side, side, 4) uint8 of a textured blob."""
        return cut_out(rng, side, aspect, np.asarray(look, np.float32))


class ImageSupply:
    """Pieces of real images: objects where they are annotated, else any part.

    Objects are cut out along a made outline, since boxes say nothing of the true one.
    """

    def __init__(self, root: str) -> None:
        self._images = _images(root)

    def background(self, rng: np.random.Generator, height: int, width: int) -> Pixels:
        """Return an image, cut to the asked shape and resampled."""
        pixels = self._any(rng)[0]
        scale = max(height / pixels.shape[0], width / pixels.shape[1])
        size = (
            max(width, round(pixels.shape[1] * scale)),
            max(height, round(pixels.shape[0] * scale)),
        )
        large = cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR)
        x = int(rng.integers(0, size[0] - width + 1))
        y = int(rng.integers(0, size[1] - height + 1))
        return np.ascontiguousarray(large[y : y + height, x : x + width], np.uint8)

    def look(self, rng: np.random.Generator) -> Look:
        """Return the image of an object."""
        pixels, box = self._any(rng)
        x, y, w, h = (round(float(value)) for value in box)
        return np.ascontiguousarray(pixels[max(y, 0) : y + h, max(x, 0) : x + w])

    def similar(self, rng: np.random.Generator, look: Look) -> Look:
        """Return the object mirrored, in slightly other light."""
        changed = np.clip(look[:, ::-1] * rng.uniform(0.85, 1.15), 0, 255)
        return np.ascontiguousarray(changed, np.uint8)

    def cut_out(self, rng: np.random.Generator, side: int, aspect: float, look: Look) -> Pixels:
        """Return (side, side, 4) uint8 of the object in its own shape; ``aspect`` is not used."""
        height, width = look.shape[:2]
        own = float(np.clip(width / height, 0.5, 2.0))
        inner = (round(side * min(1.0, own)), round(side * min(1.0, 1 / own)))
        filled = np.zeros((side, side, 3), np.uint8)
        x, y = (side - inner[0]) // 2, (side - inner[1]) // 2
        resized = cv2.resize(np.asarray(look, np.uint8), inner, interpolation=cv2.INTER_AREA)
        filled[y : y + inner[1], x : x + inner[0]] = resized
        return np.dstack([filled, blob(rng, side, own)])

    def _any(self, rng: np.random.Generator) -> tuple[Pixels, NDArray[np.float64]]:
        """Return an image that decodes, and the box of something in it."""
        for _ in range(_TRIES):
            still = self._images[int(rng.integers(len(self._images)))]
            try:
                pixels = still.frames.read(0)
            except DataError:
                continue  # the choice of another is as seeded as this one
            box = still.boxes_xywh[0]
            if not np.isfinite(box).all():
                box = _part(rng, pixels.shape[1], pixels.shape[0])
            return pixels, box
        raise DataError(
            f"{self._images[0].frames.path(0)}: this and {_TRIES - 1} other images do not "
            "decode; give another folder of images"
        )


def _part(rng: np.random.Generator, width: int, height: int) -> NDArray[np.float64]:
    w, h = (max(1.0, rng.uniform(0.2, 0.6) * extent) for extent in (width, height))
    return np.array([rng.uniform(0, width - w), rng.uniform(0, height - h), w, h])


def _coco_split(tree: Tree) -> str:
    """Name the split to read: train, or val where a folder in COCO's layout has no other."""
    return "train" if tree.is_file("annotations/instances_train2017.json") else "val"


@lru_cache(maxsize=2)
def _images(root: str) -> list[VideoSequence]:
    """List the objects of a folder in COCO's layout, or the images of a plain folder.

    Raises:
        DataError: The folder is missing or holds neither.
    """
    tree = Tree(root)
    if not tree.is_folder():
        raise DataError(f"{root}: no such folder of images")
    if tree.is_folder("annotations"):
        faults: list[Fault] = []
        stills = [
            still
            for still in coco.read(root, _coco_split(tree), faults)
            if still.boxes_xywh[0, 2:].min() >= _SMALLEST_OBJECT
        ]
    else:
        frames = image_frames(tree, "")
        stills = [
            VideoSequence(
                dataset="images",
                name=name,
                frames=type(frames)(tree, (name,)),
                boxes_xywh=np.full((1, 4), np.nan),
                visible=np.array([False]),
            )
            for name in frames.names
        ]
    if not stills:
        raise DataError(f"{root}: holds no object of at least {_SMALLEST_OBJECT} pixels")
    return stills


class CutOutSupply(ImageSupply):
    """Real things with their true silhouettes, over real images."""

    def __init__(self, cutouts: str, backgrounds: str) -> None:
        super().__init__(backgrounds)
        self._things, self._kinds = _cut_outs(cutouts)

    def look(self, rng: np.random.Generator) -> Look:
        """Return (H, W, 4) uint8 of a thing; kinds of things are equally likely."""
        kind = self._kinds[int(rng.integers(len(self._kinds)))]
        return self._things[kind[int(rng.integers(len(kind)))]].picture

    def similar(self, rng: np.random.Generator, look: Look) -> Look:
        """Return another thing of the same kind, or the same one mirrored in other light."""
        for kind in self._kinds:
            others = [i for i in kind if self._things[i].picture is not look]
            if len(others) < len(kind) and others:
                return self._things[others[int(rng.integers(len(others)))]].picture
        changed = np.ascontiguousarray(look[:, ::-1]).astype(np.float32)
        changed[..., :3] *= rng.uniform(0.8, 1.2)
        return np.clip(changed, 0, 255).astype(np.uint8)

    def cut_out(self, rng: np.random.Generator, side: int, aspect: float, look: Look) -> Pixels:
        """Return (side, side, 4) uint8 of the thing in its own shape; ``aspect`` is not used."""
        if look.shape[-1] != 4:  # something that stands about: a piece of a background
            return super().cut_out(rng, side, aspect, look)
        scale = side / max(look.shape[:2])
        size = (max(1, round(look.shape[1] * scale)), max(1, round(look.shape[0] * scale)))
        shrunk = cv2.resize(np.asarray(look, np.uint8), size, interpolation=cv2.INTER_AREA)
        filled = np.zeros((side, side, 4), np.uint8)
        x, y = (side - size[0]) // 2, (side - size[1]) // 2
        filled[y : y + size[1], x : x + size[0]] = shrunk
        return filled


@lru_cache(maxsize=2)
def _cut_outs(root: str) -> tuple[list[CutOut], list[list[int]]]:
    """Read things with silhouettes, and which of them are of one kind.

    Raises:
        DataError: The folder holds none.
    """
    tree = Tree(root)
    if tree.is_folder("annotations"):
        things = list(read_coco(tree, _coco_split(tree)))
    else:
        things = list(read_folder(tree))
    if not things:
        raise DataError(f"{root}: holds no thing with a silhouette")
    kinds: dict[str, list[int]] = {}
    for number, thing in enumerate(things):
        kinds.setdefault(thing.category, []).append(number)
    return things, list(kinds.values())


def supply_for(images: str, cutouts: str = "", backgrounds: str = "") -> Supply:
    """Return what a configuration names: things over images, images, or drawn textures."""
    if cutouts:
        return CutOutSupply(cutouts, backgrounds or images)
    return ImageSupply(images) if images else DrawnSupply()
