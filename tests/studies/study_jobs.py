"""Work for the workers of a test, in a module of its own because each worker imports it."""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studies.study_tables import ROW

from fl_ppae.studies.kinds import PAPER
from fl_ppae.studies.study import Study, remaining, run_and_record


@dataclass(frozen=True)
class Job:
    name: str


def work(job: Job) -> list[dict[str, Any]]:
    if job.name == "fails":
        raise ValueError("a reason\nin two lines")
    if job.name == "dies":
        os._exit(9)
    print("said", job.name)
    return [{"cell": job.name, "threads": os.environ["OMP_NUM_THREADS"]}]


def slow(job: Job) -> list[dict[str, Any]]:
    time.sleep(0 if job.name == "a" else 60)
    return [{"cell": job.name}]


@dataclass(frozen=True)
class TwoRows:
    """A cell of the paper's study with a row for each of two classifiers."""

    name: str

    def columns(self) -> dict[str, object]:
        return {**ROW, "cell": self.name}

    @property
    def dataset(self) -> str:
        return "mnist"


def two_rows(cell: TwoRows) -> list[dict[str, Any]]:
    time.sleep(0.15)
    return [{**cell.columns(), "classifier": name, "accuracy": 0.25} for name in ("lr", "resnet18")]


def main(folder: Path) -> None:
    """Run what is left of a study of `CELLS`."""
    study = Study(folder, PAPER)
    with study.lock():
        left = remaining(study, CELLS, retry_failed=False)
        run_and_record(study, left, two_rows, 2, lambda _: None)


CELLS = [TwoRows(f"cell-{number}") for number in range(40)]

if __name__ == "__main__":
    main(Path(sys.argv[1]))
