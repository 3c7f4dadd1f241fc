"""What an encoder learns inside a hospital: with which partner network, by which loss."""

from __future__ import annotations

from torch import Tensor, nn


class LocalModel(nn.Module):
    """What a hospital trains: the shared encoder and its own partner (decoder or task head)."""

    def __init__(self, encoder: nn.Module, partner: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.partner = partner

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] to the reconstruction (N, C, H, W) or the class scores (N, K)."""
        output: Tensor = self.partner(self.encoder(images))
        return output


def per_sample_loss(output: Tensor, images: Tensor, labels: Tensor, objective: str) -> Tensor:
    """(N,): mean squared error over a record's pixels, or its cross-entropy in nats."""
    if objective == "reconstruction":
        return (output - images).square().flatten(1).mean(dim=1)
    return nn.functional.cross_entropy(output, labels, reduction="none")
