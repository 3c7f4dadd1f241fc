import shutil
from pathlib import Path

import pytest
from support import SMALL, Run, quick_runs, simulated_nodes, write_npz

from fl_ppae import client_app, server_app
from fl_ppae.config import RunConfig
from fl_ppae.simulation.in_process import InProcessGrid


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run for all tests here, in a folder with its data file."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FL_PPAE_HOME", str(folder / "home"))
        quick_runs(patch)
        values = SMALL | {"data-file": str(write_npz(folder / "tiny.npz")), "evaluate-every": 1}
        config = RunConfig.from_flat(values | {"output-dir": str(folder / "run")})
        server_app.serve(InProcessGrid(client_app.app, config.to_flat(), simulated_nodes(3)), config, "tiny")
    return folder


@pytest.fixture
def formal(finished: Path, tmp_path: Path) -> Run:
    """A copy of that run, for the test to change."""
    shutil.copytree(finished / "run", tmp_path / "formal")
    return Run(tmp_path / "formal")
