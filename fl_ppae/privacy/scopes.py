"""Which modules a scope adds noise to, and whether its epsilon is a guarantee."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from fl_ppae.privacy.figures import FORMAL, NOMINAL, NONE, is_guarantee

MODULES = ENCODER, PARTNER = ("encoder", "partner")
"""The modules of a hospital's model. The partner, a decoder or task head, is trained with the encoder."""


@dataclass(frozen=True)
class Guarantee:
    """What may be printed about one artefact.

    Attributes:
        epsilon: spent at `delta`; None if there is no number.
        delta: None if epsilon is None.
        basis: what stands behind the number, see `figures.Figure`.
        note: text that must accompany the number.
        alone: epsilon if all other hospitals collude; None if it assumes nothing of them.
    """

    epsilon: float | None
    delta: float | None
    basis: str
    note: str
    alone: float | None = None

    @property
    def formal(self) -> bool:
        """True only if (epsilon, delta) is a differential-privacy guarantee."""
        return is_guarantee(self.basis)


@dataclass(frozen=True)
class Scope:
    """One value of `dp-scope`: how each of `MODULES` learns.

    Attributes:
        noised: modules whose gradients are clipped and noised, in one joint vector.
        plain: modules that learn without noise.
        note: what this scope's epsilon means.
    """

    name: str
    noised: tuple[str, ...]
    plain: tuple[str, ...]
    note: str

    @property
    def frozen(self) -> tuple[str, ...]:
        """The modules that keep their initial weights, whatever the records."""
        return tuple(module for module in MODULES if module not in (*self.noised, *self.plain))

    @property
    def formal(self) -> bool:
        """True if every function of the records that the update depends on is clipped and noised."""
        return bool(self.noised) and not self.plain

    @property
    def basis(self) -> str:
        """What stands behind an epsilon of updates under this scope."""
        if not self.noised:
            return NONE
        return FORMAL if self.formal else NOMINAL

    def guarantee(self, epsilon: float | None, delta: float) -> Guarantee:
        """A spent epsilon with what it guarantees under this scope."""
        if epsilon is None:
            return Guarantee(None, None, NONE, self.note)
        return Guarantee(epsilon, delta, self.basis, self.note)


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
