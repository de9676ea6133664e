import pytest
import torch

from dytrack_model import checkpoint
from dytrack_model.config import variant
from dytrack_model.cost import exit_gmacs, exit_parameters
from dytrack_model.exits.decisioner import ScoreMapSummary
from dytrack_model.network import DyTrackNetwork


def build(**changes):
    torch.manual_seed(0)
    return DyTrackNetwork(variant("test", **{"decisioner": "map", **changes}))


def map_with_peaks(*peaks, side=8, height=8.0):
    """Features of one channel whose score map is 0 but for some cells."""
    features = torch.zeros(1, side * side, 1)
    for row, column in peaks:
        features[0, row * side + column] = height
    return features


def describe(features):
    summary = ScoreMapSummary(1, 8)
    with torch.no_grad():
        summary.score.weight.fill_(1.0)
        summary.score.bias.zero_()
        summary.embed = torch.nn.Identity()
        return summary(features)[0].tolist()


def test_a_map_is_described_by_its_peak_the_lead_over_another_place_and_its_spread():
    alone, twins = describe(map_with_peaks((2, 2))), describe(map_with_peaks((2, 2), (6, 6)))
    assert alone[0] == twins[0] == 8.0
    assert alone[1] == 8.0
    assert twins[1] == 0.0
    assert alone[3] < twins[3]


def test_cells_beside_the_peak_are_the_same_place():
    assert describe(map_with_peaks((2, 2), (3, 4)))[1] == 8.0


@pytest.mark.parametrize("kind", ["token", "map"])
@pytest.mark.parametrize("schema", ["none", "concat", "cascade"])
def test_every_product_of_a_route_is_counted(kind, schema, crops, products_of_a_frame):
    network = build(decisioner=kind, recycling=schema).eval()
    template, search = (crop[:1] for crop in crops)
    counted = products_of_a_frame(network, template, search)
    assert exit_gmacs(network)[-1] * 1e9 == pytest.approx(counted, abs=1)


def test_deciding_by_the_map_never_runs_a_head():
    network = build().eval()
    for head in network.heads:
        head.register_forward_hook(lambda *_: pytest.fail("a head ran"))
    tokens = torch.randn(1, 1 + network.config.map_size**2, network.config.width)
    features = None
    for index in range(network.exit_count):
        features = network.recycle(index, network.read(index, tokens), features)
        assert 0 <= network.decide(index, features).item() <= 1


def test_predicting_by_the_map_does_not_pull_at_the_trunk(crops):
    network = build().train()
    outputs = network(*crops)
    sum(o.predicted_iou.sum() + o.coarse_score.sum() for o in outputs).backward()
    reached = {name.split(".")[0] for name, p in network.named_parameters() if p.grad is not None}
    assert reached == {"score_summaries", "recycling", "decisioners"}
    assert all(p.grad is not None for p in network.score_summaries.parameters())


def test_the_decisioners_map_is_a_map_of_probabilities(crops):
    outputs = build().eval()(*crops)
    assert outputs[0].coarse_score.shape == (3, 16, 16)
    assert ((outputs[0].coarse_score > 0) & (outputs[0].coarse_score < 1)).all()
    assert build(decisioner="token").eval()(*crops)[0].coarse_score is None


def test_a_tracker_that_decides_by_the_map_saves_and_loads(crops, tmp_path):
    network = build().eval()
    loaded = checkpoint.load(checkpoint.save(tmp_path / "tracker", network)).network
    with torch.inference_mode():
        for one, other in zip(network(*crops), loaded(*crops), strict=True):
            torch.testing.assert_close(one.predicted_iou, other.predicted_iou)


def test_both_decisioners_are_counted_in_parameters():
    for kind in ("token", "map"):
        network = build(decisioner=kind, exits=(4,))
        assert exit_parameters(network)[0] == sum(p.numel() for p in network.parameters())
