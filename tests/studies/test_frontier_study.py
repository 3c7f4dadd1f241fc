"""The study of small codes: its cells, its attackers on cases with known answers, and its figure."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import quick_runs
from torch import Tensor, nn

from fl_ppae.leakage.intervals import t_mean
from fl_ppae.leakage.inversion import Pairs
from fl_ppae.studies.columns import FRONTIER
from fl_ppae.studies.frontier_attacks import METRICS, Attackers, column_of
from fl_ppae.studies.frontier_cell import cell_config, measure
from fl_ppae.studies.frontier_figures import draw_frontier_figures
from fl_ppae.studies.frontier_grid import FULL, SCALES, SMALL, FrontierCell, frontier_cells
from fl_ppae.studies.study_data import StudyData
from fl_ppae.studies.summary import Group, Mean

TINY = replace(SMALL, paper_rounds=1, attacker_steps=2, victims=20)
CELLS = 49


class Cells(nn.Module):
    """Images (N, 1, 28, 28) to the means of their cells of 4 x 4 pixels, in [-1, 1]."""

    def forward(self, images: Tensor) -> Tensor:
        return 2 * nn.functional.avg_pool2d(images, 4).flatten(1) - 1


class Nothing(nn.Module):
    """Images to numbers drawn anew."""

    def forward(self, images: Tensor) -> Tensor:
        return 2 * torch.rand(len(images), CELLS) - 1


def attackers(encoder: nn.Module, **scale: Any) -> Attackers:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(260, 1, 7, 7, generator=generator).repeat_interleave(4, 2).repeat_interleave(4, 3)
    labels = torch.arange(260) % 3
    torch.manual_seed(1)
    pairs = Pairs(images, encoder(images), labels)
    known, victims = pairs.rows(slice(200)), pairs.rows(slice(200, None))
    return Attackers(encoder, known, victims, any_way_up=False, scale=replace(TINY, **scale), seed=0)


def test_a_cell_has_a_name_of_its_own_and_a_configuration_that_is_valid(data: StudyData) -> None:
    cells = frontier_cells("mnist", (0, 1))
    assert len({cell.name for cell in cells}) == len(cells) == 34
    assert [cell.autoencoder for cell in cells[:2]] == ["conv", "residual"]
    for cell, scale in itertools.product(cells, SCALES.values()):
        config = cell_config(cell, data, scale)
        assert (config.encoding_bits, config.seed) == (cell.bits, cell.seed)


def test_a_cell_of_the_papers_encoder_has_every_column(
    data: StudyData, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick_runs(monkeypatch)
    (row,) = measure(FrontierCell("mnist", "conv", 0, 0, 0), data, TINY)
    measured = {column.name for column in FRONTIER if column.role == "metric"}
    inverters = {name for name in measured if name.startswith(("ssim_", "psnr_"))}
    assert measured - set(row) - inverters == {"gain_over_alone", "seconds"}
    assert (row["code_numbers"], row["code_bits"], row["run_formal"]) == (784, 32 * 784, False)
    assert row["encoder_formal"] is True
    assert row["encoder_epsilon"] <= 8


def test_attackers_find_an_open_code_and_fewer_bits_show_less() -> None:
    open_code = attackers(Cells())
    floats, coarse = open_code.leakage(0), open_code.leakage(1)
    assert floats["inversion_ssim"] > coarse["inversion_ssim"] + 0.1
    assert coarse["inversion_ssim"] > coarse["ssim_mean_image"] + 0.1
    assert floats["retrieval_known_top1"] == 1
    assert floats["retrieval_augmented_top1"] > 0.9
    assert floats["linkage_auc"] > 0.99


def test_attackers_find_nothing_in_a_code_that_shows_nothing() -> None:
    found = attackers(Nothing()).leakage(0)
    assert found["inversion_ssim"] < found["ssim_mean_image"] + 0.02
    assert found["retrieval_augmented_top1"] < 0.15  # of 60; guessing gives 0.017
    assert abs(found["linkage_auc"] - 0.5) < 0.25  # five standard deviations


def test_each_attacker_of_the_full_scale_has_its_own_columns_and_the_best_is_one_of_them() -> None:
    found = attackers(Cells(), gradient_steps=4, losses=FULL.losses).leakage(2)
    assert found["inversion_ssim"] > found["ssim_mean_image"] + 0.1
    for metric in METRICS:
        columns = {column.name for column in FRONTIER if column.name.startswith(f"{metric}_")}
        assert {name for name in found if name.startswith(f"{metric}_")} == columns
        best = column_of(metric, found[f"{metric}_attacker"])
        assert found[best] == found[f"inversion_{metric}"]


def test_the_figure_shows_formal_and_other_codes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    metrics = ("accuracy", "inversion_ssim", "inversion_psnr", "retrieval_augmented_top1", "linkage_auc")
    floors = {f"{name}_{floor}": 0.4 for name in ("ssim", "psnr") for floor in ("mean_image", "class_mean")}
    groups = []
    for numbers, bits, name in itertools.product(("8", "16"), ("8", "32"), ("head", "mlp")):
        keys = {"code_numbers": numbers, "code_bits": bits, "classifier": name, "stand_in": "false"}
        keys |= {"run_formal": str(name == "head").lower(), "source": "drawn"}
        values = {**{metric: rng.random() for metric in metrics}, **floors}
        means = {metric: Mean(**vars(t_mean([value]))) for metric, value in values.items()}
        groups.append(Group(keys, 1, means))
    draw_frontier_figures(groups, tmp_path)
    assert (tmp_path / "hiding.png").stat().st_size > 10_000
