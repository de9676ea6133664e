"""A small untrained network and a image to run it on."""

import numpy as np
import pytest
import torch

from dytrack_model.config import variant
from dytrack_model.network import DyTrackNetwork

# Small tensors gain nothing from threads, and lose much where other work shares the cores.
torch.set_num_threads(1)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return DyTrackNetwork(variant("test")).eval()


@pytest.fixture
def crops():
    """Template and search crops of three images, uint8 RGB."""
    generator = torch.Generator().manual_seed(1)
    template = torch.randint(0, 256, (3, 3, 64, 64), generator=generator, dtype=torch.uint8)
    search = torch.randint(0, 256, (3, 3, 128, 128), generator=generator, dtype=torch.uint8)
    return template, search


@pytest.fixture
def products_of_a_frame():
    """Count the products of a frame at full depth, by torch's own counter."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    def count(network, template, search):
        # Attention is made visible to the counter by the plain implementation.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            state = network.embed_template(template)
            with FlopCounterMode(display=False) as counter:
                tokens, features = network.embed_search(search, state), None
                for index in range(network.exit_count):
                    tokens = network.advance(index, tokens, state)
                    features = network.recycle(index, network.read(index, tokens), features)
                    network.decide(index, features)
                network.locate(index, features)
        return counter.get_total_flops() / 2

    return count


@pytest.fixture
def image():
    """A frame (240, 320, 3) of smooth colours with a bright square."""
    y, x = np.mgrid[:240, :320]
    frame = np.stack([x * 255 // 319, y * 255 // 239, (x + y) % 256], axis=-1).astype(np.uint8)
    frame[100:140, 150:200] = 255
    return frame
