"""Which gradients a scope noises, and whether its epsilon is a guarantee: in code, not prose."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

MODULES = ENCODER, PARTNER = ("encoder", "partner")
"""Of a hospital's model. The partner is the network that the encoder learns with: decoder or task head."""


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
    """One value of `dp-scope`: how each of `MODULES` learns.

    Attributes:
        noised: modules whose gradients are clipped and noised, in one joint vector.
        plain: modules that learn without noise.
        note: what the epsilon of this scope is.
    """

    name: str
    noised: tuple[str, ...]
    plain: tuple[str, ...]
    note: str

    @property
    def frozen(self) -> tuple[str, ...]:
        """The modules that stay as they were drawn, without looking at any record."""
        return tuple(module for module in MODULES if module not in (*self.noised, *self.plain))

    @property
    def formal(self) -> bool:
        """True if every function of the records that the update depends on is clipped and noised."""
        return bool(self.noised) and not self.plain

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
            Scope("none", (), MODULES, "no differential privacy"),
            Scope(
                "encoder",
                (ENCODER,),
                (PARTNER,),
                "nominal, not a guarantee: the decoder learns from the same records without noise, so "
                "one record can move every clipped gradient and the sensitivity is not bounded by "
                "the clipping norm",
            ),
            Scope(
                "frozen-decoder",
                (ENCODER,),
                (),
                "record-level differential privacy: the encoder's gradients are clipped and noised, the "
                "decoder never learns",
            ),
            Scope(
                "autoencoder",
                MODULES,
                (),
                "record-level differential privacy: the gradients of encoder and decoder (or head) are "
                "clipped and noised together",
            ),
        )
    }
)
