"""A placement inherits exactly: its outputs are those of the network with all exits."""

import pytest
import torch

from dytrack_model.config import variant
from dytrack_model.errors import ConfigurationError
from dytrack_model.network import DyTrackNetwork
from dytrack_model.pretrained.placement import inherit


@pytest.fixture(params=["none", "add", "concat", "cascade"])
def network(request):
    torch.manual_seed(0)
    made = DyTrackNetwork(
        variant(
            "test",
            exits=(1, 2, 3, 4),
            recycling=request.param,
            decisioner="both",
            template_matching=True,
            token_type="target",
        )
    ).eval()
    with torch.no_grad():
        for parameter in made.parameters():  # what starts at zero would hide a mistake
            parameter.add_(0.02 * torch.randn_like(parameter))
    return made


@pytest.mark.parametrize("exits", [(1, 4), (2, 3, 4), (4,), (1, 2, 3, 4)])
def test_a_placement_says_what_the_whole_network_says_at_its_exits(network, exits):
    config = network.config
    template = torch.randint(0, 256, (2, 3, config.template_size, config.template_size)).byte()
    search = torch.randint(0, 256, (2, 3, config.search_size, config.search_size)).byte()
    boxes = torch.tensor([[0.5, 0.5, 0.4, 0.3]]).repeat(2, 1)
    with torch.no_grad():
        own = inherit(network, exits)(template, search, boxes)
        places = [depth - 1 for depth in exits]
        expected = network.placed(template, search, [places], boxes)[0]
    assert len(own) == len(exits)
    for found, wanted in zip(own, expected, strict=True):
        assert torch.equal(found.boxes_cxcywh, wanted.boxes_cxcywh)
        assert torch.equal(found.predicted_iou, wanted.predicted_iou)


def test_an_exit_that_is_not_there_is_refused(network):
    with pytest.raises(ConfigurationError, match=r"exits: \[5\] are no exits of this tracker"):
        inherit(network, (1, 5))


def test_the_network_that_is_inherited_from_stays_as_it_is(network):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    child = inherit(network, (2, 4))
    with torch.no_grad():
        for parameter in child.parameters():
            parameter.zero_()
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
