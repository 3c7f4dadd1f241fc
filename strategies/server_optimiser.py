"""The server's optimiser for rounds of one step: Adam (arXiv:1412.6980) on the federation's mean gradient."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

Arrays = Mapping[str, np.ndarray]


class ServerAdam:
    """Adam with PyTorch's defaults, as in a hospital's own training. Its moments last from round to round.

    Guarantee: steps post-process released gradients, so no epsilon changes.
    """

    def __init__(self, learning_rate: float) -> None:
        self._learning_rate = learning_rate
        self._parameters: dict[str, torch.nn.Parameter] = {}
        self._adam: torch.optim.Adam | None = None

    def state(self) -> dict[str, np.ndarray]:
        """Adam's moments and step counts, by "name of the moment/name of the array"."""
        if self._adam is None:
            return {}
        return {
            f"{which}/{name}": value.numpy().copy()
            for name, parameter in self._parameters.items()
            for which, value in self._adam.state[parameter].items()
        }

    def restore(self, weights: Arrays, state: Arrays) -> None:
        """Go on from what `state` returned when the common weights were `weights`.

        Raises:
            KeyError: a key is no name of a moment and of one of the weights.
        """
        if not state:
            return
        moments = [(*key.partition("/")[::2], value) for key, value in state.items()]
        adam = self._start({name: weights[name] for _, name, _ in moments})
        for which, name, value in moments:
            adam.state[self._parameters[name]][which] = torch.from_numpy(value.copy())

    def step(self, weights: Arrays, gradient: Arrays) -> dict[str, np.ndarray]:
        """One step from `weights` on `gradient`, float arrays of the same names and shapes in every round."""
        adam = self._adam or self._start(weights)
        for name, parameter in self._parameters.items():
            parameter.data.copy_(torch.from_numpy(np.array(weights[name])))
            parameter.grad = torch.from_numpy(np.array(gradient[name], np.float32))
        adam.step()
        return {name: parameter.detach().numpy().copy() for name, parameter in self._parameters.items()}

    def _start(self, weights: Arrays) -> torch.optim.Adam:
        self._parameters = {name: torch.nn.Parameter(torch.empty(w.shape)) for name, w in weights.items()}
        self._adam = torch.optim.Adam(self._parameters.values(), lr=self._learning_rate, fused=True)
        return self._adam
