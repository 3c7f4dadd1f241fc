"""The caller's environment: what of it a run uses, and that the rest changes nothing."""

import os
import pwd
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from commands.command_line import run as fl_ppae
from support import Run

from fl_ppae import cli, environment
from fl_ppae.data.official import data_root
from fl_ppae.data.registry import DATASETS
from fl_ppae.errors import UserError
from fl_ppae.files import home, read_json
from fl_ppae.simulation.superlink import _environment

HOSTILE = {
    "RAY_ADDRESS": "10.1.2.3:6379",
    "RAY_NAMESPACE": "another",
    "FLWR_HOME": "/nonexistent",
    "FLWR_DATABASE": "/nonexistent",
    "http_proxy": "http://127.0.0.1:1",
    "HTTPS_PROXY": "nonsense",
    "ALL_PROXY": "socks5://127.0.0.1:1",
    "MKL_NUM_THREADS": "banana",
    "TORCH_LOGS": "nonsense",
    "PYTORCH_CUDA_ALLOC_CONF": "nonsense",
    "NVIDIA_TF32_OVERRIDE": "1",
    "XDG_CACHE_HOME": "/proc/none",
    "TMPDIR": "/no/such/folder",
    "PYTHONWARNINGS": "error",
    "PYTHONOPTIMIZE": "2",
    "PYTHONSTARTUP": "/no/such/file",
    "PYTHONHASHSEED": "0",
    "MPLBACKEND": "nonsense",
    "MPLCONFIGDIR": "/proc/none",
    "HF_HOME": "/proc/none",
    "NO_COLOR": "1",
    "TERM": "dumb",
    "COLUMNS": "0",
    "LC_ALL": "C",
    "SLURM_JOB_ID": "7",
    "WORLD_SIZE": "8",
    "MASTER_ADDR": "10.0.0.1",
    "GRPC_VERBOSITY": "debug",
    "UV_OFFLINE": "1",
    "LD_PRELOAD": "",
    "MLFLOW_TRACKING_TOKEN": "secret",
}


def of_run(scratch: Path, *, tracked: bool = False) -> dict[str, str]:
    return _environment(scratch, "mark", tracked=tracked)


def test_a_run_s_processes_see_nothing_that_is_meant_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in HOSTILE:
        monkeypatch.delenv(name, raising=False)
    clean = of_run(tmp_path)
    for name, value in HOSTILE.items():
        monkeypatch.setenv(name, value)
    assert of_run(tmp_path) == clean
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert of_run(tmp_path) == clean | {"OMP_NUM_THREADS": "3"}, "control: what a run uses does arrive"


def test_a_run_s_own_files_go_to_its_scratch_folder_and_to_the_project_s_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/proc/none")
    found = of_run(tmp_path)
    for name in ("TMPDIR", "FLWR_HOME", "RAY_TMPDIR"):
        assert found[name] == str(tmp_path)
    for name in ("FL_PPAE_HOME", "MPLCONFIGDIR", "XDG_CACHE_HOME", "HF_HOME"):
        assert Path(found[name]).is_relative_to(home())


def test_a_tracking_server_is_reached_as_the_caller_reaches_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy:1")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret")
    given = {"https_proxy", "MLFLOW_TRACKING_TOKEN"}
    assert given <= set(of_run(tmp_path, tracked=True))
    assert not given & set(of_run(tmp_path))


def test_code_is_found_from_another_folder_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(("own", "", "/else")))
    assert of_run(tmp_path)["PYTHONPATH"] == os.pathsep.join((str(tmp_path / "own"), "/else"))


def test_libraries_in_this_process_do_not_see_their_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in HOSTILE.items():
        monkeypatch.setenv(name, value)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        environment.forget_settings_of_libraries()
        warnings.warn("an old name", DeprecationWarning, stacklevel=1)
    gone = {name for name in HOSTILE if name not in os.environ}
    assert gone >= {"RAY_ADDRESS", "FLWR_HOME", "TORCH_LOGS", "MPLBACKEND", "MPLCONFIGDIR", "PYTHONWARNINGS"}
    assert "https_proxy" in {name.lower() for name in os.environ}, "control: downloads need it"


def test_a_run_records_what_it_used(federate: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret")
    used = read_json(federate("run", num_server_rounds=1).path / "config.json")["environment"]
    assert (used["OMP_NUM_THREADS"], used["server_threads"]) == ("1", 1)
    assert "secret" not in str(used)


@pytest.mark.parametrize(("set_to", "found"), [(None, "passive"), ("active", "active")])
def test_threads_that_wait_do_not_spin_unless_the_caller_says_so(set_to: str | None, found: str) -> None:
    own = {**os.environ, "OMP_WAIT_POLICY": set_to} if set_to else dict(os.environ)
    if not set_to:
        own.pop("OMP_WAIT_POLICY", None)
    code = "import sys, os, fl_ppae; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=own, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [found, "False"], "torch reads it as it is loaded"


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without HOME whom the system doesn't know, as in many containers."""

    def unknown(number: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


def test_without_a_home_folder_fl_ppae_home_is_enough(homeless: None) -> None:
    assert data_root(DATASETS["pathmnist"]) == home() / "medmnist"
    assert fl_ppae("runs") == cli.OK
    assert fl_ppae("plan", "mnist_iid", "--hospitals", "2", "-c", "data-source=stand-in") == cli.OK


def test_without_any_home_the_cause_is_one_line(homeless: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FL_PPAE_HOME")
    with pytest.raises(UserError, match="no home folder here; set FL_PPAE_HOME"):
        home()


def test_a_deleted_current_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    assert fl_ppae("runs") == cli.OK, "control"
    capsys.readouterr()
    (tmp_path / "gone").rmdir()
    assert fl_ppae("runs") == cli.USER_MISTAKE
    assert capsys.readouterr().err.startswith("fl-ppae: the current folder is gone")
