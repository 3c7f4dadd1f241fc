"""TensorBoard and MLflow, both off by default. They receive only what is in the run directory.

Nothing more leaves a hospital for them: the numbers are those of `rounds.csv` and `summary.json`. A chart
shows a metric's name alone, so the name of an epsilon says what it assumes, or that it is no guarantee.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from fl_ppae.config import RunConfig
from fl_ppae.errors import UserError, printable
from fl_ppae.privacy.figures import NONE, metric_name

# By default MLflow tries an unreachable server for more than four minutes.
_LIMITS = {"MLFLOW_HTTP_REQUEST_MAX_LIMITS": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
_EPSILON, _ALONE = "epsilon_max", "epsilon_max_if_all_others_collude"
_BUDGET = {"hospitals_trained", "hospitals_declined", "hospitals_excluded"}
_QUALITY = {"accuracy", "auc", "reconstruction_loss", "balanced_accuracy", "worst_recall", "ece"}


class Tracker(Protocol):
    """A service that a run is also logged to."""

    def log_round(self, row: Mapping[str, Any]) -> None:
        """Log a row of `rounds.csv` as it is appended."""

    def close(self, summary: Mapping[str, Any]) -> None:
        """Log `summary.json` at the end of the run, completed or not."""


def check_trackers(config: RunConfig) -> None:
    """Refuse a tracker that isn't installed, before any work starts.

    Raises:
        UserError: says what to install.
    """
    if config.mlflow_tracking_uri and find_spec("mlflow") is None:
        raise UserError(
            "mlflow-tracking-uri needs MLflow, which is not installed: pip install 'fl-ppae[mlflow]', "
            'or leave mlflow-tracking-uri = ""'
        )


def open_trackers(config: RunConfig, run_directory: Path, simulation: str) -> tuple[Tracker, ...]:
    """The trackers that the configuration asks for.

    Raises:
        UserError: as `check_trackers`, or the MLflow server can't be reached.
    """
    check_trackers(config)
    trackers: list[Tracker] = []
    if config.tensorboard:
        trackers.append(TensorBoardTracker(run_directory / "tensorboard"))
    if config.mlflow_tracking_uri:
        trackers.append(MlflowTracker(config, printable(run_directory.name), simulation))
    return tuple(trackers)


class TensorBoardTracker:
    """Writes event files to a folder; `tensorboard --logdir FOLDER` shows them."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder))

    def log_round(self, row: Mapping[str, Any]) -> None:
        """Log each number of the row at its round."""
        for name, value in _of_round(row).items():
            self._writer.add_scalar(f"{_group(name)}/{name}", value, int(row["round"]))
        self._writer.flush()

    def close(self, summary: Mapping[str, Any]) -> None:
        """Log how the run ended, as text, and each result at the last round."""
        last = int(summary.get("rounds") or 0)
        for name, value in _results(summary).items():
            self._writer.add_scalar(f"result/{name}", value, last)
        facts = {
            key: summary.get(key) for key in ("status", "error", "data_source", "formal", "epsilon_max_basis")
        }
        self._writer.add_text("run", "\n\n".join(f"{key}: {value}" for key, value in facts.items()))
        self._writer.close()


class MlflowTracker:
    """One MLflow run: keys as parameters, rounds as metrics, data source and guarantee as tags."""

    def __init__(self, config: RunConfig, name: str, simulation: str) -> None:
        for variable, limit in _LIMITS.items():
            os.environ.setdefault(variable, limit)
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        try:
            self._client = MlflowClient(tracking_uri=config.mlflow_tracking_uri)
            found = self._client.get_experiment_by_name("fl-ppae")
            experiment = found.experiment_id if found else self._client.create_experiment("fl-ppae")
            run = self._client.create_run(experiment, run_name=name, tags={"simulation": simulation})
        except MlflowException as error:
            reason = " ".join(str(error).split())
            raise UserError(f"mlflow-tracking-uri = {config.mlflow_tracking_uri!r}: {reason}") from None
        self._id: str = run.info.run_id
        for key, value in config.to_flat().items():
            self._client.log_param(self._id, key, value)

    def log_round(self, row: Mapping[str, Any]) -> None:
        """Log each number of the row at its round."""
        for name, value in _of_round(row).items():
            self._client.log_metric(self._id, name, value, step=int(row["round"]))

    def close(self, summary: Mapping[str, Any]) -> None:
        """Log results as metrics, and how the run ended."""
        for name, value in _results(summary).items():
            self._client.log_metric(self._id, f"result_{name}", value)
        for key in ("data_source", "formal", "epsilon_max_basis", "error"):
            if summary.get(key) is not None:
                self._client.set_tag(self._id, key, str(summary[key]))
        completed = summary.get("status") == "completed"
        self._client.set_terminated(self._id, "FINISHED" if completed else "FAILED")


def _of_round(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row of `rounds.csv`."""
    return _numbers(_named(row, row.get("epsilon_basis")))


def _results(summary: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a summary."""
    named = _named({**summary, **(summary.get("leakage") or {})}, summary.get("epsilon_max_basis"))
    return _numbers(named, leave_out="rounds")


def _named(values: Mapping[str, Any], basis: str | None) -> dict[str, Any]:
    """The values with each epsilon under a name that says what it assumes."""
    names = {_EPSILON: metric_name(_EPSILON, basis or NONE), "epsilon_alone_max": _ALONE}
    return {names.get(name, name): value for name, value in values.items()}


def _numbers(values: Mapping[str, Any], leave_out: str = "round") -> dict[str, float]:
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and name != leave_out
    }


def _group(name: str) -> str:
    return (
        "privacy"
        if name.startswith(_EPSILON) or name in _BUDGET
        else "quality"
        if name in _QUALITY
        else "leakage"
    )
