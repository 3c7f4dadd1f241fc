"""The studies' table, grids, statistics, verdicts and choice."""

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from fl_ppae.data.cache import Split
from fl_ppae.errors import UserError
from fl_ppae.studies import table
from fl_ppae.studies.frontier import Choice, Wish, frontier, nearest, pick
from fl_ppae.studies.paper_grid import FULL, SMALL, paper_cells
from fl_ppae.studies.partition_cell import hellinger, heterogeneity
from fl_ppae.studies.partition_grid import partition_cells
from fl_ppae.studies.statistics import mean_interval
from fl_ppae.studies.study_data import choose_by_class
from fl_ppae.studies.summary import PAPER_KEYS, PAPER_METRICS, summarise
from fl_ppae.studies.table import PAPER_COLUMNS
from fl_ppae.studies.verdicts import paper_verdicts


def row(**values: Any) -> dict[str, str]:
    return {**dict.fromkeys(PAPER_COLUMNS, ""), **{key: str(value) for key, value in values.items()}}


def test_a_row_is_in_the_file_as_soon_as_its_cell_ends(tmp_path: Path) -> None:
    path = tmp_path / "cells.csv"
    table.append(path, PAPER_COLUMNS, [{"cell": "a", "classifier": "lr", "accuracy": 0.5}])
    assert [one["cell"] for one in table.read(path)] == ["a"]
    table.append(path, PAPER_COLUMNS, [{"cell": "b", "classifier": "lr", "accuracy": math.nan}])
    assert [(one["cell"], one["accuracy"]) for one in table.read(path)] == [("a", "0.5"), ("b", "")]


def test_a_line_that_a_crash_cut_short_is_left_out_and_swallows_no_other(tmp_path: Path) -> None:
    path = tmp_path / "cells.csv"
    table.append(path, PAPER_COLUMNS, [{"cell": "a", "classifier": "lr"}])
    with path.open("a") as file:
        file.write("b,mnist,half a li")
    table.append(path, PAPER_COLUMNS, [{"cell": "c", "classifier": "lr"}])
    assert [one["cell"] for one in table.read(path)] == ["a", "c"]


def test_a_failed_cell_runs_again_only_when_asked_and_its_success_replaces_it(tmp_path: Path) -> None:
    path = tmp_path / "cells.csv"
    table.append(path, PAPER_COLUMNS, [{"cell": "a", "error": "no memory"}])
    assert table.finished(table.read(path), retry_failed=False) == {"a"}
    assert table.finished(table.read(path), retry_failed=True) == set()
    table.append(path, PAPER_COLUMNS, [{"cell": "a", "classifier": name} for name in ("lr", "resnet18")])
    assert [(one["classifier"], one["error"]) for one in table.read(path)] == [("lr", ""), ("resnet18", "")]


def test_a_file_that_is_no_table_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cells.csv"
    path.write_text("x,y\n1,2\n")
    with pytest.raises(UserError, match=r"cells\.csv: no column 'cell'"):
        table.read(path)


@pytest.mark.parametrize("values", [[0.1, 0.2], [0.5, 0.7, 0.9], list(np.linspace(0, 1, 7) ** 2)])
def test_the_interval_is_student_s(values: list[float]) -> None:
    found = mean_interval(values)
    low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high))


def test_one_seed_has_no_interval() -> None:
    assert math.isnan(mean_interval([0.5]).low)
    with pytest.raises(ValueError, match="no values"):
        mean_interval([])


@pytest.mark.parametrize("size", [7, 50, 199])
def test_chosen_images_keep_the_mix_of_classes(size: int) -> None:
    labels = np.random.default_rng(0).choice(4, 200, p=[0.6, 0.25, 0.1, 0.05])
    rows = choose_by_class(Split(np.zeros((200, 1)), labels), size)
    assert len(np.unique(rows)) == size
    expected = np.bincount(labels, minlength=4) * size / 200
    assert np.abs(np.bincount(labels[rows], minlength=4) - expected).max() < 1
    assert np.array_equal(rows, choose_by_class(Split(np.zeros((200, 1)), labels), size))


def test_the_small_study_trains_180_encoders_and_names_each_cell_once() -> None:
    cells = paper_cells(SMALL, SMALL.datasets, (0, 1, 2))
    assert sum(cell.encoding == "trained" for cell in cells) == 180
    assert len({cell.name for cell in cells}) == len(cells) == 225
    full = paper_cells(FULL, FULL.datasets, (0,))
    assert {cell.autoencoder for cell in full} == {"none", "fc", "fc-deep", "conv", "conv-image"}
    assert {cell.epsilon for cell in full} == {None, 8.0, 3.0, 1.0}
    assert {cell.hospitals for cell in full} == {1, 5}


def test_the_partition_study_has_every_split_noise_and_size() -> None:
    cells = partition_cells((0,))
    assert len({cell.name for cell in cells}) == len(cells) == 1 + 8 * 2 * 3
    federated = {
        (cell.partition, cell.noise, cell.hospitals) for cell in cells if cell.setting == "federated"
    }
    assert len(federated) == 8 * 2 * 2


