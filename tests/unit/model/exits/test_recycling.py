import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from dytrack_model.exits.recycling import ExitFeatures, build

SCHEMAS = ("none", "add", "concat", "cascade")
WIDTH, TOKENS = 8, 16


@pytest.fixture
def exits():
    torch.manual_seed(0)
    return [ExitFeatures(torch.randn(2, TOKENS, WIDTH), torch.randn(2, WIDTH)) for _ in range(2)]


@pytest.mark.parametrize("schema", ["none", "concat"])
def test_these_schemas_start_as_the_exits_own_features(schema, exits):
    own, previous = exits
    mixed = build(schema, WIDTH)(own, previous)
    torch.testing.assert_close(mixed.features, own.features)
    torch.testing.assert_close(mixed.iou_token, own.iou_token)


@pytest.mark.parametrize(("schema", "share"), [("add", 0.15), ("cascade", 0.15)])
def test_these_schemas_start_near_the_exits_own_features(schema, share, exits):
    own, previous = exits
    with torch.no_grad():
        mixed = build(schema, WIDTH)(own, previous)
    assert 0 < (mixed.features - own.features).norm() < share * own.features.norm()


@pytest.mark.parametrize("schema", ["add", "concat", "cascade"])
def test_gradients_reach_what_is_reused_and_every_weight(schema, exits):
    own, previous = (
        ExitFeatures(*(part.requires_grad_() for part in features)) for features in exits
    )
    recycling = build(schema, WIDTH)
    mixed = recycling(own, previous)
    (mixed.features.sum() + mixed.iou_token.sum()).backward()
    assert previous.features.grad is not None
    assert (previous.iou_token.grad is not None) == (schema == "cascade")
    assert all(p.grad is not None for p in recycling.parameters())


@pytest.mark.parametrize("schema", SCHEMAS)
def test_counted_products_equal_those_that_run(schema, exits):
    own, previous = (
        ExitFeatures(features.features[:1], features.iou_token[:1]) for features in exits
    )
    recycling = build(schema, WIDTH)
    with FlopCounterMode(display=False) as counter:
        recycling(own, previous)
    # torch counts matrix products only; the gate of add is one product for each number.
    gate = own.features.numel() if schema == "add" else 0
    assert recycling.macs(TOKENS) == counter.get_total_flops() // 2 + gate
