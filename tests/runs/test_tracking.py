"""TensorBoard and MLflow receive what the run directory has, and nothing else."""

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import Run

from fl_ppae import cli
from fl_ppae.config import RunConfig
from fl_ppae.errors import UserError
from fl_ppae.runs import tracking
from fl_ppae.runs.directory import create_run_directory

ROUND = {
    "round": 1,
    "epsilon_max": 2.5,
    "epsilon_basis": "formal",
    "accuracy": 0.7,
    "auc": float("nan"),
    "cosine": None,
}
SUMMARY = {"status": "completed", "accuracy": 0.75, "rounds": 1, "formal": True, "leakage": {"cosine": 0.1}}


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


def test_tensorboard_has_the_numbers_of_rounds_csv(federate: Callable[..., Run]) -> None:
    run = federate("run", tensorboard=True, evaluate_every=1)
    found = scalars(run.path / "tensorboard")
    columns = {
        tag.partition("/")[2]: points for tag, points in found.items() if not tag.startswith("result/")
    }
    rows = run.rows("rounds.csv")
    assert set(columns) == {name for name in rows[0] if rows[0][name] != ""} - {
        "round",
        "epsilon_basis",
    }
    for name, points in columns.items():
        assert points == [(int(row["round"]), pytest.approx(float(row[name]), rel=1e-5)) for row in rows]
    assert found["result/accuracy"] == [(2, pytest.approx(run.summary["accuracy"]))]


def test_a_run_logs_nowhere_by_default(tmp_path: Path) -> None:
    assert tracking.open_trackers(RunConfig.from_flat({}), tmp_path, "x") == ()
    assert not list(tmp_path.iterdir())


def test_a_tracker_that_fails_does_not_end_the_run(tmp_path: Path) -> None:
    logged: list[int] = []

    class Broken:
        def log_round(self, row: Any) -> None:
            raise ConnectionError("the server has gone")

        def close(self, summary: Any) -> None:
            raise ConnectionError("still gone")

    class Working:
        def log_round(self, row: Any) -> None:
            logged.append(row["round"])

        def close(self, summary: Any) -> None:
            logged.append(-1)

    run = create_run_directory(tmp_path / "run", "x")
    run.trackers = (Broken(), Working())
    for number in (1, 2):
        run.append_round({"round": number})
    run.close_trackers()
    assert logged == [1, 2, -1]
    assert len((run.path / "rounds.csv").read_text().splitlines()) == 3


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """A stand-in for MLflow that keeps what it is logged."""
    calls: list[tuple[Any, ...]] = []

    class Client:
        def __init__(self, tracking_uri: str) -> None:
            calls.append(("connect", tracking_uri))

        def get_experiment_by_name(self, name: str) -> None:
            return None

        def create_experiment(self, name: str) -> str:
            return "7"

        def create_run(self, experiment: str, run_name: str, tags: dict[str, str]) -> Any:
            calls.append(("run", experiment, run_name, tags))
            return types.SimpleNamespace(info=types.SimpleNamespace(run_id="r"))

        def log_param(self, run: str, key: str, value: object) -> None:
            calls.append(("param", key, value))

        def log_metric(self, run: str, key: str, value: float, step: int | None = None) -> None:
            calls.append(("metric", key, value, step))

        def set_tag(self, run: str, key: str, value: str) -> None:
            calls.append(("tag", key, value))

        def set_terminated(self, run: str, status: str) -> None:
            calls.append(("end", status))

    package, client, exceptions = (
        types.ModuleType(f"mlflow{part}") for part in ("", ".tracking", ".exceptions")
    )
    package.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
    client.MlflowClient = Client  # type: ignore[attr-defined]
    exceptions.MlflowException = RuntimeError  # type: ignore[attr-defined]
    for module in (package, client, exceptions):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return calls


