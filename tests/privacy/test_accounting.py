"""Epsilon against dp-accounting's own accountant, over a grid, and over the rounds of a real run."""

import itertools
import math
import time
from collections.abc import Callable

import pytest
from dp_accounting.pld.privacy_loss_mechanism import GaussianPrivacyLoss
from opacus.accountants import PRVAccountant
from privacy.oracles import DELTA, agrees, oracle
from support import Run, simulated_nodes

from fl_ppae.config import RunConfig
from fl_ppae.errors import UserError
from fl_ppae.privacy import calibration
from fl_ppae.privacy.accounting import epsilon, replace_one_epsilon
from fl_ppae.privacy.calibration import calibrate_noise_multiplier
from fl_ppae.privacy.events import Declared, Gaussian, PoissonGaussian, merge
from fl_ppae.privacy.plan import plan_hospital

GRID = list(itertools.product((0.6, 1.0, 2.5, 8.0), (0.01, 0.2, 1.0), (1, 40, 400)))


@pytest.mark.parametrize(
    ("sigma", "rate", "steps"), [point for point in GRID if point[0] >= 1 or point[2] < 400]
)
def test_epsilon_is_that_of_an_independent_accountant(sigma: float, rate: float, steps: int) -> None:
    found = epsilon([PoissonGaussian(sigma, rate, steps, 1)], DELTA)
    expected = oracle([(sigma, rate, steps)])
    assert agrees(found.spent, expected), (found, expected)
    assert found.spent == max(found.prv, found.pld)


@pytest.mark.parametrize(("sigma", "rate", "steps"), [point for point in GRID if point[1] == 1])
def test_epsilon_of_full_batches_is_never_below_the_exact_one(sigma: float, rate: float, steps: int) -> None:
    """Full batches compose to one Gaussian mechanism of noise sigma / sqrt(steps)."""
    spent = epsilon([PoissonGaussian(sigma, rate, steps, 1)], DELTA).spent
    loss = GaussianPrivacyLoss(sigma / math.sqrt(steps))
    assert loss.get_delta_for_epsilon(spent) <= DELTA < loss.get_delta_for_epsilon(0.995 * spent - 1e-3)


def test_rounds_compose_as_one_accountant_fed_all_of_them() -> None:
    rounds = [PoissonGaussian(1.1, 0.05, 20, number) for number in range(1, 6)]
    counts = (1, 5)
    spent = [epsilon(rounds[:count], DELTA).spent for count in counts]
    assert all(
        agrees(value, oracle([(1.1, 0.05, 20)] * count)) for count, value in zip(counts, spent, strict=True)
    )
    assert all(later > earlier for earlier, later in itertools.pairwise(spent))
    assert spent[-1] > 1.5 * epsilon(rounds[4:], DELTA).spent, "a fresh accountant each round would say less"


def test_events_of_different_noise_compose_and_their_order_does_not_matter() -> None:
    parts = [(1.0, 0.1, 5), (2.0, 0.02, 30), (1.0, 0.1, 7)]
    events = [PoissonGaussian(*part, number) for number, part in enumerate(parts, start=1)]
    found = {epsilon(order, DELTA) for order in itertools.permutations(events)}
    assert len(found) == 1
    assert agrees(found.pop().spent, oracle([(1.0, 0.1, 12), (2.0, 0.02, 30)]))
    assert merge(events) == merge(reversed(events)) == ((1.0, 0.1, 12), (2.0, 0.02, 30))


def test_more_noise_costs_less_and_a_higher_sample_rate_costs_more() -> None:
    by_noise = [epsilon([PoissonGaussian(sigma, 0.1, 40, 1)], DELTA).spent for sigma in (0.8, 1.0, 2.0, 4.0)]
    by_rate = [epsilon([PoissonGaussian(1.0, rate, 40, 1)], DELTA).spent for rate in (0.01, 0.1, 0.5, 1.0)]
    assert by_noise == sorted(by_noise, reverse=True)
    assert by_rate == sorted(by_rate)


