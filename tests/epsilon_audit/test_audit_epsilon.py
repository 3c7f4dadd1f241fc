"""The audit of a hospital's real training: what it catches, what it leaves alone, what it prints."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from support import REAL_DATA, real_data, records_of
from torch import Tensor

from fl_ppae import cli
from fl_ppae.catalogue import find
from fl_ppae.config import RunConfig
from fl_ppae.data.acquisition import NO_SHIFT
from fl_ppae.data.deal import hospital_names, make_deal
from fl_ppae.data.records import HospitalRecords
from fl_ppae.data.registry import DATASETS
from fl_ppae.data.sources import resolve
from fl_ppae.epsilon_audit.bounds import Bound
from fl_ppae.epsilon_audit.canaries import AuditedRecords, draw_canaries
from fl_ppae.epsilon_audit.canary_training import AuditedHospital, audit_hospital
from fl_ppae.epsilon_audit.scores import CanaryScores
from fl_ppae.hospital import training
from fl_ppae.hospital.training import TrainingTerms, train_round
from fl_ppae.models.build import local_model_of
from fl_ppae.models.objectives import OBJECTIVES
from fl_ppae.privacy.clipping import ClippedSum, clipped_sum, per_sample_norms
from fl_ppae.privacy.plan import plan_hospital
from fl_ppae.privacy.randomness import streams
from fl_ppae.privacy.scopes import SCOPES

BLOOD = REAL_DATA / "bloodmnist.npz"
CALIBRATED = {"noise_multiplier": 0.0, "target_delta": 1e-5, "batch_size": 250, "num_server_rounds": 2}
Small = Callable[..., RunConfig]


def audit(config: RunConfig, canaries: int = 200, hospitals: int = 1) -> tuple[Bound, float]:
    """The bound on hospital-0, and the epsilon that its plan claims."""
    own = make_deal(resolve(config), config, hospital_names(hospitals)).train["hospital-0"]
    plan = plan_hospital("hospital-0", len(own) + canaries, config)
    bound = audit_hospital(AuditedHospital(0, own, plan), config, canaries=canaries, confidence=0.95)
    return bound, plan.epsilon_total or 0.0


def scale_noise(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    draw = training.gaussian_noise

    def scaled(shapes: Any, std: float, rng: np.random.Generator) -> list[Tensor]:
        return draw(shapes, std * factor, rng)

    monkeypatch.setattr(training, "gaussian_noise", scaled)


def switch_clipping_off(monkeypatch: pytest.MonkeyPatch) -> None:
    def unclipped(grads: Any, max_grad_norm: float) -> ClippedSum:
        return clipped_sum(grads, 1e6)

    monkeypatch.setattr(training, "clipped_sum", unclipped)


@pytest.mark.parametrize("scope", ["autoencoder", "frozen-decoder", "encoder"])
@pytest.mark.parametrize("epsilon", [1.0, 8.0])
def test_an_honest_training_is_not_refuted(small: Small, scope: str, epsilon: float) -> None:
    bound, claim = audit(small(**CALIBRATED, dp_scope=scope, target_epsilon=epsilon))
    assert claim == pytest.approx(epsilon, rel=0.01)
    assert bound.epsilon < claim


@pytest.mark.parametrize("scope", ["autoencoder", "frozen-decoder"])
def test_noise_switched_off_is_caught(small: Small, scope: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scale_noise(monkeypatch, 0.0)
    bound, claim = audit(small(**CALIBRATED, dp_scope=scope, target_epsilon=1.0))
    assert bound.epsilon > 1.0 >= claim


def test_noise_at_a_tenth_is_caught(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    scale_noise(monkeypatch, 0.1)
    bound, claim = audit(small(**CALIBRATED, target_epsilon=1.0))
    assert bound.epsilon > claim


def test_clipping_switched_off_is_caught(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    switch_clipping_off(monkeypatch)
    bound, claim = audit(small(**CALIBRATED, target_epsilon=1.0))
    assert bound.epsilon > claim


def test_without_dp_a_claim_is_refuted(small: Small) -> None:
    bound, _ = audit(small(**CALIBRATED, dp_scope="none"))
    assert bound.epsilon > 1.0


def test_the_same_seed_gives_the_same_bound_and_the_others_other_coins(small: Small) -> None:
    config = small(**CALIBRATED)
    assert audit(config) == audit(config)
    coins = [
        streams(seed, hospital, 0).sampling.random(64) < 0.5
        for seed, hospital in ((42, 0), (42, 1), (43, 0), (-1, 0), (-1, 0))
    ]
    assert len({tuple(row) for row in coins}) == 5


def hospital(records: int = 40) -> HospitalRecords:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (records, 28, 28, 1)).astype(np.uint8)
    return records_of(images, np.arange(records) % 10)


def canaries(count: int = 20, dataset: str = "mnist") -> HospitalRecords:
    return draw_canaries(count, DATASETS[dataset], NO_SHIFT, np.random.default_rng(1))


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


def terms_of(scope: str, **changes: Any) -> TrainingTerms:
    values = {"noise_multiplier": 1.0, "max_grad_norm": 1e-3, "sample_rate": 0.3, "steps": 2}
    return TrainingTerms(
        SCOPES[scope], OBJECTIVES["reconstruction"], learning_rate=1e-3, **{**values, **changes}
    )


@pytest.mark.parametrize("scope", list(SCOPES))
def test_watching_changes_no_bit_of_the_training(scope: str, small: Small) -> None:
    def trained(watched: bool) -> dict[str, Tensor]:
        model, terms = local_model_of(small()), terms_of(scope)
        watch = CanaryScores(model, hospital(), canaries(), terms) if watched else None
        train_round(model, hospital(), terms, streams(1, 0, 1), observe=watch)
        return model.state_dict()

    for one, other in zip(trained(True).values(), trained(False).values(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("scope", ["encoder", "frozen-decoder", "autoencoder"])
def test_what_is_observed_is_what_the_step_is_made_of(
    scope: str, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, taken = torch.optim.Adam.step, []

    def spy(self: torch.optim.Adam, closure: Any = None) -> Any:
        taken.append([parameter.grad.clone() for parameter in self.param_groups[0]["params"]])
        return step(self, closure)

    monkeypatch.setattr(torch.optim.Adam, "step", spy)
    seen: list[list[Tensor]] = []
    model, terms = local_model_of(small()), terms_of(scope, steps=1)
    train_round(model, hospital(), terms, streams(1, 0, 1), observe=lambda _, sums: seen.append(sums))
    for total, gradient in zip(seen[0], taken[0], strict=True):
        assert torch.equal(total / (0.3 * 40), gradient)


def test_without_noise_and_sampling_scores_are_the_coins(small: Small) -> None:
    """Every slot in every batch: what is known is subtracted, and the regression has one exact answer."""
    coins = np.random.default_rng(3).random(20) < 0.5
    own, drawn = hospital(400), canaries()
    terms = terms_of("autoencoder", noise_multiplier=1e-6, sample_rate=1.0)
    model = local_model_of(small())
    watch = CanaryScores(model, own, drawn, terms)
    train_round(model, AuditedRecords(own, drawn, coins), terms, streams(1, 0, 1), observe=watch)
    np.testing.assert_allclose(watch.scores(), coins - 0.5, atol=0.02)


def test_canaries_are_clipped_to_the_full_norm(small: Small) -> None:
    """A canary whose gradient is shorter than the bound would test less than the guarantee."""
    config = small()
    model, terms = local_model_of(config), terms_of("autoencoder", max_grad_norm=config.max_grad_norm)
    watch = CanaryScores(model, hospital(), canaries(), terms)
    train_round(model, hospital(), terms, streams(1, 0, 1), observe=watch)
    norms = per_sample_norms([watch._gradients[:20]])
    torch.testing.assert_close(norms, torch.full((20,), config.max_grad_norm))


def run(*arguments: str) -> int:
    try:
        return cli.main(arguments)
    except SystemExit as end:  # argparse ends this way
        return int(end.code or 0)


def arguments(data_file: Path, **changes: str) -> list[str]:
    values = {
        "data-source": "file",
        "data-file": str(data_file),
        "autoencoder": "fc",
        "encoding-size": "16",
        "num-server-rounds": "2",
        "batch-size": "250",
        "min-records": "10",
        "target-epsilon": "1",
    } | {key.replace("_", "-"): value for key, value in changes.items()}
    pairs = [word for key, value in values.items() for word in ("-c", f"{key}={value}")]
    return ["audit-epsilon", "mnist_iid", "--hospitals", "1", "--canaries", "200", *pairs]


def test_the_command_shows_claim_bound_and_what_it_does_not_prove(
    data_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments(data_file)) == cli.OK
    out, err = capsys.readouterr()
    text = " ".join(out.split())
    for words in (
        "hospital-0",
        "file tiny.npz",
        "Not refuted",
        "does not prove",
        "Nothing left this machine",
    ):
        assert words in text
    assert "round 2/2" in err
    assert "warning" not in err


def test_the_command_prints_one_json_document(data_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = (*arguments(data_file, target_epsilon="8"), "--json", "--confidence", "0.9")
    assert run(*command) == cli.OK
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert document["claimed_epsilon"] == pytest.approx(8, rel=0.01)
    assert document["epsilon_lower_bound"] < document["refutable_epsilon"] < 8
    assert (document["records"], document["canaries"], document["confidence"]) == (300, 200, 0.9)
    assert document["formal"] is True
    assert not document["violated"]
    assert "200 canaries refute at most" in err


def test_a_nominal_epsilon_is_called_so(data_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments(data_file, dp_scope="encoder")) == cli.OK
    assert "nominal, not a guarantee" in capsys.readouterr().out


@pytest.mark.parametrize("scope", ["autoencoder", "frozen-decoder"])
def test_the_command_ends_with_1_when_the_claim_is_refuted(
    scope: str, data_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scale_noise(monkeypatch, 0.0)
    assert run(*arguments(data_file, dp_scope=scope)) == 1
    assert "Refuted" in capsys.readouterr().out


def test_without_dp_a_claim_has_to_be_given(data_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments(data_file, dp_scope="none")) == cli.USER_MISTAKE
    assert "--claim" in capsys.readouterr().err
    assert run(*arguments(data_file, dp_scope="none"), "--claim", "1") == 1
    assert "Refuted" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (("--hospitals", "2", "--hospital", "2"), "--hospital 2: must be from 0 to 1"),
        (("--hospitals", "0"), "--hospitals 0"),
        (("--canaries", "1"), "--canaries 1"),
        (("--confidence", "95"), "--confidence 95"),
        (("--claim", "-1"), "--claim -1"),
        (("-c", "noise-multiplier=1.5", "-c", "target-epsilon=0.01"), "does not last one round"),
        (("-c", "target-delta=0.1"), "1/records"),
    ],
)
def test_a_mistake_is_one_line(
    changed: tuple[str, ...], words: str, data_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments(data_file), *changed) == cli.USER_MISTAKE
    out, err = capsys.readouterr()
    assert words in err
    assert err.count("\n") == 1
    assert not out


def test_gradients_that_do_not_fit_into_memory_are_refused(
    data_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2**20))
    assert run(*arguments(data_file)) == cli.USER_MISTAKE
    assert "fewer --canaries" in capsys.readouterr().err


@pytest.fixture
def blood(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Bound, float]]:
    real_data(BLOOD.name)

    def audited(canaries: int, **changes: Any) -> tuple[Bound, float]:
        values = {"data-root": str(BLOOD.parent), "num-server-rounds": 2, "target-epsilon": 1.0}
        config = find("bloodmnist_iid").config(values | changes)
        return audit(config, canaries, hospitals=5)

    return audited


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["autoencoder", "frozen-decoder"])
def test_on_real_images_the_promise_is_not_refuted_and_without_noise_it_is(
    scope: str, blood: Callable[..., tuple[Bound, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, claim = blood(200, **{"dp-scope": scope})
    assert honest.epsilon < claim
    scale_noise(monkeypatch, 0.0)
    silent, claim = blood(200, **{"dp-scope": scope})
    assert silent.epsilon > 1.0 >= claim