@pytest.mark.parametrize(
    ("basis", "name"),
    [
        ("formal", "epsilon_max"),
        ("formal if 16 are honest", "epsilon_max_if_16_hospitals_are_honest"),
        ("nominal", "epsilon_max_nominal"),
        ("refuted", "epsilon_max_refuted"),
        ("none", "epsilon_max_nominal"),
        ("proven elsewhere", "epsilon_max_of_unknown_basis"),
    ],
)
def test_the_name_of_an_epsilon_says_what_it_assumes(
    tmp_path: Path, logged: list[tuple[Any, ...]], basis: str, name: str
) -> None:
    config = RunConfig.from_flat({"mlflow-tracking-uri": "http://localhost:1"})
    row = {"round": 1, "epsilon_max": 2.5, "epsilon_basis": basis}
    summary = {"rounds": 1, "epsilon_max": 2.5, "epsilon_max_basis": basis, "epsilon_alone_max": 9.5}
    board = tracking.TensorBoardTracker(tmp_path)
    for tracker in (board, *tracking.open_trackers(config, tmp_path / "name", "simulation")):
        tracker.log_round(row)
        tracker.close(summary)
    alone = "epsilon_max_if_all_others_collude"
    assert scalars(tmp_path) == {
        f"privacy/{name}": [(1, 2.5)],
        f"result/{name}": [(1, 2.5)],
        f"result/{alone}": [(1, 9.5)],
    }
    metrics = [call[1:] for call in logged if call[0] == "metric"]
    assert metrics == [(name, 2.5, 1), (f"result_{name}", 2.5, None), (f"result_{alone}", 9.5, None)]


def test_mlflow_receives_keys_rounds_and_results_and_no_more(
    logged: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    config = RunConfig.from_flat({"mlflow-tracking-uri": "http://localhost:1"})
    (tracker,) = tracking.open_trackers(config, tmp_path / "name", "simulation")
    tracker.log_round(ROUND)
    tracker.close(SUMMARY)
    assert {call[1]: call[2] for call in logged if call[0] == "param"} == config.to_flat()
    assert [call[1:] for call in logged if call[0] == "metric"] == [
        ("epsilon_max", 2.5, 1),
        ("accuracy", 0.7, 1),
        ("result_accuracy", 0.75, None),
        ("result_cosine", 0.1, None),
    ]
    assert ("tag", "formal", "True") in logged
    assert logged[-1] == ("end", "FINISHED")


def test_a_failed_run_is_marked_as_failed_in_mlflow(logged: list[tuple[Any, ...]], tmp_path: Path) -> None:
    config = RunConfig.from_flat({"mlflow-tracking-uri": "http://localhost:1"})
    (tracker,) = tracking.open_trackers(config, tmp_path / "name", "simulation")
    tracker.close({"status": "failed", "error": "no luck"})
    assert logged[-2:] == [("tag", "error", "no luck"), ("end", "FAILED")]


def test_a_missing_mlflow_is_reported_in_one_line_before_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)  # as if it were not there
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    out = tmp_path / "out"
    command = ["run", "mnist_iid", "-c", "mlflow-tracking-uri=http://localhost:1", "-c", f"output-dir={out}"]
    assert cli.main([*command, "--in-process", "-c", "data-source=stand-in"]) == cli.USER_MISTAKE
    assert "pip install 'fl-ppae[mlflow]'" in capsys.readouterr().err
    assert not out.exists()


def test_a_password_in_the_address_is_refused() -> None:
    with pytest.raises(UserError, match="MLFLOW_TRACKING_PASSWORD"):
        RunConfig.from_flat({"mlflow-tracking-uri": "https://me:secret@example.org"})
    RunConfig.from_flat({"mlflow-tracking-uri": "https://example.org/a@b"})


def test_real_mlflow_keeps_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="MLflow is an extra")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # the only store that needs no server
    from mlflow.tracking import MlflowClient

    uri = (tmp_path / "mlruns").as_uri()
    config = RunConfig.from_flat({"mlflow-tracking-uri": uri})
    (tracker,) = tracking.open_trackers(config, tmp_path / "name", "simulation")
    tracker.log_round(ROUND)
    tracker.close(SUMMARY)
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("fl-ppae")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {
        "epsilon_max": 2.5,
        "accuracy": 0.7,
        "result_accuracy": 0.75,
        "result_cosine": 0.1,
    }
    assert run.data.params["dp-scope"] == "autoencoder"
