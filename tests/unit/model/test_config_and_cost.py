import subprocess
import sys

import pytest
import torch

from dytrack_model.config import VARIANTS, ModelConfig, variant
from dytrack_model.cost import exit_costs, exit_gmacs
from dytrack_model.errors import ConfigurationError
from dytrack_model.network import DyTrackNetwork


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"exits": (8, 4)}, r"exits: must rise strictly, got \(8, 4\)"),
        ({"exits": ()}, "exits: must name at least one block"),
        ({"exits": (2, 6)}, r"exits: the last one must be the last block \(12\), got \(2, 6\)"),
        ({"exits": (0, 12)}, "exits: must start at block 1"),
        ({"heads": 5}, "heads: must divide width 192, got 5"),
        ({"template_size": 100}, "template_size: must be a positive multiple of patch 16"),
        ({"head_width": 12}, "head_width: must be a positive multiple of 8"),
        ({"search_factor": 0.5}, r"search_factor: must lie in \[1, 64\], got 0.5"),
        ({"template_factor": float("inf")}, r"template_factor: must lie in \[1, 64\], got inf"),
        ({"width": "192"}, "width: must be a number, got '192'"),
        ({"decisioner": "zz"}, "decisioner: must be one of token, map, both, got 'zz'"),
    ],
)
def test_a_wrong_value_is_named(changes, message):
    with pytest.raises(ConfigurationError, match=message):
        variant("tiny", **changes)


def test_an_unknown_variant_and_an_unknown_key_are_named():
    with pytest.raises(ConfigurationError, match="one of test, tiny, small, base, got 'huge'"):
        variant("huge")
    with pytest.raises(ConfigurationError, match="colour: not a key of the model"):
        ModelConfig.from_dict({"colour": 1})


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_survives_json(name):
    assert ModelConfig.from_dict(VARIANTS[name].to_dict()) == VARIANTS[name]


def test_a_backbone_that_is_no_vision_transformer_is_refused():
    with pytest.raises(ConfigurationError, match="backbone: "):
        DyTrackNetwork(variant("test", backbone="resnet18"))


def test_the_test_variant_has_a_few_hundred_thousand_parameters():
    parameters = sum(p.numel() for p in DyTrackNetwork(VARIANTS["test"]).parameters())
    assert 200_000 < parameters < 800_000


def test_base_without_recycling_costs_what_the_arithmetic_says():
    """Twelve blocks of 2.422 GMAC, a patch embedding and a centre head (ViT-B/16, 320 tokens)."""
    with torch.device("meta"):
        network = DyTrackNetwork(variant("base", recycling="none", exits=(12,)))
    patches, block, head = 256 * 768 * 768, 2.4299e9, 256 * 6.47e6
    assert exit_gmacs(network)[0] == pytest.approx((patches + 12 * block + head) / 1e9, rel=0.01)


@pytest.mark.parametrize("attention", ["joint", "template-cached"])
def test_counted_products_equal_those_that_torch_counts(attention, products_of_a_frame):
    network = DyTrackNetwork(variant("test", attention=attention)).eval()
    search = torch.zeros(1, 3, 128, 128, dtype=torch.uint8)
    template = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    counted = products_of_a_frame(network, template, search) / 1e9
    # Recycling's gates and the like are additions, which neither side counts.
    assert exit_gmacs(network)[-1] == pytest.approx(counted, rel=0.002)


def test_costs_rise_with_depth_and_schemas_are_counted():
    plain = exit_costs(DyTrackNetwork(variant("test", recycling="none")))
    concat = exit_costs(DyTrackNetwork(variant("test", recycling="concat")))
    assert plain[0].gmacs < plain[1].gmacs < plain[2].gmacs
    assert concat[0].gmacs == plain[0].gmacs
    assert concat[1].gmacs > plain[1].gmacs
    assert concat[2].parameters > plain[2].parameters


def test_importing_the_model_pulls_in_no_ray_and_no_torch():
    code = (
        "import dytrack_model, sys; sys.exit(bool({'ray', 'torch', 'mlflow'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_importing_the_network_pulls_in_no_platform():
    code = "import dytrack_model.online, sys; sys.exit(bool({'ray', 'mlflow', 'pydantic', "
    code += "'pyarrow', 'dytrack_platform'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)