def test_hellinger_is_a_distance_of_distributions() -> None:
    rng = np.random.default_rng(0)
    for one, other, third in itertools.permutations(rng.dirichlet(np.ones(5), 4), 3):
        assert hellinger(one, one) == pytest.approx(0, abs=1e-7)
        assert 0 <= hellinger(one, other) <= 1
        assert hellinger(one, other) == pytest.approx(hellinger(other, one))
        assert hellinger(one, third) <= hellinger(one, other) + hellinger(other, third) + 1e-12
        euclid = np.linalg.norm(np.sqrt(one) - np.sqrt(other)) / math.sqrt(2)
        assert hellinger(one, other) == pytest.approx(euclid)
    apart = [np.array([1.0, 0.0]), np.array([0.0, 1.0])]
    assert hellinger(*apart) == 1
    assert heterogeneity(apart, [10, 10]) == pytest.approx(math.sqrt(1 - math.sqrt(0.5)))
    assert heterogeneity([np.array([0.5, 0.5])] * 3, [1, 2, 3]) == pytest.approx(0, abs=1e-7)


def _accuracies(pixels: float, plain: float, private: float, spread: float) -> list[dict[str, str]]:
    """A central table of LR on `fc` over 3 seeds."""
    rows = []
    for seed, shift in enumerate((-spread, 0.0, spread)):
        common = {"dataset": "mnist", "classifier": "lr", "hospitals": 1, "seed": seed}
        configurations = [
            ("pixels", "none", "none", "none", pixels),
            ("trained", "fc", "none", "none", plain + shift),
            ("trained", "fc", "1", "encoder", private),
        ]
        for encoding, autoencoder, privacy, scope, accuracy in configurations:
            rows.append(
                row(
                    cell=f"mnist/{encoding}/{privacy}/s{seed}",
                    encoding=encoding,
                    autoencoder=autoencoder,
                    privacy=privacy,
                    scope=scope,
                    accuracy=accuracy,
                    **common,
                )
            )
    return rows


@pytest.mark.parametrize(
    ("plain", "private", "spread", "raises", "costs"),
    [
        (0.95, 0.80, 0.001, "holds", "holds"),
        (0.85, 0.84, 0.001, "does not hold", "does not hold"),
        (0.91, 0.86, 0.05, "undecided", "undecided"),
    ],
)
def test_a_verdict_follows_the_whole_interval(
    plain: float, private: float, spread: float, raises: str, costs: str
) -> None:
    rows = _accuracies(0.90, plain, private, spread)
    central = {one.claim: one for one in paper_verdicts(rows) if one.setting.startswith("central")}
    assert (central["1a"].verdict, central["1b"].verdict) == (raises, costs)
    assert f"{plain:.3f}" in central["1a"].compared


def test_a_claim_without_rows_or_with_one_seed_is_undecided() -> None:
    rows = [one for one in _accuracies(0.9, 0.95, 0.8, 0.0) if one["seed"] == "0"]
    assert {one.verdict for one in paper_verdicts(rows)} == {"undecided"}


def test_failed_cells_are_in_no_mean() -> None:
    rows = [*_accuracies(0.9, 0.95, 0.8, 0.0), row(cell="x", dataset="mnist", error="died", accuracy="")]
    groups = summarise(rows, PAPER_KEYS, PAPER_METRICS)
    assert [group.seeds for group in groups] == [3, 3, 3]


def _random_choices(seed: int) -> list[Choice]:
    rng = np.random.default_rng(seed)
    keys = {"autoencoder": "fc", "classifier": "lr", "scope": "autoencoder", "privacy": "8"}
    return [
        Choice(keys, 3, *np.round(rng.random(3), 1).tolist(), rng.choice(["formal", "nominal"]))
        for _ in range(30)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_the_pick_is_the_most_accurate_of_all_that_fit_and_lies_on_the_frontier(seed: int) -> None:
    everyone, wish = _random_choices(seed), Wish(0.6, 0.6, 0.2, formal_only=False)
    fitting = [one for one in everyone if one.epsilon <= 0.6 and one.ssim <= 0.6 and one.accuracy >= 0.2]
    chosen = pick(frontier(everyone), wish)
    assert chosen is not None and chosen in fitting
    assert chosen.accuracy == max(one.accuracy for one in fitting)


def test_a_nominal_epsilon_is_no_guarantee_however_small() -> None:
    one = replace(_random_choices(0)[0], accuracy=0.9, epsilon=0.1, ssim=0.1, status="nominal")
    formal = replace(one, accuracy=0.5, epsilon=1.0, status="formal")
    assert pick([one, formal], Wish(2.0, 0.5, 0.0, formal_only=True)) == formal
    assert pick([one, formal], Wish(2.0, 0.5, 0.0, formal_only=False)) == one
    assert len(frontier([one, formal])) == 2


def test_where_nothing_fits_the_nearest_says_what_gives_way() -> None:
    base = replace(_random_choices(0)[0], accuracy=0.8, epsilon=8.0, ssim=0.5, status="formal")
    leaky = replace(base, epsilon=1.0, ssim=0.9)
    miss = nearest([base, leaky], Wish(7.0, 0.5, 0.0, formal_only=True))
    assert miss is not None and miss.choice == base
    assert miss.gives_way == ("epsilon 8.00 is above 7",)


def test_every_column_is_in_the_table_s_description() -> None:
    words = table.__doc__ or ""
    for column in (*PAPER_COLUMNS, *table.PARTITION_COLUMNS):
        assert column in words
    assert set(PAPER_KEYS) | set(PAPER_METRICS) <= set(PAPER_COLUMNS)
