"""What a worker of `study partitions` does with a cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fl_ppae.studies.partition_grid import PartitionCell
from fl_ppae.studies.study_data import StudyData


@dataclass(frozen=True)
class PartitionWork:
    """Called with a cell, gives its rows. Imports what takes seconds only in the worker."""

    data: StudyData

    def __call__(self, cell: PartitionCell) -> list[dict[str, Any]]:
        """The cell's row."""
        from fl_ppae.studies.partition_cell import run_partition_cell

        return run_partition_cell(cell, self.data)
