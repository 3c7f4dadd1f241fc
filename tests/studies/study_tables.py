"""Synthetic tables of a paper study."""

from pathlib import Path
from typing import Any

import pandas as pd

from fl_ppae.files import write_json
from fl_ppae.studies import table
from fl_ppae.studies.columns import PAPER, names

# A seed of a trained encoder with a formal epsilon.
ROW: dict[str, Any] = {
    "dataset": "mnist",
    "source": "MNIST (official files)",
    "stand_in": False,
    "encoding": "trained",
    "autoencoder": "fc",
    "privacy": "8",
    "scope": "autoencoder",
    "hospitals": 1,
    "seed": 1,
    "classifier": "lr",
    "accuracy": 0.8,
    "inversion_ssim": 0.5,
    "epsilon": 7.9,
    "epsilon_status": "formal",
}
NOMINAL = {"scope": "encoder", "epsilon_status": "nominal"}
NO_DP = {"privacy": "none", "scope": "none", "epsilon": None, "epsilon_status": "none"}
BASELINE = {**NO_DP, "encoding": "pca", "autoencoder": "none"}
_FAILED = dict.fromkeys(("classifier", "accuracy", "inversion_ssim", "epsilon", "epsilon_status"))


def failed(error: str, **values: Any) -> dict[str, Any]:
    """A row of a cell that failed."""
    return {**_FAILED, "error": error, **values}


def table_of(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """A table as `table.read` returns it; each row is `ROW` with these changes, in its own cell."""
    whole = [{"cell": f"cell-{number}", **ROW, **row} for number, row in enumerate(rows)]
    empty = dict.fromkeys(names(PAPER), "")
    texts = [{key: "" if value is None else str(value) for key, value in row.items()} for row in whole]
    return pd.DataFrame([{**empty, **row} for row in texts])


def study_of(folder: Path, rows: list[dict[str, Any]], **document: Any) -> Path:
    """A study's folder with `study.json` and these rows in `cells.csv`."""
    folder.mkdir(exist_ok=True)
    whole = [{"cell": f"cell-{number}", **ROW, **row} for number, row in enumerate(rows)]
    table.append(folder / table.FILE, PAPER, whole)
    command = "fl-ppae study paper --scale small"
    document = {"name": "paper", "command": command, "settings": {}, **document}
    write_json(folder / "study.json", document)
    return folder
