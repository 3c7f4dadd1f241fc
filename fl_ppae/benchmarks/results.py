"""The result of a measurement: numbers for JSON, and lines to compare with an aim."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Aim:
    """A bound on a value: a minimum if `at_least`, otherwise a maximum."""

    bound: float
    at_least: bool = False

    def met(self, value: float) -> bool:
        """Whether `value` meets the bound."""
        return value >= self.bound if self.at_least else value <= self.bound

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.bound:g}"


@dataclass(frozen=True)
class Line:
    """One line of the table. `unit` is empty for a ratio; `aim` is None for a number given for context."""

    measure: str
    value: float
    unit: str = ""
    aim: Aim | None = None

    @property
    def met(self) -> bool | None:
        """Whether the aim is met; None without one."""
        return None if self.aim is None else self.aim.met(self.value)

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        aim = None if self.aim is None else str(self.aim)
        return {"measure": self.measure, "value": self.value, "unit": self.unit, "aim": aim, "met": self.met}


@dataclass(frozen=True)
class Measurement:
    """One section of the bench: all measured numbers, and the lines of its table."""

    numbers: Mapping[str, Any]
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Size:
    """The size of the measurements.

    Attributes:
        batch: records per step. repeats: of the interleaved steps.
        records, rounds: of the federated runs and the bare loop.
        totals: numbers of records for comparing numbers of hospitals, one round each.
        hospitals: the numbers of hospitals to compare; the first is the base of the ratios.
        ray: whether to run with Flower's SuperLink and Ray too.
        secure: the numbers of hospitals whose secure sum is measured.
    """

    batch: int
    repeats: int
    records: int
    rounds: int
    totals: tuple[int, ...]
    hospitals: tuple[int, ...]
    ray: bool
    secure: tuple[int, ...] = ()


FULL = Size(512, 15, 10_000, 10, (12_000, 90_000), (5, 50, 500), True, (5, 10, 20, 100))
QUICK = Size(512, 5, 4_000, 5, (12_000,), (5, 50, 500), True, (10,))
TINY = Size(128, 3, 200, 2, (200,), (2, 10), False, (3,))
SIZES = {"full": FULL, "quick": QUICK, "tiny": TINY}
