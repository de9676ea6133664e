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
        content = json.loads(tree.read_bytes(inside))
        listed = [(int(image["id"]), str(image["file_name"])) for image in content["images"]]
        files = dict(listed)
        counts = Counter(number for number, _ in listed)
        classes = {int(c["id"]): str(c["name"]) for c in content.get("categories", [])}
        objects = [
            (f"{int(a['image_id']):012d}#{int(a['id'])}", a)
            for a in sorted(content["annotations"], key=lambda a: (a["image_id"], a["id"]))
            if not a.get("iscrowd")
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{tree.path(inside)}: is not COCO's annotation file ({error!r})"
        ) from error
    folder = tree / year
    by_name = dict(reversed(objects))  # of two with one name the first is used, and each() says so

    def one(name: str) -> VideoSequence:
        annotation = by_name[name]
        if counts[annotation["image_id"]] > 1:
            raise DataError(
                f"two images have the id {annotation['image_id']}: it is not clear which of them "
                "the box is of"
            )
        return _still(folder, name, annotation, files, classes)

    return each(DATASET, [name for name, _ in objects], one, faults)


def _still(
    folder: Tree,
    name: str,
    annotation: dict[str, Any],
    files: dict[int, str],
    classes: dict[int, str],
) -> VideoSequence:
    if annotation["image_id"] not in files:
        raise DataError(f"annotation {annotation['id']} is of an image that is not listed")
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
        frames=ImageFrames(folder, (files[annotation["image_id"]],)),
        boxes_xywh=box,
        visible=np.array([True]),
        object_class=classes.get(annotation.get("category_id", -1)),
    )
