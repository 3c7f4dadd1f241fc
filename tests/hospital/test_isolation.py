"""Networks that mix records, or that nobody knows, are refused before they train under a guarantee."""

import itertools

import numpy as np
import pytest
import torch
from hospital.test_physical_batches import IMAGE, model_of, terms_of
from support import records_of
from torch import Tensor, nn

from fl_ppae.hospital import training
from fl_ppae.hospital.training import LocalTrainer
from fl_ppae.models.autoencoders import NAMES
from fl_ppae.models.isolation import check_isolated
from fl_ppae.models.objectives import OBJECTIVES, LocalModel


class Mixing(nn.Module):
    """Subtracts the mean over records, as a batch normalisation does."""

    def forward(self, rows: Tensor) -> Tensor:
        return rows - rows.mean(0)


class ElsewhereMixing(nn.Linear):
    """A known layer's subclass is another type, and may do anything."""

    def forward(self, rows: Tensor) -> Tensor:
        return super().forward(rows.flip(0))


class Remembering(nn.ELU):
    pass


UNSAFE = {
    "batch norm": nn.BatchNorm2d(3),
    "batch norm without parameters": nn.BatchNorm2d(3, affine=False),
    "instance norm with statistics": nn.InstanceNorm2d(3, track_running_stats=True),
    "a module that nobody knows": Mixing(),
    "a subclass": ElsewhereMixing(4, 4),
    "a subclass without parameters": Remembering(),
    "flattened records": nn.Flatten(0),
    "recurrent": nn.GRU(4, 4),
    "dropout": nn.Dropout(),
}


@pytest.mark.parametrize(("name", "objective"), itertools.product(NAMES, OBJECTIVES))
def test_every_architecture_is_known(name: str, objective: str) -> None:
    check_isolated(model_of(name, objective))


@pytest.mark.parametrize("name", UNSAFE)
def test_what_mixes_records_or_is_not_known_is_refused(name: str) -> None:
    with pytest.raises(TypeError):
        check_isolated(nn.Sequential(nn.Linear(4, 4), UNSAFE[name]))


def test_a_buffer_is_refused() -> None:
    layer = nn.ELU()
    layer.register_buffer("seen", torch.zeros(1))
    with pytest.raises(TypeError, match="buffer"):
        check_isolated(nn.Sequential(layer))


@pytest.mark.parametrize("part", ["encoder", "partner"])
@pytest.mark.parametrize("scope", ["autoencoder", "frozen-decoder", "encoder"])
def test_training_refuses_it_in_any_part_of_the_model(part: str, scope: str) -> None:
    """A frozen decoder that mixes records carries them into the encoder's gradients."""
    model = model_of("fc", "reconstruction")
    model.get_submodule(part).append(Mixing())
    with pytest.raises(TypeError, match="Mixing is not known"):
        LocalTrainer(model, terms_of("reconstruction", scope), 4.0)


def test_the_probe_finds_mixing_on_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "check_isolated", lambda _: None)
    records = records_of(np.zeros((8, 12, 12, 3), np.uint8), np.zeros(8))
    honest = model_of("fc", "reconstruction")
    LocalTrainer(honest, terms_of("reconstruction", "autoencoder"), 4.0).clipped_sums(records, np.arange(8))
    mixing = LocalModel(nn.Sequential(*honest.encoder, Mixing()), honest.partner)
    trainer = LocalTrainer(mixing, terms_of("reconstruction", "autoencoder"), 4.0)
    with pytest.raises(TypeError, match="depends on the other records"):
        trainer.clipped_sums(records, np.arange(8))
    assert records.images(np.arange(1)).shape[1:] == IMAGE
