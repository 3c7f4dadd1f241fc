"""The interface of a study's cells, and how a worker turns one into rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from fl_ppae.studies.study_data import StudyData
from fl_ppae.studies.workers import NamedCell, Rows


class StudyCell(NamedCell, Protocol):
    """One configuration and seed of a study."""

    @property
    def dataset(self) -> str:
        """Key of its data set."""
        ...

    def columns(self) -> dict[str, object]:
        """The columns that identify it."""
        ...


@dataclass(frozen=True)
class CellWork:
    """Turns a cell into rows: what `measure` returns, the cell's own columns, its data source and time."""

    measure: Callable[[Any, StudyData], Rows]
    data: Mapping[str, StudyData]

    def __call__(self, cell: StudyCell) -> Rows:
        """The cell's rows. The same cell gives the same numbers at the same thread count."""
        start = time.perf_counter()
        data = self.data[cell.dataset]
        measured = self.measure(cell, data)
        common = {
            **cell.columns(),
            "source": data.label,
            "stand_in": data.stand_in,
            "seconds": time.perf_counter() - start,
        }
        return [{**row, **common} for row in measured]
