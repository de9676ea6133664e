"""COCO 2017: still images; each annotated object is a sequence of one frame.

::

    ROOT/annotations/instances_{train,val}2017.json
    ROOT/{train,val}2017/000000000009.jpg

A sequence is named ``IMAGE#ANNOTATION``. Groups (``iscrowd``) are no targets and are left out.
"""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from dytrack_platform.datasets.io.frames import ImageFrames
from dytrack_platform.datasets.readers._reading import each, open_root
from dytrack_platform.datasets.sequence import Fault, VideoSequence
from dytrack_platform.errors import DataError
from dytrack_platform.storage.tree import Tree

DATASET = "coco"
_USED = frozenset(
    [
        *("images", "annotations", "categories", "id", "file_name", "name"),
        *("image_id", "category_id", "bbox", "iscrowd"),
    ]
)
"""Keys of the annotation file that are looked at, at whatever depth."""
_SEEN = np.array([True])
_SEEN.flags.writeable = False
"""Shared by all: hundreds of thousands of arrays of one element would weigh more than the boxes."""


def read(
    root: str, split: str | None = "train", faults: list[Fault] | None = None
) -> Iterator[VideoSequence]:
    """Read a split of COCO's object annotations, by image and then by annotation.

    Args:
        root: Folder or URL that holds ``annotations`` and the image folders.
        split: train or val.
        faults: Filled with what had to be passed over; without it, faults are logged.

    Raises:
        DataError: The root or the annotation file is missing or damaged.
    """
    tree = open_root(root)
    year = f"{split or 'train'}2017"
    inside = f"annotations/instances_{year}.json"
    try:
        content = json.loads(tree.read_bytes(inside).decode("utf-8-sig"), object_hook=_lean)
        images = _Images(
            tree / year,
            [(int(image["id"]), str(image["file_name"])) for image in content["images"]],
        )
        classes = {int(c["id"]): str(c["name"]) for c in content.get("categories", [])}
        found = [one for one in content.pop("annotations") if not one.get("iscrowd")]
        found.sort(key=lambda one: (one["image_id"], one["id"]))
        targets = _Targets(images, classes, found)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise DataError(
            f"{tree.path(inside)}: is not COCO's annotation file ({error!r})"
        ) from error
    del content, found  # a sequence for each of a million boxes is made without them
    return each(DATASET, targets.names, targets.sequence, faults)


def _lean(found: dict[str, Any]) -> dict[str, Any]:
    """Drop what is not used while the file is parsed: outlines are most of it."""
    return {key: value for key, value in found.items() if key in _USED}


class _Images:
    """Images by their number; targets of one image that follow each other share one object."""

    def __init__(self, folder: Tree, listed: list[tuple[int, str]]) -> None:
        self._folder, self._files = folder, dict(listed)
        self._counts = Counter(number for number, _ in listed)
        self._last: tuple[int, ImageFrames] | None = None

    def frames(self, number: int, annotation: int) -> ImageFrames:
        """Return the image of an annotation.

        Raises:
            DataError: It is not listed, or listed twice.
        """
        if self._counts[number] > 1:
            raise DataError(
                f"two images have the id {number}: it is not clear which of them the box is of"
            )
        if number not in self._files:
            raise DataError(f"annotation {annotation} is of an image that is not listed")
        if self._last is None or self._last[0] != number:
            self._last = number, ImageFrames(self._folder, (self._files[number],))
        return self._last[1]


class _Targets:
    """The annotations as columns: boxes are rows of one array, which all sequences share."""

    def __init__(
        self, images: _Images, classes: dict[int, str], annotations: list[dict[str, Any]]
    ) -> None:
        self._images = images
        self._pictures = np.array([int(one["image_id"]) for one in annotations], np.int64)
        self._ids = np.array([int(one["id"]) for one in annotations], np.int64)
        self._classes = [classes.get(one.get("category_id", -1)) for one in annotations]
        self._boxes = np.full((len(annotations), 4), np.nan)
        self._without_box = set[int]()
        for row, one in enumerate(annotations):
            try:
                self._boxes[row] = np.array(one["bbox"], np.float64).reshape(4)
            except (ValueError, TypeError, KeyError, OverflowError):
                self._without_box.add(row)
        columns = zip(self._pictures.tolist(), self._ids.tolist(), strict=True)
        self.names = [f"{picture:012d}#{annotation}" for picture, annotation in columns]
        self._rows = dict(zip(reversed(self.names), reversed(range(len(self.names))), strict=True))

    def sequence(self, name: str) -> VideoSequence:
        """Make the sequence of a name; of several that have it, the first.

        Raises:
            DataError: Its box or its image cannot be used.
        """
        row = self._rows[name]
        annotation = int(self._ids[row])
        frames = self._images.frames(int(self._pictures[row]), annotation)
        if row in self._without_box:
            raise DataError(f"annotation {annotation} has no box of four numbers")
        box = self._boxes[row : row + 1]
        x, y, w, h = box[0].tolist()
        if not (np.isfinite(box).all() and w > 0 and h > 0):
            raise DataError(
                f"annotation {annotation}: the box {x:g},{y:g},{w:g},{h:g} has no area or is "
                "not finite"
            )
        return VideoSequence(
            dataset=DATASET,
            name=name,
            frames=frames,
            boxes_xywh=box,
            visible=_SEEN,
            object_class=self._classes[row],
        )
