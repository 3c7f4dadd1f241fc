"""Runs the command line in this process, and makes a directory like that of a finished run."""

from pathlib import Path

from golden import HOSPITAL_COLUMNS, ROUND_COLUMNS

from fl_ppae import cli
from fl_ppae.config import RunConfig
from fl_ppae.files import write_json

STAND_IN = ["pathmnist_iid", "--hospitals", "2", "-c", "data-source=stand-in", "-c", "num-server-rounds=2"]


def run(*arguments: str) -> int:
    try:
        return cli.main(arguments)
    except SystemExit as end:  # argparse ends this way
        return int(end.code or 0)


def finished(path: Path, scope: str = "autoencoder", **summary: object) -> Path:
    """Make a directory like that of a finished run, with these changes to its summary."""
    formal = scope == "autoencoder"
    config = RunConfig.from_flat({"dp-scope": scope}).to_flat()
    label = "stand-in for PathMNIST"
    path.mkdir(parents=True, exist_ok=True)
    write_json(path / "config.json", {"simulation": "x", "config": config, "data_source": {"label": label}})
    row = {"round": 1, "hospital": "hospital-0", "records": 900, "noise_multiplier": 1.5, "epsilon": 7.5}
    rows = [row | {"status": "trained"}, row | {"round": 2, "status": "declined", "reason": "budget spent"}]
    lines = [",".join(str(row.get(column, "")) for column in HOSPITAL_COLUMNS) for row in rows]
    (path / "hospitals.csv").write_text("\n".join([",".join(HOSPITAL_COLUMNS), *lines]) + "\n")
    (path / "rounds.csv").write_text(",".join(ROUND_COLUMNS) + "\n1,1,0,0,7.5,formal,,,,,,\n")
    values: dict[str, object] = {
        "status": "completed",
        "phase": "done",
        "simulation": "x",
        "data_source": label,
        "accuracy": 0.7,
        "auc": None,
        "reconstruction_loss": 0.02,
        "epsilon": {"hospital-0": 7.5},
        "epsilon_max": 7.5,
        "guarantees": {
            "updates": {"epsilon": 7.5, "delta": 1e-5, "formal": formal, "note": "a note"},
            "encodings": {"epsilon": None, "delta": None, "formal": False, "note": "plain"},
        },
        "formal": False,
        "leakage": {"cosine": 0.3},
        "baselines": {"raw_pixels": {"accuracy": 0.8}, "random_encoder": {"accuracy": 0.65, "cosine": 0.2}},
    }
    write_json(path / "summary.json", values | summary)
    return path
