"""Which gradients a scope noises, and whether its epsilon is a guarantee: in code, not prose."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType


class NoGuarantee(Exception):
    """Asked of a release for a guarantee that it doesn't have."""


@dataclass(frozen=True)
class Guarantee:
    """What may be printed of one artefact.

    Attributes:
        epsilon: spent, at `delta`; None where there is no number at all.
        delta: None with it.
        formal: True only if (epsilon, delta) is a differential-privacy guarantee.
        note: the words that must stand beside the number.
    """

    epsilon: float | None
    delta: float | None
    formal: bool
    note: str


@dataclass(frozen=True)
class Scope:
    """One value of `dp-scope`.

    Attributes:
        noises_encoder, noises_partner: whose gradients are clipped and noised, in one joint vector.
            The partner is the decoder (objective reconstruction) or the head (task).
        trains_partner: False if it stays as it was drawn, without looking at any record.
        note: what the epsilon of this scope is.
    """

    name: str
    noises_encoder: bool
    noises_partner: bool
    trains_partner: bool
    note: str

    @property
    def formal(self) -> bool:
        """True if every function of the records that the update depends on is clipped and noised."""
        return self.noises_encoder and (self.noises_partner or not self.trains_partner)

    def sensitivity(self, max_grad_norm: float) -> float:
        """L2 sensitivity of one step's clipped gradient sum: add or remove one record.

        Raises:
            NoGuarantee: one record can move all per-sample gradients, or none are clipped.
        """
        if not self.formal:
            raise NoGuarantee(f"dp-scope {self.name!r}: {self.note}")
        return max_grad_norm

    def guarantee(self, epsilon: float | None, delta: float) -> Guarantee:
        """Wrap a spent epsilon with what it is worth under this scope."""
        if epsilon is None:
            return Guarantee(None, None, False, self.note)
        return Guarantee(epsilon, delta, self.formal, self.note)


SCOPES = MappingProxyType(
    {
        scope.name: scope
        for scope in (
            Scope("none", False, False, True, "no differential privacy"),
            Scope(
                "encoder",
                True,
                False,
                True,
                "nominal, not a guarantee: the decoder learns from the same records without noise, so "
                "one record can move every clipped gradient and the sensitivity is not bounded by "
                "the clipping norm",
            ),
            Scope(
                "frozen-decoder",
                True,
                False,
                False,
                "record-level differential privacy: the encoder's gradients are clipped and noised, the "
                "decoder never learns",
            ),
            Scope(
                "autoencoder",
                True,
                True,
                True,
                "record-level differential privacy: the gradients of encoder and decoder (or head) are "
                "clipped and noised together",
            ),
        )
    }
)
