"""What a measurement hands over: numbers for JSON, and lines that stand beside an aim."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Aim:
    """A bound on a value: `at_least` it, or else at most."""

    bound: float
    at_least: bool = False

    def met(self, value: float) -> bool:
        """Whether `value` keeps the bound."""
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
    """One section of the bench: every number that was taken, and the lines made of them."""

    numbers: Mapping[str, Any]
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        batch: records of a step. repeats: of the steps, interleaved.
        records, rounds: of the federated runs and of the bare loop.
        totals: records in all, for the comparison of numbers of hospitals; one round each.
        hospitals: the numbers of hospitals compared, the first being the base of the ratios.
        ray: whether to run through Flower's SuperLink and Ray too.
    """

    batch: int
    repeats: int
    records: int
    rounds: int
    totals: tuple[int, ...]
    hospitals: tuple[int, ...]
    ray: bool


FULL = Size(512, 15, 10_000, 10, (12_000, 90_000), (5, 50, 500), True)
QUICK = Size(512, 5, 4_000, 5, (12_000,), (5, 50, 500), True)
TINY = Size(128, 3, 200, 2, (200,), (2, 10), False)
SIZES = {"full": FULL, "quick": QUICK, "tiny": TINY}
