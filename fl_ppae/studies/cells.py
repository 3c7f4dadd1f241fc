"""What a cell of any study is, and the rows that a worker makes of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from fl_ppae.studies.study_data import StudyData
from fl_ppae.studies.workers import NamedCell, Rows


class StudyCell(NamedCell, Protocol):
    """One run of a study."""

    @property
    def dataset(self) -> str:
        """Key of its data set."""
        ...

    def columns(self) -> dict[str, object]:
        """The columns of its rows that say what it is."""
        ...


@dataclass(frozen=True)
class CellWork:
    """Called with a cell, gives its rows: what `measure` found, what the cell is, its data and its time."""

    measure: Callable[[Any, StudyData], Rows]
    data: Mapping[str, StudyData]

    def __call__(self, cell: StudyCell) -> Rows:
        """Rows of the table. The same cell gives the same numbers at the same thread count."""
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
