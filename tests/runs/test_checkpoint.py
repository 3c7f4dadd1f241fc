"""A checkpoint is read as it was written, or refused in one line."""

from pathlib import Path

import numpy as np
import pytest

from fl_ppae.errors import UserError
from fl_ppae.runs import checkpoint
from fl_ppae.runs.checkpoint import FILE, Checkpoint, read_checkpoint, write_checkpoint

KEPT = Checkpoint(
    "123",
    7,
    {"encoder/weight": np.arange(6, dtype=np.float32).reshape(2, 3), "step": np.float32(4).reshape(())},
    {"accounts": {"hospital-0": {"refuted_epsilon": float("inf"), "reason": "é"}}, "learned": True},
)


def test_a_checkpoint_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, KEPT)
    read = read_checkpoint(tmp_path)
    assert (read.run, read.round, read.state) == (KEPT.run, KEPT.round, KEPT.state)
    for name, array in KEPT.arrays.items():
        np.testing.assert_array_equal(read.arrays[name], array)
        assert read.arrays[name].shape == array.shape
    assert {path.name for path in tmp_path.iterdir()} == {FILE}


def test_a_changed_or_shortened_checkpoint_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, KEPT)
    sound = (tmp_path / FILE).read_bytes()
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(sound), 60).tolist():
        flipped = bytearray(sound)
        flipped[position] ^= 1 + int(rng.integers(255))
        for content in (sound[:position], bytes(flipped)):
            (tmp_path / FILE).write_bytes(content)
            try:
                assert read_checkpoint(tmp_path).state == KEPT.state, "white space in the header, say"
            except UserError as problem:
                assert "\n" not in str(problem)
    (tmp_path / FILE).write_bytes(b"")
    with pytest.raises(UserError, match="is damaged"):
        read_checkpoint(tmp_path)


def test_another_versions_checkpoint_and_a_missing_one_are_called_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="has no checkpoint; start it again"):
        read_checkpoint(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_FORMAT", "2")
        write_checkpoint(tmp_path, KEPT)
    with pytest.raises(UserError, match="of another version"):
        read_checkpoint(tmp_path)


def test_a_failed_write_leaves_the_last_good_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(tmp_path, KEPT)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("fl_ppae.files.os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            write_checkpoint(tmp_path, Checkpoint("123", 8, {}, {}))
    assert read_checkpoint(tmp_path).round == 7
    assert {path.name for path in tmp_path.iterdir()} == {FILE}
