import pytest
import torch

from dytrack_model.backbone import target_share
from dytrack_model.config import variant
from dytrack_model.errors import ConfigurationError
from dytrack_model.exits.matching import TemplateMatching
from dytrack_model.network import DyTrackNetwork


def test_the_share_of_a_patch_is_the_area_that_the_box_covers():
    boxes = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.25, 1.0]])
    share = target_share(boxes, 4).reshape(2, 4, 4)
    inner = torch.zeros(4, 4)
    inner[1:3, 1:3] = 1
    assert torch.allclose(share[0], inner)
    assert torch.allclose(share[1], torch.tensor([0, 0.5, 0.5, 0]).expand(4, 4))


def test_a_box_outside_of_the_crop_covers_nothing():
    assert target_share(torch.tensor([[2.0, 2.0, 0.5, 0.5]]), 4).sum() == 0


def test_a_search_token_like_the_target_is_told_from_one_that_is_not():
    torch.manual_seed(0)
    matching = TemplateMatching(16)
    template = torch.randn(1, 4, 16)
    share = torch.tensor([[1.0, 0, 0, 0]])
    search = torch.stack([template[0, 0], -template[0, 0]])[None]
    torch.nn.init.normal_(matching.direction)
    difference = (matching(search, template, share) - search)[0]
    assert torch.allclose(difference[0], matching.direction, atol=1e-5)
    assert torch.allclose(difference[1], -matching.direction, atol=1e-5)


@pytest.mark.parametrize("token_type", ["template", "target"])
@pytest.mark.parametrize("matching", [False, True])
@pytest.mark.parametrize("decisioner", ["token", "map", "both"])
def test_what_the_box_says_reaches_every_exit(token_type, matching, decisioner):
    torch.manual_seed(0)
    config = variant(
        "test", token_type=token_type, template_matching=matching, decisioner=decisioner
    )
    network = DyTrackNetwork(config).eval()
    for part in network.matching:
        torch.nn.init.normal_(part.product.weight)
    template = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    search = torch.randint(0, 256, (1, 3, 128, 128), dtype=torch.uint8)
    boxes = torch.tensor([[[0.5, 0.5, 0.5, 0.5]], [[0.5, 0.5, 0.2, 0.8]]])
    with torch.inference_mode():
        one, other = (network(template, search, box) for box in boxes)
    for first, second in zip(one, other, strict=True):
        same = torch.equal(first.maps.score, second.maps.score)
        assert same == (not config.reads_target_box)


def test_matching_needs_the_template_tokens_that_cached_attention_does_not_carry():
    with pytest.raises(ConfigurationError, match="template_matching: works with attention joint"):
        variant("test", template_matching=True, attention="template-cached")
