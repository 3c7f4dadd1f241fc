"""What a run's hospitals agree on before any secret is made: who takes part, and how many it takes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fl_ppae.secagg.wire import (
    DIGEST,
    Refused,
    check_length,
    digest,
    number,
    pack,
    read_number,
    read_text,
    unpack,
)

MAX_HOSPITALS = 255  # a share's position is a nonzero byte
MAX_ROUNDS = 32
_MAX_NAME = 200  # bytes


@dataclass(frozen=True)
class Terms:
    """The terms of a block of rounds, the same for all hospitals; every signature covers them.

    Attributes:
        run: the run's id.
        names: all hospitals of the run, in the order of their index.
        min_hospitals: with fewer of them, nobody unmasks a sum.
        colluders: how many hospitals may work with the server.
        first_round, rounds: of the block.
        config: 32 bytes, a digest of the run's configuration.
    """

    run: str
    names: tuple[str, ...]
    min_hospitals: int
    colluders: int
    first_round: int
    rounds: int
    config: bytes

    def __post_init__(self) -> None:
        """Check that the numbers fit together.

        Raises:
            Refused: they don't; one line says which and what would be right.
        """
        count = len(self.names)
        if not 2 <= count <= MAX_HOSPITALS:
            raise Refused(f"secure aggregation needs 2 to {MAX_HOSPITALS} hospitals; this run has {count}")
        if len(set(self.names)) != count:
            raise Refused("two hospitals of the run have the same name")
        for name in self.names:
            if not 1 <= len(name.encode()) <= _MAX_NAME:
                raise Refused(
                    f"a hospital's name has {len(name.encode())} bytes; it may have 1 to {_MAX_NAME}"
                )
        if not 2 <= self.min_hospitals <= count:
            raise Refused(
                f"min-hospitals = {self.min_hospitals}: must be 2 to {count}, the number of hospitals"
            )
        if self.colluders < 0:
            raise Refused(f"{self.colluders} colluding hospitals: must be at least 0")
        if self.threshold > self.min_hospitals:
            raise Refused(
                f"min-hospitals = {self.min_hospitals} is too few for {count} hospitals of which "
                f"{self.colluders} may collude: must be at least {self.threshold}"
            )
        if not (self.first_round >= 1 and 1 <= self.rounds <= MAX_ROUNDS):
            raise Refused(
                f"a block of {self.rounds} rounds from round {self.first_round}: must be 1 to {MAX_ROUNDS} "
                "rounds, from round 1 or later"
            )
        check_length(self.config, DIGEST, "the digest of the configuration")

    @property
    def threshold(self) -> int:
        """The smallest t with 2t > hospitals + colluders.

        So many must sign before any hospital reveals a share, and so many shares rebuild a secret. Any two
        groups of t have an honest hospital in common, which signs one list of survivors in a round. No two
        lists can then both be unmasked (Bonawitz et al. 2017, section 6.2).
        """
        return (len(self.names) + self.colluders) // 2 + 1

    @property
    def digest(self) -> bytes:
        """32 bytes that stand for all terms."""
        return digest("terms", self.pack())

    def position(self, name: str) -> int:
        """The hospital's position, from 1: where the polynomials are evaluated for its shares."""
        return self.names.index(name) + 1

    def in_order(self, names: set[str]) -> tuple[str, ...]:
        """`names` in the order of their index.

        Raises:
            Refused: one of them is no hospital of the run.
        """
        if unknown := names - set(self.names):
            raise Refused(f"{min(unknown)!r} is no hospital of this run")
        return tuple(name for name in self.names if name in names)

    def offset(self, server_round: int) -> int:
        """Where in the block the round is, from 0.

        Raises:
            Refused: the round is outside the block.
        """
        offset = server_round - self.first_round
        if not 0 <= offset < self.rounds:
            raise Refused(
                f"round {server_round} is outside the block of rounds {self.first_round} to "
                f"{self.first_round + self.rounds - 1}"
            )
        return offset

    def check_follows(self, earlier: Terms) -> None:
        """Check that a later block of the same run keeps the run's terms.

        Raises:
            Refused: hospitals, min-hospitals, colluders or configuration have changed.
        """
        if self.run == earlier.run and self != replace(
            earlier, first_round=self.first_round, rounds=self.rounds
        ):
            raise Refused("the terms changed within the run; hospitals and configuration stay as they were")

    def pack(self) -> bytes:
        """As bytes."""
        numbers = (self.min_hospitals, self.colluders, self.first_round, self.rounds)
        names = pack(name.encode() for name in self.names)
        return pack((self.run.encode(), names, *map(number, numbers), self.config))

    @classmethod
    def unpack(cls, data: bytes) -> Terms:
        """The inverse of `pack`.

        Raises:
            Refused: the bytes are no terms, or the terms don't fit together.
        """
        fields = unpack(data)
        if len(fields) != 7:
            raise Refused(f"terms have {len(fields)} fields instead of 7")
        run, names, *numbers, config = fields
        minimum, colluders, first_round, rounds = map(read_number, numbers)
        known = tuple(map(read_text, unpack(names)))
        return cls(read_text(run), known, minimum, colluders, first_round, rounds, config)
