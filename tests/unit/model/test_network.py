import itertools

import pytest
import torch

from dytrack_model.config import variant
from dytrack_model.network import DyTrackNetwork, sharing_copy

SCHEMAS = ("none", "add", "concat", "cascade")
ATTENTION = ("joint", "template-cached")


def build(**changes):
    torch.manual_seed(0)
    return DyTrackNetwork(variant("test", **changes)).eval()


@pytest.mark.parametrize("attention", ATTENTION)
def test_batched_equals_single(attention, crops):
    network, (template, search) = build(attention=attention), crops
    with torch.inference_mode():
        together = network(template, search)
        for index in range(len(template)):
            alone = network(template[index : index + 1], search[index : index + 1])
            for both, one in zip(together, alone, strict=True):
                torch.testing.assert_close(both.maps.score[index], one.maps.score[0])
                torch.testing.assert_close(both.predicted_iou[index], one.predicted_iou[0])


@pytest.mark.parametrize(("schema", "attention"), list(itertools.product(SCHEMAS, ATTENTION)))
def test_every_schema_and_attention_gives_finite_boxes_and_gradients(schema, attention, crops):
    network, (template, search) = build(recycling=schema, attention=attention).train(), crops
    outputs = network(template, search)
    assert len(outputs) == 3
    for output in outputs:
        assert output.boxes_cxcywh.shape == (3, 4)
        assert output.maps.score.shape == (3, 16, 16)
        assert ((output.predicted_iou >= 0) & (output.predicted_iou <= 1)).all()
    total = sum(o.boxes_cxcywh.sum() + o.predicted_iou.sum() + o.maps.score.sum() for o in outputs)
    total.backward()
    missing = [name for name, p in network.named_parameters() if p.grad is None]
    assert missing == []


@pytest.mark.parametrize("attention", ATTENTION)
def test_template_state_kept_over_frames_equals_a_recomputed_one(attention, crops):
    network, (template, search) = build(attention=attention), crops
    with torch.inference_mode():
        template_state = network.embed_template(template)
        for frame in (search, search.flip(3)):
            tokens = network.embed_search(frame, template_state)
            for exit_index in range(network.exit_count):
                tokens = network.advance(exit_index, tokens, template_state)
            expected = network(template, frame)[-1]
            features = network.read(network.exit_count - 1, tokens).features
            torch.testing.assert_close(features, expected.features)


def test_cached_template_does_not_see_the_search_region(crops):
    """With cached attention a template token must be blind to the frame, or caching would lie."""
    network, (template, search) = build(attention="template-cached"), crops
    state = network.embed_template(template)
    tokens = network.embed_search(search, state)
    assert tokens.shape[1] == 1 + network.config.map_size**2
    assert state.shape[:2] == (4, 2)


def test_exits_of_one_depth_agree_with_a_network_that_has_only_that_exit(crops):
    """All exits forced equals full depth: exits in between change nothing without recycling."""
    many, single = build(recycling="none"), build(recycling="none", exits=(4,))
    weights = many.state_dict()
    renamed = {}
    for name in single.state_dict():
        renamed[name] = weights[name.replace("s.0.", "s.2.", 1) if "blocks" not in name else name]
    single.load_state_dict(renamed)
    with torch.inference_mode():
        deep, alone = many(*crops)[-1], single(*crops)[-1]
    torch.testing.assert_close(deep.maps.score, alone.maps.score)
    torch.testing.assert_close(deep.predicted_iou, alone.predicted_iou)


def test_a_sharing_copy_has_the_same_weights_and_its_own_modules(crops):
    network = build(narrow_size=96).train()
    network.norms[1].extra = network.heads[0]  # a module that stands in two places
    twin = sharing_copy(network).eval()
    assert twin.norms[1].extra is twin.heads[0]
    pairs = list(zip(network.named_modules(), twin.named_modules(), strict=True))
    assert all(one == other and mine is not its for (one, mine), (other, its) in pairs)
    assert all(mine.training and not its.training for (_, mine), (_, its) in pairs)
    mine, its = (list(n.parameters()) + list(n.buffers()) for n in (network, twin))
    assert all(one is other for one, other in zip(mine, its, strict=True))
    twin.heads[0], twin.norms[0].bias = twin.heads[1], None
    twin.backbone.register_forward_hook(lambda *_: 1 / 0)
    assert network.heads[0] is not network.heads[1]
    assert network.norms[0].bias is not None
    network(*crops)  # nobody divides
