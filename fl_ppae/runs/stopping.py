"""How a run is told to end after its round: by a file in its directory, whichever process it is in."""

from __future__ import annotations

from pathlib import Path

_FILE = ".stop"


class Stopped(Exception):
    """The run ended after a round, as it was told to, and can go on from there; the text says so."""


def tell_to_stop(run_directory: Path) -> None:
    """Let the run end after the round that is under way."""
    (run_directory / _FILE).touch()


def is_told_to_stop(run_directory: Path) -> bool:
    """Whether the run should end after this round."""
    return (run_directory / _FILE).exists()


def forget(run_directory: Path) -> None:
    """The run has ended, or goes on."""
    (run_directory / _FILE).unlink(missing_ok=True)
