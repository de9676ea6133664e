"""One thread for small networks."""

import torch

# Small tensors gain nothing from threads, and lose much where other work shares the cores.
torch.set_num_threads(1)
