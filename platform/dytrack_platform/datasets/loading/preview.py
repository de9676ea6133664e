"""A contact sheet of pairs, exactly as training sees them."""

import base64
import html
from pathlib import Path

import cv2
import numpy as np
import torch

from dytrack_platform.datasets.loading.stream import PairBatch
from dytrack_platform.datasets.sequence import Pixels
from dytrack_platform.errors import ConfigurationError
from dytrack_platform.storage.tree import Tree

_GAP = 4
_BOX = (60, 230, 90)


def draw_pairs(batch: PairBatch) -> list[Pixels]:
    """Draw each pair: the template beside the search crop with the target's box.

    Returns:
        For each pair (S, T + gap + S, 3) uint8, red first.
    """
    drawn = []
    templates = batch.template.permute(0, 2, 3, 1).contiguous().numpy()
    searches = batch.search.permute(0, 2, 3, 1).contiguous().numpy()
    for template, search, box in zip(templates, searches, batch.boxes_cxcywh, strict=True):
        size = search.shape[0]
        image = np.full((size, template.shape[1] + _GAP + size, 3), 255, np.uint8)
        image[: template.shape[0], : template.shape[1]] = template
        image[:, -size:] = search
        cx, cy, w, h = (float(value) * size for value in box)
        left = image.shape[1] - size
        start = (round(left + cx - w / 2), round(cy - h / 2))
        end = (round(left + cx + w / 2), round(cy + h / 2))
        inside = np.ascontiguousarray(image)
        cv2.rectangle(inside, start, end, _BOX, 1)
        drawn.append(inside)
    return drawn


def write_preview(path: str | Path, batches: list[PairBatch], columns: int = 4) -> None:
    """Write a contact sheet.

    Args:
        path: A ``.png`` file, or an ``.html`` file that holds its images itself.
        batches: The pairs, in order.
        columns: Pairs beside each other in a PNG.

    Raises:
        ConfigurationError: The file has another suffix.
        StorageError: The file cannot be written.
    """
    path = Path(path)
    images = [image for batch in batches for image in draw_pairs(batch)]
    names = [name for batch in batches for name in batch.sequences]
    if path.suffix == ".png":
        content = _png(_sheet(images, columns))
    elif path.suffix == ".html":
        content = _page(images, names).encode()
    else:
        raise ConfigurationError(f"{path}: a preview is a .png or an .html file")
    Tree(str(path.parent)).write_bytes(path.name, content)


def _png(pixels: Pixels) -> bytes:
    return bytes(cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1].tobytes())


def _sheet(images: list[Pixels], columns: int) -> Pixels:
    blank = np.full_like(images[0], 255)
    padded = [
        cv2.copyMakeBorder(p, _GAP, _GAP, _GAP, _GAP, cv2.BORDER_CONSTANT, value=(255, 255, 255))
        for p in [*images, *([blank] * (-len(images) % columns))]
    ]
    rows = [np.hstack(padded[i : i + columns]) for i in range(0, len(padded), columns)]
    return np.vstack(rows).astype(np.uint8)


def _page(images: list[Pixels], names: list[str]) -> str:
    figures = "\n".join(
        f'<figure><img alt="" src="data:image/png;base64,'
        f'{base64.b64encode(_png(image)).decode()}">'
        f"<figcaption>{html.escape(name)}</figcaption></figure>"
        for image, name in zip(images, names, strict=True)
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="generator" content="dytrack"><title>Training pairs</title>'
        "<style>body{font:14px system-ui;margin:1rem}figure{display:inline-block;margin:.5rem}"
        "figcaption{color:#555}</style>"
        f"<h1>{len(images)} training pairs</h1><p>Template, and search crop with the target's "
        f"box, after jitter and augmentation.</p>\n{figures}</html>\n"
    )


def take(batches: list[PairBatch], pairs: int) -> list[PairBatch]:
    """Keep the first ``pairs`` pairs."""
    kept = []
    for batch in batches:
        count = min(pairs, len(batch.sequences))
        pairs -= count
        if count:
            cut = slice(0, count)
            kept.append(
                PairBatch(
                    batch.template[cut],
                    batch.search[cut],
                    torch.as_tensor(batch.boxes_cxcywh[cut]),
                    batch.template_boxes_cxcywh[cut],
                    batch.sequences[cut],
                )
            )
    return kept
