"""Sample predictions as one image: search crops with the true box and every exit's."""

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from dytrack_platform.training.batches import Batch
from dytrack_platform.training.objective import TrainModule

_TRUTH = (255, 255, 255)
_SCALE = 2


@torch.inference_mode()
def sheet(module: TrainModule, batch: Batch, count: int, device: torch.device) -> bytes:
    """Draw up to ``count`` pairs side by side: the template above its search region.

    White is the true box; the exits go from red (shallow) to blue (deep) in the order of hues,
    each with the IoU that its decisioner predicts.

    Returns:
        A PNG file.
    """
    was_training = module.training
    module.eval()
    template, search = batch.template[:count], batch.search[:count]
    in_template = batch.template_boxes_cxcywh[:count].to(device)
    outputs = module.network(template.to(device), search.to(device), in_template)
    module.train(was_training)
    boxes = torch.stack([output.boxes_cxcywh for output in outputs], dim=1).float().cpu().numpy()
    scores = torch.stack([output.predicted_iou for output in outputs], dim=1).float().cpu()
    columns = [
        _column(
            template[index].permute(1, 2, 0).numpy(),
            search[index].permute(1, 2, 0).numpy(),
            batch.boxes_cxcywh[index].numpy(),
            boxes[index],
            dict(zip(module.network.config.exits, scores[index].tolist(), strict=True)),
        )
        for index in range(len(search))
    ]
    written, png = cv2.imencode(".png", np.concatenate(columns, axis=1)[..., ::-1])
    if not written:
        raise RuntimeError("OpenCV cannot write PNG files")
    return png.tobytes()


def _column(
    template: NDArray[np.uint8],
    search: NDArray[np.uint8],
    truth: NDArray[np.float32],
    boxes: NDArray[np.float32],
    scores: dict[int, float],
) -> NDArray[np.uint8]:
    """Stack one pair, (H, W, 3) red first; boxes are (4,) and (E, 4) in [0, 1].

    The scores are by the depth of their exit in blocks.
    """
    side = search.shape[0] * _SCALE
    drawn = np.asarray(cv2.resize(search, (side, side)), np.uint8)
    _rectangle(drawn, truth, _TRUTH)
    for index, (box, (block, score)) in enumerate(zip(boxes, scores.items(), strict=True)):
        colour = _hue(index / max(len(scores) - 1, 1))
        _rectangle(drawn, box, colour)
        place = (4, side - 6 - 14 * (len(scores) - 1 - index))
        text = f"after {block}: {score:.2f}"
        cv2.putText(drawn, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, cv2.LINE_AA)
    canvas = np.zeros((template.shape[0] * _SCALE, side, 3), np.uint8)
    small = cv2.resize(template, None, fx=_SCALE, fy=_SCALE, interpolation=cv2.INTER_LINEAR)
    canvas[:, : small.shape[1]] = small[:, :side]
    return np.concatenate([canvas, drawn], axis=0)


def _rectangle(
    image: NDArray[np.uint8], box: NDArray[np.float32], colour: tuple[int, int, int]
) -> None:
    centre, half = box[:2] * image.shape[0], box[2:] * image.shape[0] / 2
    first, last = (tuple(int(v) for v in corner) for corner in (centre - half, centre + half))
    cv2.rectangle(image, first, last, colour, 1, cv2.LINE_AA)


def _hue(share: float) -> tuple[int, int, int]:
    """Return red for 0, blue for 1, and the hues between."""
    pixel = np.uint8([[[int(120 * share), 255, 255]]])  # type: ignore[arg-type]
    red, green, blue = cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0].tolist()  # type: ignore[call-overload]
    return red, green, blue
