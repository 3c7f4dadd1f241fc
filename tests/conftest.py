"""Fixtures of all tests: a home for each test, a tiny data set, a small configuration, a run.

With several processes, `--dist loadgroup` keeps the tests of one `xdist_group` in one of them, one after
another: those that start Ray, and those of a module whose fixture takes seconds.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from support import SMALL, Run, quick_runs, simulated_nodes, without_pages, write_npz

from fl_ppae import client_app, server_app
from fl_ppae.commands import progress
from fl_ppae.config import RunConfig
from fl_ppae.hardware import usable_cores
from fl_ppae.simulation.in_process import InProcessGrid

torch.set_num_threads(1)  # more threads only slow down networks this small

WORKER_BYTES = 3 * 2**30  # the largest process of the tests, when measured


def pytest_xdist_auto_num_workers() -> int:
    """What `-n auto` means: a process for each core that may be used, as far as memory allows."""
    affordable = psutil.virtual_memory().available // WORKER_BYTES
    return max(1, min(usable_cores(), affordable))


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The caches, runs and ledgers of a test never touch the user's."""
    monkeypatch.setenv("FL_PPAE_HOME", str(tmp_path / "home"))


@pytest.fixture(autouse=True)
def no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test reads on stderr does not depend on how long the command takes."""
    monkeypatch.setattr(progress, "SILENCE", 3600.0)


@pytest.fixture(autouse=True)
def own_draws() -> None:
    """What a test draws from torch's global generator does not depend on the tests before it."""
    torch.manual_seed(0)


@pytest.fixture
def data_file(tmp_path: Path) -> Path:
    return write_npz(tmp_path / "tiny.npz")


@pytest.fixture
def small(data_file: Path) -> Callable[..., RunConfig]:
    """`small(target_epsilon=3.0)`: a configuration that runs in a second, with the given changes."""

    def build(**changes: Any) -> RunConfig:
        kebab = {key.replace("_", "-"): value for key, value in changes.items()}
        return RunConfig.from_flat({**SMALL, "data-file": str(data_file), **kebab})

    return build


@pytest.fixture
def federate(
    tmp_path: Path, small: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Run]:
    """`federate("name", share="encodings", nodes=...)`: a whole run in this process; 3 hospitals by default.

    `grid`: a class to use instead of `InProcessGrid`. `pages`: also draw its figures and write `report.html`.
    """
    quick_runs(monkeypatch)

    def start(
        name: str,
        *,
        nodes: Sequence[Mapping[str, Any]] | None = None,
        grid: Callable[..., InProcessGrid] = InProcessGrid,
        pages: bool = False,
        **changes: Any,
    ) -> Run:
        where = {} if "resume" in changes else {"output_dir": str(tmp_path / name)}
        config = small(**where, **changes)
        hospitals = grid(client_app.app, config.to_flat(), nodes or simulated_nodes(3))
        with pytest.MonkeyPatch.context() as patch:
            if not pages:
                without_pages(patch)
            return Run(server_app.serve(hospitals, config, "tiny"))

    return start
