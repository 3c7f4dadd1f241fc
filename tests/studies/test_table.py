import errno
import math
from pathlib import Path
from typing import Any

import pytest

from fl_ppae.errors import UserError
from fl_ppae.studies import table
from fl_ppae.studies.columns import KEYS, METRICS, PAPER, PARTITIONS, names
from fl_ppae.studies.paper_grid import PaperCell
from fl_ppae.studies.partition_grid import PartitionCell


def rows_of(path: Path, *columns: str) -> list[tuple[Any, ...]]:
    return list(table.read(path)[list(columns)].itertuples(index=False, name=None))


def test_a_row_is_in_the_file_when_append_returns(tmp_path: Path) -> None:
    path = tmp_path / "cells.csv"
    table.append(path, PAPER, [{"cell": "a", "classifier": "lr", "accuracy": 0.5}])
    assert rows_of(path, "cell") == [("a",)]
    table.append(path, PAPER, [{"cell": "b", "classifier": "lr", "accuracy": math.nan}])
    assert rows_of(path, "cell", "accuracy") == [("a", "0.5"), ("b", "")]


def test_a_line_cut_short_by_a_crash_is_skipped_and_the_next_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "cells.csv"
    table.append(path, PAPER, [{"cell": "a", "classifier": "lr"}])
    with path.open("a") as file:
        file.write("b,mnist,half a li")
    table.append(path, PAPER, [{"cell": "c", "classifier": "lr"}])
    assert rows_of(path, "cell") == [("a",), ("c",)]


@pytest.mark.parametrize("crash", range(1, 24))
def test_a_table_that_was_cut_short_anywhere_in_its_last_line_loses_that_line_alone(
    crash: int, tmp_path: Path
) -> None:
    """Its last value too: a seed of 12 that lost its 2 would pass for a seed of 1."""
    path = tmp_path / "cells.csv"
    path.write_text("cell,error,classifier,seed\na,,lr,12\nb,no memory at all,,12\n")
    path.write_bytes(path.read_bytes()[:-crash])
    assert rows_of(path, "cell", "seed") == [("a", "12")]
    table.append(path, PAPER, [{"cell": "c", "classifier": name, "seed": 3} for name in ("lr", "resnet18")])
    assert rows_of(path, "cell", "seed") == [("a", "12"), ("c", "3"), ("c", "3")]


def test_a_torn_header_is_no_table_yet(tmp_path: Path) -> None:
    path = tmp_path / "cells.csv"
    path.write_text("cell,err")
    assert table.read(path).empty
    table.append(path, PAPER, [{"cell": "a", "classifier": "lr"}])
    assert rows_of(path, "cell") == [("a",)]


def test_a_cell_is_in_the_table_with_all_its_rows_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cells.csv"
    table.append(path, PAPER, [{"cell": "a", "classifier": "lr"}])

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr("fl_ppae.files.os.fsync", full)
        table.append(path, PAPER, [{"cell": "b", "classifier": name} for name in ("lr", "resnet18")])
    assert rows_of(path, "cell") == [("a",)]
    assert [file.name for file in tmp_path.iterdir()] == ["cells.csv"]


def test_a_failed_cell_runs_again_only_on_request_and_success_replaces_it(tmp_path: Path) -> None:
    path = tmp_path / "cells.csv"
    table.append(path, PAPER, [{"cell": "a", "error": "no memory"}])
    assert table.finished(table.read(path), retry_failed=False) == {"a"}
    assert table.finished(table.read(path), retry_failed=True) == set()
    assert table.failures(table.read(path)) == [{"cell": "a", "error": "no memory"}]
    table.append(path, PAPER, [{"cell": "a", "classifier": name} for name in ("lr", "resnet18")])
    assert rows_of(path, "classifier", "error") == [("lr", ""), ("resnet18", "")]


def test_the_last_row_of_a_cell_and_classifier_replaces_the_first(tmp_path: Path) -> None:
    path = tmp_path / "cells.csv"
    for cell, accuracy in (("a", 0.1), ("b", 0.2), ("a", 0.3)):
        table.append(path, PAPER, [{"cell": cell, "classifier": "lr", "accuracy": accuracy}])
    assert rows_of(path, "cell", "accuracy") == [("a", "0.3"), ("b", "0.2")]


def test_a_study_without_a_table_has_no_rows(tmp_path: Path) -> None:
    assert table.read(tmp_path / "cells.csv").empty


@pytest.mark.parametrize("missing", ["cell", "error"])
def test_a_file_that_is_not_a_table_is_named(missing: str, tmp_path: Path) -> None:
    path = tmp_path / "cells.csv"
    path.write_text(f"{'error' if missing == 'cell' else 'cell'},y\n1,2\n")
    with pytest.raises(UserError, match=rf"cells\.csv: no column '{missing}'"):
        table.read(path)


def test_a_cell_s_columns_are_in_its_table_and_no_column_has_two_roles() -> None:
    paper = PaperCell("mnist", "trained", "fc", 8.0, "encoder", 5, 0).columns()
    split = PartitionCell("iid", "central", "calibrated", 1, 0).columns()
    assert set(paper) <= set(names(PAPER)) and set(split) <= set(names(PARTITIONS))
    assert not KEYS & METRICS  # also across the two tables


def test_a_table_of_an_earlier_version_keeps_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "cells.csv"
    path.write_text("cell,accuracy,error\nold,0.5,\n")
    table.append(path, PAPER, [{"cell": "new", "accuracy": 0.75, "hits": "8:ff"}])
    assert path.read_text() == "cell,accuracy,error\nold,0.5,\nnew,0.75,\n"
