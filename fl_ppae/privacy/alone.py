"""A network that nobody here knows, applied to each record alone by `torch.func.vmap`.

Guarantee: none of its own. It is what lets `clipping` bound a network of any layers: a record's output and
its gradient are computed by a function that is given this record, the weights and nothing else. This assumes
a functional network without buffers, which `models.isolation` checks, and code that does not work around
`vmap`, for example by an `autograd.Function` with a `vmap` rule of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap


class Alone(nn.Module):
    """`network`, which takes and returns batches, on batches of one record. Layers run in float32."""

    def __init__(self, network: nn.Module, name: str) -> None:
        super().__init__()
        self.network = network
        self._name = name

    def forward(self, rows: Tensor) -> Tensor:
        """(N, *any) to (N, *encoding).

        Raises:
            RuntimeError: the network draws random numbers, or does what depends on the values of a record.
        """
        weights = dict(self.network.named_parameters())
        with torch.autocast(rows.device.type, enabled=False):
            outputs: Tensor = vmap(lambda row: self._one(weights, row))(rows.float())
        return outputs

    def gradients(self, rows: Tensor, signals: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Each parameter with its gradients (N, *shape), of N inputs and the gradients of their outputs."""
        weights = {name: weight.detach() for name, weight in self.network.named_parameters()}

        def of_one(row: Tensor, signal: Tensor) -> dict[str, Tensor]:
            backward = vjp(lambda given: self._one(given, row), weights)[1]
            (found,) = backward(signal)
            return dict(found)

        with torch.autocast(rows.device.type, enabled=False):
            found = vmap(of_one)(rows.float(), signals.float())
        return [(weight, found[name]) for name, weight in self.network.named_parameters()]

    def _one(self, weights: Mapping[str, Tensor], row: Tensor) -> Tensor:
        output: Tensor = functional_call(self.network, dict(weights), (row[None],))[0]
        return output

    def extra_repr(self) -> str:
        """Tells networks apart whose own texts are the same."""
        return f"{self._name}, {[tuple(weight.shape) for weight in self.network.parameters()]}"


def visible_modules(model: nn.Module) -> Iterator[nn.Module]:
    """The modules of `model`, an `Alone` as one of them and nothing that is in it."""
    inside = {
        id(module)
        for alone in model.modules()
        if isinstance(alone, Alone)
        for module in alone.modules()
        if module is not alone
    }
    return (module for module in model.modules() if id(module) not in inside)
