"""Refuses networks in which one record's output could depend on another record.

A record's clipped gradient bounds what the record adds only if no other record's gradient moves with it. So
every module must be known to act on each record alone, or be applied to each record alone (`privacy.alone`);
a type that is not listed here is refused, whatever a test run of it shows. `hospital.physical_batches` probes
the same on top.
"""

from __future__ import annotations

from torch import nn

from fl_ppae.models.autoencoders import Autoencoder
from fl_ppae.models.layers import Centred, Shuffled
from fl_ppae.models.objectives import LocalModel
from fl_ppae.models.residual import Block
from fl_ppae.models.scattering import Scattering
from fl_ppae.privacy.alone import Alone, visible_modules

_CONTAINERS = (nn.Sequential, nn.ModuleList, Autoencoder, LocalModel, Block)
_LAYERS = (nn.Linear, nn.Conv2d, nn.GroupNorm)
_WITHOUT_PARAMETERS = (
    nn.Identity,
    nn.Flatten,
    nn.Unflatten,
    nn.ReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Tanh,
    nn.Sigmoid,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    Centred,
    Shuffled,
    Scattering,
)
_KNOWN = frozenset((*_CONTAINERS, *_LAYERS, *_WITHOUT_PARAMETERS, Alone))


def check_isolated(model: nn.Module) -> None:
    """Check that each record passes through `model` alone.

    Raises:
        TypeError: names the first module that mixes records, remembers them (a buffer), or isn't known.
    """
    for module in visible_modules(model):
        if type(module) not in _KNOWN:
            raise TypeError(
                f"{type(module).__name__} is not known to act on each record alone, so training with it "
                "would have no guarantee"
            )
        if isinstance(module, nn.Flatten | nn.Unflatten) and _reaches_the_batch(module):
            raise TypeError(f"{module} merges or splits the dimension of the records")
        if list(module.buffers(recurse=isinstance(module, Alone))):
            raise TypeError(f"{type(module).__name__} has a buffer, which could remember other records")


def _reaches_the_batch(module: nn.Flatten | nn.Unflatten) -> bool:
    first = module.start_dim if isinstance(module, nn.Flatten) else module.dim
    return not isinstance(first, int) or first < 1
