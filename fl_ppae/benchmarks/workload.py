"""The data and configuration of all measurements: random images in PathMNIST's shape.

Speed does not depend on the content of an image.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fl_ppae.config import RunConfig

_SHAPE = (28, 28, 3)
_SERVER_RECORDS = 64  # in the validation and the test split each; the server's work is not measured


def write_images(folder: Path, records: int, hospitals: int = 1) -> Path:
    """Write an `.npz` with MedMNIST's keys: `records` random train images, a test record per hospital."""
    path = folder / f"random-{records}-{hospitals}.npz"
    if not path.exists():
        rng = np.random.default_rng(0)
        counts = {"train": records, "val": _SERVER_RECORDS, "test": max(_SERVER_RECORDS, hospitals)}
        arrays: dict[str, np.ndarray] = {}
        for split, count in counts.items():
            arrays[f"{split}_images"] = rng.integers(0, 256, (count, *_SHAPE), np.uint8)
            arrays[f"{split}_labels"] = (np.arange(count) % 9)[:, None]
        np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def config_for(data_file: Path, output_dir: Path, **changes: Any) -> RunConfig:
    """A run on `data_file`: the default network, scope and precision, one thread, a final evaluation."""
    values: dict[str, Any] = {
        "dataset": "pathmnist",
        "data-source": "file",
        "data-file": str(data_file),
        "min-records": 1,
        "evaluate-every": 0,
        "batch-size": 512,
        "output-dir": str(output_dir),
    }
    return RunConfig.from_flat({**values, **{key.replace("_", "-"): value for key, value in changes.items()}})
