"""An exponential moving average of the weights."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class EMA:
    """EMA of a module's parameters; buffers are not averaged, the newest ones count."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay = decay
        self._parameters = dict(module.named_parameters())
        self.values: dict[str, Tensor] = {
            name: value.detach().clone() for name, value in self._parameters.items()
        }
        """EMA by the parameter's name, laid out like the parameter."""

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after optimiser step ``step``, counted from 1.

        Early averages forget faster: the decay is at most (1 + step) / (10 + step), as in
        TensorFlow's moving averages.
        """
        decay = min(self._decay, (1 + step) / (10 + step))
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        average(list(self.values.values()), list(self._parameters.values()), step)
