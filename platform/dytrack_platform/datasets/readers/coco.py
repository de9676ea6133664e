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
        listed = [(int(image["id"]), str(image["file_name"])) for image in content["images"]]
        files = dict(listed)
        counts = Counter(number for number, _ in listed)
        classes = {int(c["id"]): str(c["name"]) for c in content.get("categories", [])}
        names, by_name = list[str](), dict[str, dict[str, Any]]()
        for annotation in sorted(content["annotations"], key=lambda a: (a["image_id"], a["id"])):
            if not annotation.get("iscrowd"):
                name = f"{int(annotation['image_id']):012d}#{int(annotation['id'])}"
                names.append(name)
                by_name.setdefault(name, annotation)  # each() says that there are two
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{tree.path(inside)}: is not COCO's annotation file ({error!r})"
        ) from error
    images = _Images(tree / year, files)

    def one(name: str) -> VideoSequence:
        annotation = by_name.pop(name)  # what a sequence was made of is not kept beside it
        if counts[annotation["image_id"]] > 1:
            raise DataError(
                f"two images have the id {annotation['image_id']}: it is not clear which of them "
                "the box is of"
            )
        return _still(images, name, annotation, classes)

    return each(DATASET, names, one, faults)


def _lean(found: dict[str, Any]) -> dict[str, Any]:
    """Drop what is not used while the file is parsed: outlines are most of it."""
    return {key: value for key, value in found.items() if key in _USED}


class _Images:
    """Images by their number; targets of one image that follow each other share one object."""

    def __init__(self, folder: Tree, files: dict[int, str]) -> None:
        self._folder, self._files = folder, files
        self._last: tuple[int, ImageFrames] | None = None

    def frames(self, annotation: dict[str, Any]) -> ImageFrames:
        """Return the image of an annotation.

        Raises:
            DataError: It is not listed.
        """
        number = annotation["image_id"]
        if number not in self._files:
            raise DataError(f"annotation {annotation['id']} is of an image that is not listed")
        if self._last is None or self._last[0] != number:
            self._last = number, ImageFrames(self._folder, (self._files[number],))
        return self._last[1]


def _still(
    images: _Images,
    name: str,
    annotation: dict[str, Any],
    classes: dict[int, str],
) -> VideoSequence:
    frames = images.frames(annotation)
    try:
        box = np.array(annotation["bbox"], np.float64).reshape(1, 4)
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"annotation {annotation['id']} has no box of four numbers") from error
    x, y, w, h = box[0].tolist()
    if not (np.isfinite(box).all() and w > 0 and h > 0):
        raise DataError(
            f"annotation {annotation['id']}: the box {x:g},{y:g},{w:g},{h:g} has no area or is "
            "not finite"
        )
    return VideoSequence(
        dataset=DATASET,
        name=name,
        frames=frames,
        boxes_xywh=box,
        visible=_SEEN,
        object_class=classes.get(annotation.get("category_id", -1)),
    )
