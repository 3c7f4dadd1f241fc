"""What an encoder learns inside a hospital: the loss and the partner network.

To add an objective, add an entry to `OBJECTIVES` and its name to `keys.Keys.objective`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor, nn

from fl_ppae.models.autoencoders import Autoencoder, Shape, build_head
from fl_ppae.privacy.scopes import ENCODER


class LocalModel(nn.Module):
    """What a hospital trains: the shared encoder and its own partner, a decoder or task head."""

    def __init__(self, encoder: nn.Module, partner: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.partner = partner

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] to reconstructions (N, C, H, W) or class scores (N, K)."""
        output: Tensor = self.partner(self.encoder(images))
        return output

    def part(self, names: Sequence[str], trains: str = "all") -> nn.ModuleList:
        """What the key `trains` lets learn of the modules "encoder" and "partner" with these names, as one.

        Its parameters are in this order.
        """
        found = []
        for name in names:
            module = self.get_submodule(name)
            if name != ENCODER or trains == "all":
                found.append(module)
            elif trains == "last":
                found.append(_last_layer(module))
        return nn.ModuleList(found)


def _last_layer(module: nn.Module) -> nn.Module:
    """The last module with parameters of its own."""
    return [layer for layer in module.modules() if list(layer.parameters(recurse=False))][-1]


Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Objective:
    """One value of the key `objective`.

    Attributes:
        loss: from a `LocalModel`'s outputs, images and labels of N records, their losses (N,).
        partner: from the untrained autoencoder, the shape of an encoding, the number of classes and a seed,
            the untrained partner.
        learns_labels: True if the loss depends on labels.
        in_nats: True if exp(-loss) is the probability that the model assigns to a record.
    """

    name: str
    loss: Loss
    partner: Callable[[Autoencoder, Shape, int, int], nn.Module]
    learns_labels: bool
    in_nats: bool


def _squared_error(outputs: Tensor, images: Tensor, _labels: Tensor) -> Tensor:
    """(N,): mean squared error over a record's pixels."""
    return (outputs - images).square().flatten(1).mean(dim=1)


def label_losses(scores: Tensor, labels: Tensor) -> Tensor:
    """-log of the probability, (N,) in nats, that scores (N, K) give to classes (N,) or label sets (N, K).

    The labels of a set count as independent, each with the probability sigmoid(score).
    """
    if labels.ndim == 1:
        return nn.functional.cross_entropy(scores, labels, reduction="none")
    each = nn.functional.binary_cross_entropy_with_logits(scores, labels.to(scores.dtype), reduction="none")
    return each.sum(1)


OBJECTIVES = MappingProxyType(
    {
        objective.name: objective
        for objective in (
            Objective(
                "reconstruction",
                loss=_squared_error,
                partner=lambda autoencoder, _encoding, _classes, _seed: autoencoder.decoder,
                learns_labels=False,
                in_nats=False,
            ),
            Objective(
                "task",
                loss=lambda outputs, _images, labels: label_losses(outputs, labels),
                partner=lambda autoencoder, encoding, classes, seed: build_head(
                    encoding, classes, seed, scaled=autoencoder.scaled
                ),
                learns_labels=True,
                in_nats=True,
            ),
        )
    }
)
