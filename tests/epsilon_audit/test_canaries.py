"""Canaries are records of the data set, and a slot left out is counted and holds nothing."""

import numpy as np
import pytest
import torch
from epsilon_audit.canary_runs import Small, canaries, hospital, terms_of

from fl_ppae.data.registry import DATASETS
from fl_ppae.epsilon_audit.canaries import AuditedRecords
from fl_ppae.hospital.training import train_round
from fl_ppae.models.build import local_model_of
from fl_ppae.privacy.randomness import streams


@pytest.mark.parametrize("dataset", list(DATASETS))
def test_canaries_are_records_of_the_data_set(dataset: str) -> None:
    spec = DATASETS[dataset]
    drawn = canaries(500, dataset)
    assert drawn.images().shape == (500, *spec.image_shape)
    assert set(drawn.images().unique().tolist()) == {0.0, 1.0}
    assert set(drawn.labels().tolist()) == set(range(spec.num_classes))
    assert len(torch.unique(drawn.images().flatten(1), dim=0)) == 500


def test_a_slot_left_out_is_counted_and_holds_nothing() -> None:
    own, extra = hospital(), canaries()
    coins = np.arange(20) % 2 == 0
    records = AuditedRecords(own, extra, coins)
    assert len(records) == 60, "whatever the coins say"
    expected = torch.cat([own.images(), extra.images(np.flatnonzero(coins))])
    torch.testing.assert_close(records.images(slice(None)), expected)
    torch.testing.assert_close(
        records.labels(np.array([59, 3, 58])), torch.cat([own.labels([3]), extra.labels([18])])
    )
    assert records.images(np.array([41, 43])).shape == (0, 1, 28, 28)


@pytest.mark.parametrize("scope", ["encoder", "frozen-decoder", "autoencoder"])
@pytest.mark.parametrize("name", ["fc", "fc-deep", "conv", "conv-image"])
def test_a_batch_of_empty_slots_alone_is_a_step(name: str, scope: str, small: Small) -> None:
    records = AuditedRecords(hospital(0), canaries(), np.zeros(20, bool))
    model = local_model_of(small(autoencoder=name, encoding_size=0))
    train_round(model, records, terms_of(scope, sample_rate=1.0), streams(1, 0, 1))
    assert all(value.isfinite().all() for value in model.state_dict().values())
