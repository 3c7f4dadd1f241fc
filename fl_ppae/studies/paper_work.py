"""What a worker of `study paper` does with a cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fl_ppae.studies.paper_grid import PaperCell, PaperScale
from fl_ppae.studies.study_data import StudyData


@dataclass(frozen=True)
class PaperWork:
    """Called with a cell, gives its rows. Imports what takes seconds only in the worker."""

    scale: PaperScale
    data: Mapping[str, StudyData]

    def __call__(self, cell: PaperCell) -> list[dict[str, Any]]:
        """The cell's rows, on one thread."""
        from fl_ppae.studies.paper_cell import run_paper_cell

        return run_paper_cell(cell, self.scale, self.data[cell.dataset], threads=1)
