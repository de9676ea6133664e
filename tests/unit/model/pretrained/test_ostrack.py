"""Import of published OSTrack checkpoints, made here with random numbers."""

import pytest
import torch
import torch.nn.functional as F

from dytrack_model import checkpoint
from dytrack_model.config import variant
from dytrack_model.errors import CheckpointError, ConfigurationError
from dytrack_model.network import DyTrackNetwork
from dytrack_model.pretrained.ostrack import import_tracker, load

MEAN = torch.tensor((0.485, 0.456, 0.406)).view(1, 3, 1, 1)
DEVIATION = torch.tensor((0.229, 0.224, 0.225)).view(1, 3, 1, 1)
BRANCHES = {"ctr": 1, "offset": 2, "size": 2}


def published(width=64, depth=3, patch=8, template=4, search=8, head=16, make=None):
    """The names and shapes of OSTrack's ``ckpt["net"]``, filled by ``make(shape)``."""
    make = make or (lambda *shape: 0.15 * torch.randn(*shape))
    net = {
        "backbone.cls_token": make(1, 1, width),
        "backbone.pos_embed": make(1, 14 * 14 + 1, width),
        "backbone.pos_embed_z": make(1, template**2, width),
        "backbone.pos_embed_x": make(1, search**2, width),
        "backbone.patch_embed.proj.weight": make(width, 3, patch, patch),
        "backbone.patch_embed.proj.bias": make(width),
        "backbone.norm.weight": make(width) + 1,
        "backbone.norm.bias": make(width),
    }
    for block in range(depth):
        for name, shape in {
            "norm1.weight": (width,),
            "norm1.bias": (width,),
            "attn.qkv.weight": (3 * width, width),
            "attn.qkv.bias": (3 * width,),
            "attn.proj.weight": (width, width),
            "attn.proj.bias": (width,),
            "norm2.weight": (width,),
            "norm2.bias": (width,),
            "mlp.fc1.weight": (4 * width, width),
            "mlp.fc1.bias": (4 * width,),
            "mlp.fc2.weight": (width, 4 * width),
            "mlp.fc2.bias": (width,),
        }.items():
            net[f"backbone.blocks.{block}.{name}"] = make(*shape)
    for branch, outputs in BRANCHES.items():
        before = width
        for level, channels in enumerate((head, head // 2, head // 4, head // 8), start=1):
            layer = f"box_head.conv{level}_{branch}"
            net[f"{layer}.0.weight"] = make(channels, before, 3, 3)
            net[f"{layer}.0.bias"] = make(channels)
            net[f"{layer}.1.weight"] = make(channels) + 1
            net[f"{layer}.1.bias"] = make(channels)
            net[f"{layer}.1.running_mean"] = make(channels)
            net[f"{layer}.1.running_var"] = make(channels).abs() + 0.5
            net[f"{layer}.1.num_batches_tracked"] = torch.tensor(140_000)
            before = channels
        net[f"box_head.conv5_{branch}.weight"] = make(outputs, before, 1, 1)
        net[f"box_head.conv5_{branch}.bias"] = make(outputs)
    return net


def reference(net, template, search, heads=1, depth=3):
    """OSTrack's forward pass without candidate elimination, written from its description.

    Returns the score, size and offset maps and the box at the peak.
    """

    def embed(images, positions):
        pixels = (images / 255 - MEAN) / DEVIATION
        weight, bias = (net[f"backbone.patch_embed.proj.{p}"] for p in ("weight", "bias"))
        patches = F.conv2d(pixels, weight, bias, stride=weight.shape[-1])
        return patches.flatten(2).transpose(1, 2) + net[f"backbone.{positions}"]

    def linear(x, name):
        return F.linear(x, net[f"{name}.weight"], net[f"{name}.bias"])

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], net[f"{name}.weight"], net[f"{name}.bias"], eps=1e-6)

    x = torch.cat([embed(template, "pos_embed_z"), embed(search, "pos_embed_x")], dim=1)
    batch, tokens, width = x.shape
    for index in range(depth):
        block = f"backbone.blocks.{index}"
        qkv = linear(norm(x, f"{block}.norm1"), f"{block}.attn.qkv")
        q, k, v = qkv.reshape(batch, tokens, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2) * (width // heads) ** -0.5).softmax(dim=-1)
        mixed = (weights @ v).transpose(1, 2).reshape(batch, tokens, width)
        x = x + linear(mixed, f"{block}.attn.proj")
        hidden = F.gelu(linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1"))
        x = x + linear(hidden, f"{block}.mlp.fc2")
    side = round(net["backbone.pos_embed_x"].shape[1] ** 0.5)
    features = norm(x, "backbone.norm")[:, -side * side :]
    features = features.transpose(1, 2).reshape(batch, width, side, side)
    maps = {}
    for branch in BRANCHES:
        y = features
        for level in (1, 2, 3, 4):
            layer = f"box_head.conv{level}_{branch}"
            y = F.conv2d(y, net[f"{layer}.0.weight"], net[f"{layer}.0.bias"], padding=1)
            mean, variance, scale, shift = (
                net[f"{layer}.1.{part}"].view(1, -1, 1, 1)
                for part in ("running_mean", "running_var", "weight", "bias")
            )
            y = ((y - mean) / (variance + 1e-5).sqrt() * scale + shift).relu()
        layer = f"box_head.conv5_{branch}"
        maps[branch] = F.conv2d(y, net[f"{layer}.weight"], net[f"{layer}.bias"])
    score, size = (maps[name].sigmoid().clamp(1e-4, 1 - 1e-4) for name in ("ctr", "size"))
    boxes = []
    for image in range(batch):
        row, column = divmod(score[image, 0].argmax().item(), side)
        dx, dy = maps["offset"][image, :, row, column].tolist()
        w, h = size[image, :, row, column].tolist()
        boxes.append([(column + dx) / side, (row + dy) / side, w, h])
    return score[:, 0], size, maps["offset"], torch.tensor(boxes)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return published()


@pytest.fixture
def file(net, tmp_path):
    path = tmp_path / "OSTrack_ep0300.pth.tar"
    torch.save({"epoch": 300, "net_type": "OSTrack", "net": net}, path)
    return path


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(1)
    return tuple(
        torch.randint(0, 256, (4, 3, side, side), generator=generator, dtype=torch.uint8)
        for side in (32, 64)
    )


@pytest.mark.parametrize("recycling", ["none", "concat", "cascade"])
def test_at_full_depth_an_imported_tracker_computes_what_ostrack_computes(
    net, file, images, recycling, tmp_path
):
    network, _ = import_tracker(file, (1, 3), recycling=recycling)
    network = checkpoint.load(checkpoint.save(tmp_path / "tracker", network)).network
    with torch.inference_mode():
        deepest = network(*images)[-1]
    score, size, offset, boxes = reference(net, *images)
    assert score.amax() - score.amin() > 0.05, "the maps must differ from cell to cell"
    torch.testing.assert_close(deepest.maps.score, score, atol=1e-5, rtol=0)
    torch.testing.assert_close(deepest.maps.size, size, atol=1e-5, rtol=0)
    torch.testing.assert_close(deepest.maps.offset, offset, atol=1e-5, rtol=0)
    torch.testing.assert_close(deepest.boxes_cxcywh, boxes, atol=1e-5, rtol=0)


def test_the_shallow_exits_start_with_the_published_norm_and_head(file, images):
    network, _ = import_tracker(file, (1, 3))
    shallow, deep = network.heads
    for name, value in deep.state_dict().items():
        torch.testing.assert_close(shallow.state_dict()[name], value)
    torch.testing.assert_close(network.norms[0].weight, network.norms[1].weight)


def test_every_published_tensor_lands_or_is_listed(net, file):
    _, report = import_tracker(file, (1, 3))
    assert {*report.loaded, *report.ignored} == set(net)
    assert report.ignored == ("backbone.pos_embed",)
    assert {name.split(".")[0] for name in report.untouched} == {"decisioners", "recycling"}


def test_segment_embeddings_land_in_positions_and_type(net, images):
    plain = published(make=None)
    plain.update(net)
    segments = {
        f"backbone.{which}_segment_pos_embed": torch.randn(1, 1, 64)
        for which in ("template", "search")
    }
    network = small_network()
    report = load(network, {**net, **segments}, "f")
    assert set(segments) <= set(report.loaded)
    shifted = dict(net)
    shifted["backbone.pos_embed_z"] = (
        net["backbone.pos_embed_z"] + segments["backbone.template_segment_pos_embed"]
    )
    shifted["backbone.pos_embed_x"] = (
        net["backbone.pos_embed_x"] + segments["backbone.search_segment_pos_embed"]
    )
    with torch.inference_mode():
        boxes = network.eval()(*images)[-1].boxes_cxcywh
    torch.testing.assert_close(boxes, reference(shifted, *images)[-1], atol=1e-5, rtol=0)


def small_network(**changes):
    sizes = {
        "width": 64,
        "depth": 3,
        "heads": 1,
        "patch": 8,
        "template_size": 32,
        "search_size": 64,
        "exits": (1, 3),
        "head_width": 16,
        "iou_token": "read_only",
    }
    return DyTrackNetwork(variant("test", **{**sizes, **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 96, "heads": 3}, r"backbone.blocks.0.attn.proj.bias is \(64,\), the network "),
        ({"search_size": 96}, r"pos_embed_x is \(1, 64, 64\), the network needs \(1, 144, 64\)"),
        ({"depth": 4, "exits": (1, 4)}, r"backbone.blocks.3.attn.proj.bias is missing"),
        ({"head_width": 32}, r"box_head.conv1_ctr.0.bias is \(16,\), the network needs \(32,\)"),
    ],
)
def test_tensors_of_another_size_are_refused_by_name(net, changes, message):
    with pytest.raises(CheckpointError, match=message):
        load(small_network(**changes), net, "f")


def test_a_missing_tensor_is_refused_and_one_too_many_is_listed(net):
    net["backbone.blocks.0.gate.weight"] = torch.zeros(2)
    report = load(small_network(), net, "f")
    assert report.ignored == ("backbone.blocks.0.gate.weight", "backbone.pos_embed")
    del net["box_head.conv3_size.0.bias"]
    with pytest.raises(CheckpointError, match=r"size: box_head\.conv3_size\.0\.bias is missing$"):
        load(small_network(), net, "f")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda net: net.pop("backbone.pos_embed_z"), "no OSTrack .* lacks backbone.pos_embed_z"),
        (lambda net: net.update({"box_head.conv1_tl.0.weight": torch.zeros(1)}), "a corner head"),
        (
            lambda net: net.update({"backbone.pos_embed_x": torch.zeros(1, 60, 64)}),
            r"pos_embed_x of \(1, 60, 64\) is no square grid",
        ),
    ],
)
def test_what_is_no_ostrack_with_a_centre_head_is_refused(net, tmp_path, change, message):
    change(net)
    torch.save({"net": net}, tmp_path / "f.pth.tar")
    with pytest.raises(CheckpointError, match=message):
        import_tracker(tmp_path / "f.pth.tar", (1, 3))


