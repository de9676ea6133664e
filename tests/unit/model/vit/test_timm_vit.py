import pytest
import torch

from dytrack_model.config import VARIANTS, ModelConfig
from dytrack_model.cost import exit_gmacs
from dytrack_model.errors import ConfigurationError
from dytrack_model.network import DyTrackNetwork
from dytrack_model.vit import timm_vit

NAMES = {
    "vit_tiny_patch16_224": (192, 3, 16, 128, 256),
    "deit_small_patch16_224": (384, 6, 16, 128, 256),
    "deit_small_distilled_patch16_224": (384, 6, 16, 128, 256),
    "vit_small_patch14_dinov2": (384, 6, 14, 112, 224),
    "vit_small_patch14_reg4_dinov2": (384, 6, 14, 112, 224),
    "vit_base_patch16_224.mae": (768, 12, 16, 128, 256),
    "vit_small_patch32_224": (384, 6, 32, 128, 256),
    "vit_base_patch16_clip_224": (768, 12, 16, 128, 256),
    "deit3_small_patch16_224": (384, 6, 16, 128, 256),
}


def named(name, **changes):
    changes = {"backbone": name, **changes}
    return ModelConfig.from_dict(timm_vit.complete(VARIANTS["tiny"], changes))


@pytest.mark.parametrize("name", NAMES)
def test_a_name_alone_brings_its_shape(name):
    config = named(name)
    width, heads, patch, template, search = NAMES[name]
    assert (config.width, config.heads, config.patch) == (width, heads, patch)
    assert (config.template_size, config.search_size) == (template, search)
    assert (config.depth, config.exits) == (12, (2, 6, 12))
    assert config.decisioner_width == width


def test_another_depth_places_the_exits_at_the_same_shares():
    assert named("vit_large_patch16_224").exits == (4, 12, 24)
    assert named("vit_tiny_patch16_224", depth=2).exits == (1, 2)


def test_what_is_set_stays_as_it_is():
    config = named("vit_small_patch14_dinov2", search_size=252, exits=[3, 12], head_width=64)
    assert (config.template_size, config.search_size) == (112, 252)
    assert (config.exits, config.head_width) == ((3, 12), 64)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit_small_patch14_dino", "has no model .*; did you mean vit_small_patch14_dinov2"),
        ("hf-hub:somebody/vit", "timm has no model"),
        ("vit_base_patch16_224.nothing", "cannot build"),
        ("swin_tiny_patch4_window7_224", "timm builds it as SwinTransformer"),
        ("vit_small_patch16_dinov3", "timm builds it as Eva"),
        ("vit_small_r26_s32_224", "its patches come from a HybridEmbed"),
        ("vit_base_patch16_xp_224", "its blocks are ParallelScalingBlock"),
        ("resnet18", r"no plain vision transformer \(timm builds it as ResNet\)"),
    ],
)
def test_what_is_no_plain_vision_transformer_is_refused_in_one_sentence(name, message):
    with pytest.raises(ConfigurationError, match=rf"^backbone: .*{message}") as refused:
        named(name)
    assert "\n" not in str(refused.value)


def run(network, batch=1):
    config = network.config
    generator = torch.Generator().manual_seed(3)
    template, search = (
        torch.randint(0, 256, (batch, 3, side, side), generator=generator, dtype=torch.uint8)
        for side in (config.template_size, config.search_size)
    )
    with torch.inference_mode():
        return network.eval()(template, search)


@pytest.mark.parametrize("attention", ["joint", "template-cached"])
@pytest.mark.parametrize("name", NAMES)
def test_a_named_backbone_builds_and_runs(name, attention):
    """Cut to two blocks and the smallest crops, which keeps the kind of every part."""
    patch = NAMES[name][2]
    config = named(
        name,
        depth=2,
        exits=[1, 2],
        attention=attention,
        template_size=2 * patch,
        search_size=4 * patch,
        head_width=8,
        decisioner_width=8,
    )
    network = DyTrackNetwork(config)
    outputs = run(network)
    assert outputs[-1].boxes_cxcywh.shape == (1, 4)
    assert all(torch.isfinite(output.maps.score).all() for output in outputs)
    assert network.backbone.register_count == (4 if "reg4" in name else 0)


@pytest.mark.parametrize("attention", ["joint", "template-cached"])
def test_queries_and_keys_are_normed_where_the_backbone_norms_them(attention):
    """timm has qk-norm as an option of its plain blocks; the split path must apply it too."""
    from timm.models.vision_transformer import Block

    from dytrack_model.backbone import _attend, _project

    block = Block(32, 2, qkv_bias=True, qk_norm=True, init_values=0.5).eval()
    tokens = torch.randn(1, 7, 32)
    with torch.inference_mode():
        split = _attend(block, tokens, *_project(block, tokens))
        torch.testing.assert_close(split, block(tokens))


@pytest.mark.parametrize("attention", ["joint", "template-cached"])
def test_an_iou_token_that_reads_leaves_the_other_tokens_alone(attention):
    config = named(
        "vit_tiny_patch16_224",
        depth=2,
        exits=[1, 2],
        attention=attention,
        iou_token="read_only",
        template_size=32,
        search_size=64,
        head_width=8,
        recycling="none",
    )
    network = DyTrackNetwork(config)
    before = run(network)
    with torch.no_grad():
        network.backbone.iou_token.copy_(torch.randn(1, 1, 192))
    after = run(network)
    for first, second in zip(before, after, strict=True):
        torch.testing.assert_close(first.features, second.features, atol=0, rtol=0)
        assert first.predicted_iou != second.predicted_iou


@pytest.mark.parametrize("attention", ["joint", "template-cached"])
@pytest.mark.parametrize("iou_token", ["bidirectional", "read_only"])
def test_registers_and_the_reading_token_are_counted_as_torch_counts(attention, iou_token):
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    config = named(
        "vit_small_patch14_reg4_dinov2",
        depth=2,
        exits=[2],
        attention=attention,
        iou_token=iou_token,
        template_size=28,
        search_size=56,
        head_width=8,
    )
    network = DyTrackNetwork(config).eval()
    search = torch.zeros(1, 3, 56, 56, dtype=torch.uint8)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        state = network.embed_template(search[..., :28, :28])
        with FlopCounterMode(display=False) as counter:
            tokens = network.advance(0, network.embed_search(search, state), state)
            features = network.read(0, tokens)
            network.decide(0, features)
            network.locate(0, features)
    assert exit_gmacs(network)[-1] == pytest.approx(counter.get_total_flops() / 2e9, rel=1e-6)