def test_nothing_released_costs_nothing() -> None:
    assert epsilon([], DELTA).spent == 0.0


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, math.nan])
def test_a_delta_that_is_none_is_refused(delta: float) -> None:
    with pytest.raises(ValueError, match="delta"):
        epsilon([], delta)


@pytest.mark.parametrize(
    ("rate", "steps", "target", "delta"),
    [(0.05, 60, 1.0, 1e-5), (0.25, 40, 8.0, 1e-3), (1.0, 10, 3.0, 1e-4), (0.01, 500, 0.5, 1e-5)],
)
def test_calibrated_noise_meets_the_target_and_one_per_cent_less_would_miss_it(
    rate: float, steps: int, target: float, delta: float
) -> None:
    sigma = calibrate_noise_multiplier(rate, steps, target, delta)
    assert epsilon([PoissonGaussian(sigma, rate, steps, 1)], delta).spent <= target
    assert oracle([(sigma, rate, steps)], delta) <= target
    assert epsilon([PoissonGaussian(0.99 * sigma, rate, steps, 1)], delta).spent > target


@pytest.mark.parametrize("target", [0.7, 8.0])
@pytest.mark.parametrize("nudge", [1 - 1e-3, 1 - 1e-10, 1 + 1e-10, 1 + 1e-3])
def test_server_and_hospital_come_to_one_noise_whatever_their_last_digits(
    nudge: float, target: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another processor or number of threads moves the root that Brent's method finds by about 1e-12."""
    expected = calibrate_noise_multiplier(0.2578125, 40, target, 1e-5)
    honest = calibration.brentq
    moved = math.log(nudge)
    monkeypatch.setattr(calibration, "brentq", lambda *given, **more: honest(*given, **more) + moved)
    calibrate_noise_multiplier.cache_clear()
    assert calibrate_noise_multiplier(0.2578125, 40, target, 1e-5) == expected
    assert float(f"{expected:.3e}") == expected
    less = PoissonGaussian(expected - 0.001, 0.2578125, 40, 1)
    assert epsilon([less], 1e-5).spent > target, "more noise than four digits need"


def test_an_impossible_target_is_a_mistake_told_in_one_line() -> None:
    with pytest.raises(UserError, match=r"target-epsilon = 0\.001 at target-delta = 1e-06") as told:
        calibrate_noise_multiplier(1.0, 30, 1e-3, 1e-6)
    assert "\n" not in str(told.value)


def test_every_hospitals_epsilon_in_a_real_run_composes_over_its_rounds(federate: Callable[..., Run]) -> None:
    run = federate(
        "three-rounds",
        nodes=simulated_nodes(2),
        num_server_rounds=3,
        target_epsilon=100.0,
        partition="quantity-skew",
    )
    for name, account in run.ledger["hospitals"].items():
        rows = [row for row in run.rows("hospitals.csv") if row["hospital"] == name]
        told = [float(row["epsilon"]) for row in rows]
        sigma, rate, steps = (float(rows[0][key]) for key in ("noise_multiplier", "sample_rate", "steps"))
        exact_rate = account["events"][0]["sample_rate"]
        assert rate == pytest.approx(exact_rate, rel=1e-5)
        composed = [oracle([(sigma, exact_rate, int(steps) * count)], 1e-3) for count in (1, 3)]
        assert all(agrees(*pair) for pair in zip(told[::2], composed, strict=True)), (name, told, composed)
        assert told[0] < told[1] < told[2]
        assert not agrees(told[2], composed[0]), "the accountant was restarted"
        assert run.summary["epsilon"][name] == pytest.approx(told[2], rel=1e-5)
    assert run.summary["epsilon_max"] == max(run.summary["epsilon"].values())


def test_a_declared_cost_is_added_and_its_delta_is_no_longer_there() -> None:
    training = PoissonGaussian(2.0, 0.25, 2, 1)
    lost = (Declared(3.0, 2e-4), Declared(1.0, 1e-4))
    left = 1e-3 - 3e-4
    alone, both = epsilon([training], left), epsilon([training, *lost], 1e-3)
    assert both.pld == pytest.approx(alone.pld + 4.0, abs=1e-9)
    assert both.prv == pytest.approx(alone.prv + 4.0, abs=1e-9)
    alone_replaced = replace_one_epsilon([training, Gaussian(2.0, "test", 1)], left)
    everything = [training, Gaussian(2.0, "test", 1), *lost]
    assert replace_one_epsilon(everything, 1e-3) == pytest.approx(alone_replaced + 4.0, abs=1e-9)
    for delta in (1e-4, 3e-4):
        assert epsilon([training, *lost], delta).spent == math.inf
        assert replace_one_epsilon(lost, delta) == math.inf
    assert epsilon(lost, 1e-3).spent == replace_one_epsilon(lost, 1e-3) == 4.0


RECORDS_BATCH = [(300, 64), (300, 512), (2392, 1024), (2392, 64), (17_999, 256)]
ROUNDS_NOISE = [(1, 0.7), (20, 2.0), (40, 6.0)]
LARGEST = [(89_996, 256, 1, 0.7), (89_996, 256, 10, 2.0)]  # with more rounds the oracle takes seconds


@pytest.mark.parametrize(
    ("records", "batch", "rounds", "noise"),
    [(*sizes, *asked) for sizes, asked in itertools.product(RECORDS_BATCH, ROUNDS_NOISE)] + LARGEST,
)
def test_a_plans_epsilon_over_records_batch_rounds_and_noise_is_the_oracles(
    records: int, batch: int, rounds: int, noise: float
) -> None:
    config = RunConfig.from_flat(
        {
            "batch-size": batch,
            "num-server-rounds": rounds,
            "noise-multiplier": noise,
            "target-epsilon": 1000.0,
            "target-delta": DELTA,
        }
    )
    plan = plan_hospital("hospital-0", records, config)
    steps = rounds * math.ceil(records / batch)
    assert plan.sample_rate >= min(1.0, batch / records), "never below what batch-size asks for"
    expected = oracle([(noise, plan.sample_rate, steps)])
    assert plan.epsilon_total is not None
    assert agrees(plan.epsilon_total, expected), (plan.epsilon_total, expected)


@pytest.mark.parametrize(
    "parts",
    [
        [(2.16, 0.428, 60)],
        [(1.0, 1.0, 10)],
        [(1.0, 0.01, 400)],
        [(1.5, 0.2, 7), (1.1, 0.05, 3), (4.0, 0.2, 90)],
    ],
)
def test_prv_is_opacus_own_to_a_ten_thousandth(parts: list[tuple[float, float, int]]) -> None:
    accountant = PRVAccountant()
    accountant.history = sorted(parts)
    found = epsilon([PoissonGaussian(*part, 1) for part in parts], DELTA).prv
    with_its_error = float(accountant.get_epsilon(DELTA, eps_error=0.01))
    assert found == pytest.approx(with_its_error - 0.01, abs=1e-4)


@pytest.mark.parametrize("delta", [0.1, 0.5, 0.9])
def test_epsilon_is_known_at_a_large_delta_too(delta: float) -> None:
    events = [PoissonGaussian(1.5, 0.25, 8, 1)]
    large, small = (replace_one_epsilon(events, at) for at in (delta, 1e-3))
    assert 0 <= large < small
    assert 0 <= epsilon(events, delta).pld < epsilon(events, 1e-3).pld


@pytest.mark.parametrize("steps", [1, 1_000])
def test_a_smaller_delta_never_costs_less_however_small(steps: int) -> None:
    events = [PoissonGaussian(4.0, 0.00033, steps, 1)]
    costs = [epsilon(events, delta).spent for delta in (1e-9, 1e-12, 1.1e-18, 1e-300)]
    assert costs == sorted(costs)
    assert costs[0] > 0


def test_what_spends_any_budget_is_priced_at_once_and_not_too_low() -> None:
    start = time.process_time()
    found = epsilon([PoissonGaussian(0.2, 1.0, 10_000_000, 1)], 1e-5).spent
    assert time.process_time() - start < 20
    mu_squared = 10_000_000 / 0.2**2  # of the Gaussian mechanism that all steps together are
    assert mu_squared / 2 < found < math.inf