def test_choices_that_do_not_fit_are_refused(file, tmp_path):
    with pytest.raises(ConfigurationError, match=r"exits: the last one must be the last block \(3"):
        import_tracker(file, (1, 2))
    with pytest.raises(ConfigurationError, match="recycling: add always mixes"):
        import_tracker(file, (1, 3), recycling="add")
    torch.save({"net": published(width=48)}, tmp_path / "narrow.pth.tar")
    with pytest.raises(ConfigurationError, match="heads: cannot be read off a width of 48"):
        import_tracker(tmp_path / "narrow.pth.tar", (1, 3))
    network, _ = import_tracker(tmp_path / "narrow.pth.tar", (1, 3), heads=3)
    assert network.config.heads == 3


@pytest.mark.parametrize(("template", "search"), [(8, 16), (12, 24)])
def test_the_published_sizes_of_vit_b_fit(template, search):
    """Shapes only: OSTrack-256 has 64 and 256 positions, OSTrack-384 has 144 and 576."""
    with torch.device("meta"):
        network = DyTrackNetwork(
            variant(
                "base",
                template_size=16 * template,
                search_size=16 * search,
                iou_token="read_only",
            )
        )
        net = published(768, 12, 16, template, search, 256, make=torch.empty)
        report = load(network, net, "f")
    assert {*report.loaded, *report.ignored} == set(net)
    assert len(report.loaded) == 151 + 90  # transformer and head
