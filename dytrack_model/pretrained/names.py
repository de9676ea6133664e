"""What timm calls the tensors of a plain vision transformer that others name otherwise.

Known here: timm's own names with the prefixes that wrappers add, DINOv2's own, and those of
Hugging Face's ViT, DeiT, MAE and DINOv2.
"""

import re

import torch
from torch import Tensor

_PREFIXES = ("module.", "model.", "visual.trunk.", "backbone.", "encoder.")
_HUGGING_FACE_LAYER = re.compile(r"^(?:.+\.)?encoder\.layer\.(\d+)\.(.+)$")
_HUGGING_FACE_TOP = re.compile(r"^(?:.+\.)?(embeddings\.[a-z_]+|layernorm)(\..+)?$")
_BLOCK = re.compile(r"^(blocks\.\d+)\.(.+)$")
_RENAMED = {
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.cls_token": "cls_token",
    "embeddings.register_tokens": "reg_token",
    "embeddings.mask_token": "mask_token",
    "layernorm": "norm",
    "register_tokens": "reg_token",
}
_RENAMED_IN_BLOCKS = {
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attention.output.dense": "attn.proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    "mlp.w12": "mlp.fc1",
    "mlp.w3": "mlp.fc2",
    "mlp.weights_in": "mlp.fc1",
    "mlp.weights_out": "mlp.fc2",
}


def timm_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a vision transformer's tensors the names that timm uses.

    Hugging Face keeps queries, keys and values apart; three (D, D) weights become one.
    """
    renamed = {_timm_name(name): value for name, value in tensors.items()}
    for name in [name for name in renamed if name.endswith((".query.weight", ".query.bias"))]:
        block, _, part = name.partition(".attention.attention.query.")
        parts = [f"{block}.attention.attention.{kind}.{part}" for kind in ("query", "key", "value")]
        if all(name in renamed for name in parts):
            joined = torch.cat([renamed.pop(name) for name in parts])
            renamed[f"{block}.attn.qkv.{part}"] = joined
    return renamed


def _timm_name(name: str) -> str:
    layer = _HUGGING_FACE_LAYER.match(name)
    if layer is not None:
        return f"blocks.{layer[1]}.{_renamed(layer[2], _RENAMED_IN_BLOCKS)}"
    top = _HUGGING_FACE_TOP.match(name)
    if top is not None:
        return _renamed(f"{top[1]}{top[2] or ''}", _RENAMED)
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    block = _BLOCK.match(name)
    if block is not None:
        return f"{block[1]}.{_renamed(block[2], _RENAMED_IN_BLOCKS)}"
    return _renamed(name, _RENAMED)


def _renamed(name: str, table: dict[str, str]) -> str:
    for before, after in table.items():
        if name == before or name.startswith(f"{before}."):
            return after + name[len(before) :]
    return name
