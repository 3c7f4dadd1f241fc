"""`fl-ppae run` from end to end, in this process."""

from pathlib import Path

import pytest
from flwr_datasets import partitioner
from support import SMALL

from fl_ppae import cli


def test_a_run_deals_its_data_once(data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Counted(partitioner.IidPartitioner):
        made = 0

        def __init__(self, num_partitions: int) -> None:
            super().__init__(num_partitions)
            Counted.made += 1

    monkeypatch.setattr(partitioner, "IidPartitioner", Counted)
    values = {**SMALL, "data-file": str(data_file), "output-dir": str(tmp_path / "run")}
    pairs = [part for key, value in values.items() for part in ("-c", f"{key}={value}")]
    assert cli.main(["run", "mnist_iid", "--in-process", "--hospitals", "3", *pairs]) == cli.OK
    assert Counted.made == 1
    report = (tmp_path / "run" / "report.html").read_text()
    assert "attacker, linear" in report, "the report too has used the deal"
