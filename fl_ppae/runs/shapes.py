"""The types of what a run's JSON documents hold. Every key is optional, and further keys are allowed."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

from fl_ppae.config import RunConfig
from fl_ppae.keys import kebab

Number = float | None
Numbers = dict[str, Number]


class Shape(BaseModel):
    """A JSON object, checked without converting anything."""

    model_config = ConfigDict(extra="allow", strict=True)


class _Guarantee(Shape):
    epsilon: Number = None
    delta: Number = None
    formal: bool = False
    basis: str | None = None
    note: str | None = None
    epsilon_alone: Number = None


class _Baselines(Shape):
    random_encoder: Numbers | None = None
    raw_pixels: Numbers | None = None


class _WorthJoining(Shape):
    mean_gain: Number
    worst_gain: Number
    alone: Numbers
    server_alone: Number = None
    pooled: Number
    interval: dict[str, list[Number]]


class _Findings(Shape):
    in_words: list[str] | None = None


class _Adversary(Shape):
    behaviour: str
    hospitals: list[str]


class SummaryShape(Shape):
    """`summary.json`."""

    status: str | None = None
    error: str | None = None
    phase: str | None = None
    started: str | None = None
    simulation: str | None = None
    data_source: str | None = None
    data_findings: _Findings | None = None
    adversary: _Adversary | None = None
    rounds: int | None = None
    resumed: list[int] | None = None
    rounds_paid_twice: dict[str, int] | None = None
    accuracy: Number = None
    accuracy_noised: Number = None
    auc: Number = None
    balanced_accuracy: Number = None
    worst_recall: Number = None
    ece: Number = None
    recall: Numbers | None = None
    class_distance: Number = None
    reconstruction_loss: Number = None
    attack_success_rate: Number = None
    attack_success_rate_untriggered: Number = None
    epsilon: Numbers | None = None
    epsilon_basis: dict[str, str] | None = None
    epsilon_max: Number = None
    epsilon_max_basis: str | None = None
    epsilon_alone: Numbers | None = None
    epsilon_alone_max: Number = None
    guarantees: dict[str, _Guarantee | None] | None = None
    formal: bool | None = None
    refuted: dict[str, str] | None = None
    leakage: Numbers | None = None
    baselines: _Baselines | None = None
    worth_joining: _WorthJoining | None = None
    seconds: dict[str, float] | None = None


class _Source(Shape):
    label: str | None = None
    kind: str | None = None
    file: str | None = None
    md5: str | None = None


class ConfigShape(Shape):
    """`config.json`."""

    simulation: str | None = None
    config: dict[str, bool | int | float | str] | None = None
    data_source: _Source | None = None
    hospitals: int | None = None
    records: dict[str, int] | None = None
    deployed: bool | None = None
    seed: int | None = None
    versions: dict[str, str] | None = None

    @field_validator("config")
    @classmethod
    def _kinds(cls, values: dict[str, Any] | None) -> dict[str, Any] | None:
        """Each key that this version has is of its kind. Which values are valid may differ by version."""
        for name, field in RunConfig.model_fields.items():
            value, kind = (values or {}).get(kebab(name), field.default), type(field.default)
            if type(value) is not kind and not (kind is float and type(value) is int):
                raise ValueError(f"{kebab(name)} is of another type")
        return values


class _Account(Shape):
    events: list[dict[str, Any]]
    epsilon: Numbers
    formal: bool | None = None
    basis: str | None = None


class LedgerShape(Shape):
    """`ledger.json`."""

    delta: float
    scope: str
    hospitals: dict[str, _Account]


class _Result(Shape):
    attack: str
    threat_model: str
    metric: str
    value: Number
    low: Number = None
    high: Number = None
    variant: str = ""
    n: int | None = None


class AuditShape(Shape):
    """`audit/results.json`."""

    results: list[_Result]
    skipped: list[dict[str, Any]] = []
    figures: list[str] = []
    quick: bool = False
