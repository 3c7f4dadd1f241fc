"""The sensitivity that each scope's noise is scaled to, against what one record really does."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from realised_sensitivity import realised_sensitivity, white_among_grey
from support import REAL_DATA, real_data, records_of

from fl_ppae.data.records import HospitalRecords
from fl_ppae.hospital.training import LocalTrainer, TrainingTerms, train_round
from fl_ppae.models.autoencoders import ImageShape, build_autoencoder, encoding_shape
from fl_ppae.models.objectives import OBJECTIVES, LocalModel
from fl_ppae.privacy.clipping import CLIP_MARGIN
from fl_ppae.privacy.randomness import streams
from fl_ppae.privacy.scopes import SCOPES

BLOOD = REAL_DATA / "bloodmnist.npz"
GREY: ImageShape = (1, 28, 28)
SIZES = {"fc": 16, "fc-deep": 16, "conv": 49, "conv-image": 0}
FORMAL = ("frozen-decoder", "autoencoder")

# A record's gradient comes out a few roundings (6e-8) apart in batches of another size, and each sum is
# rounded too: 1e-6 of the clipping norm a record is allowed for that, and nothing else.
ROUNDING = 1e-6


def model_of(name: str = "conv", objective: str = "reconstruction", image: ImageShape = GREY) -> LocalModel:
    autoencoder = build_autoencoder(name, SIZES[name], image, seed=1)
    encoding = encoding_shape(name, SIZES[name], image)
    return LocalModel(autoencoder.encoder, OBJECTIVES[objective].partner(autoencoder, encoding, 8, 1))


def ratios(
    scope: str,
    records: HospitalRecords,
    *,
    model: LocalModel | None = None,
    extra_joins: list[bool] | None = None,
    seed: int = 1,
    **changes: Any,
) -> np.ndarray:
    """Realised sensitivity / clipping norm, one a step."""
    values = {
        "objective": OBJECTIVES["reconstruction"],
        "noise_multiplier": 1.5,
        "max_grad_norm": 1e-3,
        "sample_rate": 0.25,
        "steps": 25,
        "learning_rate": 4e-3,
    }
    terms = TrainingTerms(scope=SCOPES[scope], **{**values, **changes})
    found = realised_sensitivity(model or model_of(), records, terms, streams(seed, 0, 1), extra_joins)
    return np.array(found) / terms.max_grad_norm


@pytest.fixture(scope="module")
def pair() -> HospitalRecords:
    return white_among_grey(64)


@pytest.fixture(scope="module")
def blood() -> Iterator[HospitalRecords]:
    real_data(BLOOD.name)
    with np.load(BLOOD) as data:
        yield records_of(data["train_images"][:129], data["train_labels"][:129].ravel())


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_in_the_papers_scope_one_record_moves_the_sum_by_many_clipping_norms(
    pair: HospitalRecords, seed: int
) -> None:
    found = ratios("encoder", pair, seed=seed)
    assert found[0] <= 1, "before the decoders have learned anything, they are the same"
    assert found.max() > 10
    assert not SCOPES["encoder"].formal


@pytest.mark.parametrize(("name", "common"), [("fc", 64), ("fc-deep", 32), ("conv-image", 32)])
def test_in_the_papers_scope_every_architecture_fails(name: str, common: int) -> None:
    model, pair = model_of(name), white_among_grey(common)
    assert ratios("encoder", pair, model=model, sample_rate=0.5, learning_rate=1e-2).max() > 10


@pytest.mark.parametrize("common", [8, 48])
def test_the_papers_scope_fails_by_up_to_nearly_all_that_a_batch_can_move(common: int) -> None:
    """Every clipped gradient is at most one clipping norm long, so 2 * batch + 1 is the end of it."""
    found = ratios("encoder", white_among_grey(common), sample_rate=1.0)
    end = 2 * common + 1
    assert 0.7 * end < found.max() <= end


def test_with_a_task_head_that_learns_without_noise_it_is_the_same(pair: HospitalRecords) -> None:
    found = ratios(
        "encoder", pair, model=model_of(objective="task"), objective=OBJECTIVES["task"], learning_rate=1e-2
    )
    assert found.max() > 4


def test_in_the_papers_scope_a_record_of_the_first_batch_alone_still_counts_later(
    pair: HospitalRecords,
) -> None:
    """So sampling amplifies nothing: that argument needs steps without the record to tell nothing of it."""
    once = [True] + [False] * 24
    assert ratios("encoder", pair, extra_joins=once)[1:].max() > 10
    for scope in FORMAL:
        assert not ratios(scope, pair, extra_joins=once)[1:].any()


@pytest.mark.parametrize("scope", ["encoder", *FORMAL])
def test_without_the_extra_record_nothing_differs(pair: HospitalRecords, scope: str) -> None:
    """What is measured comes from the record, and not from rounding or from the replay."""
    assert not ratios(scope, pair, extra_joins=[False] * 10, steps=10).any()


@pytest.mark.parametrize(("scope", "name", "bound"), itertools.product(FORMAL, SIZES, [1e-6, 1e-3, 0.1]))
@pytest.mark.parametrize("rate", [1e-9, 0.25, 1.0])
def test_in_a_formal_scope_one_record_moves_the_sum_by_at_most_the_sensitivity(
    scope: str, name: str, bound: float, rate: float
) -> None:
    """Batches of no, some and all common records."""
    common = 12
    found = ratios(
        scope,
        white_among_grey(common),
        model=model_of(name),
        max_grad_norm=bound,
        sample_rate=rate,
        steps=4,
        learning_rate=1e-2,
    )
    assert found.max() <= 1 + ROUNDING * common
    if bound < 1e-2:
        assert found[0] >= 1 - 2 * CLIP_MARGIN - ROUNDING * common, "a clipped record uses all it may"


@pytest.mark.parametrize("scope", FORMAL)
def test_a_formal_scope_holds_where_the_papers_fails(pair: HospitalRecords, scope: str) -> None:
    for name, objective in OBJECTIVES.items():
        found = ratios(scope, pair, model=model_of(objective=name), objective=objective)
        assert found.max() <= 1 + ROUNDING * len(pair)


@pytest.mark.parametrize("scope", ["encoder", *FORMAL])
def test_the_replay_is_the_training_that_a_hospital_does(
    pair: HospitalRecords, scope: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The smaller hospital's releases are `train_round`'s on its records, to the bit."""
    step, seen = LocalTrainer.step, []

    def spy(self: LocalTrainer, released: list[torch.Tensor]) -> None:
        seen.append(released)
        step(self, released)

    monkeypatch.setattr(LocalTrainer, "step", spy)
    terms = TrainingTerms(SCOPES[scope], OBJECTIVES["reconstruction"], 1.5, 1e-3, 0.25, 5, 4e-3)
    realised_sensitivity(model_of(), pair, terms, streams(1, 0, 1))
    of_smaller, of_larger = seen[0::2], seen[1::2]
    seen = []
    smaller = HospitalRecords(pair.split, pair.indices[:-1])
    train_round(model_of(), smaller, terms, streams(1, 0, 1))
    assert len(seen) == 5
    for own, forced, trained in zip(of_smaller, of_larger, seen, strict=True):
        for a, b, c in zip(own, forced, trained, strict=True):
            assert torch.equal(a, b)
            assert torch.equal(a, c)


def test_the_model_is_left_as_it_was(pair: HospitalRecords) -> None:
    model = model_of()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ratios("frozen-decoder", pair, model=model, steps=2)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_what_can_not_be_replayed_is_refused_by_name(pair: HospitalRecords) -> None:
    with pytest.raises(ValueError, match="'none' clips and noises nothing"):
        ratios("none", pair)
    with pytest.raises(ValueError, match="1 records; at least 2"):
        ratios("encoder", white_among_grey(0))
    with pytest.raises(ValueError, match="3 values; expected one for each of 25 steps"):
        ratios("encoder", pair, extra_joins=[True] * 3)


@pytest.mark.slow
def test_an_ordinary_real_record_breaks_the_papers_scope_and_no_formal_one(blood: HospitalRecords) -> None:
    """129 blood cells as they come; the last is the extra record."""
    for scope in ("encoder", *FORMAL):
        found = ratios(scope, blood, model=model_of(image=(3, 28, 28)), steps=20)
        assert (found.max() > 1.5) == (scope == "encoder"), found.max()
        if scope in FORMAL:
            assert found.max() <= 1 + ROUNDING * len(blood)
