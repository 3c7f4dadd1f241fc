"""What a hospital agrees to before a run: the events that its rounds and its upload will cost."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fl_ppae.privacy.events import (
    DIAGNOSTICS,
    ENCODINGS,
    LABELS,
    PARTS,
    TRAIN_PART,
    UPDATES,
    Event,
    Gaussian,
    JointGaussian,
    PoissonGaussian,
    RandomisedResponse,
    Unprotected,
    unprotected,
)
from fl_ppae.privacy.scopes import SCOPES


@dataclass(frozen=True)
class UploadTerms:
    """What a hospital's single upload of encodings and labels costs.

    Attributes:
        encoding_epsilon: budget for encodings, at the run's delta, over the ledger's whole history.
        encoding_noise_multiplier: None if encodings are shared plain.
        label_epsilon: epsilon of randomised response, and its budget; 0 if labels are shared in the clear.
        classes: number of possible labels.
    """

    encoding_epsilon: float
    encoding_noise_multiplier: float | None
    label_epsilon: float
    classes: int

    def events(self, part: str, server_round: int) -> tuple[Event, ...]:
        """What the noise on `part` costs; labels are released for the train part only."""
        costs: list[Event] = []
        if self.encoding_noise_multiplier is not None:
            costs.append(Gaussian(self.encoding_noise_multiplier, part, server_round))
        if self.label_epsilon and part == TRAIN_PART:
            costs.append(RandomisedResponse(self.label_epsilon, self.classes, server_round))
        return tuple(costs)


@dataclass(frozen=True)
class Terms:
    """What a hospital agrees to before round 1 of a run; no later message changes it.

    Attributes:
        run: the run's identity.
        noise_multiplier: of the whole noise that counts; None for dp-scope none.
        steps: noised sums per round.
        target_epsilon: budget for updates, at `delta`, over the ledger's whole history.
        upload: None if the run shares no encodings.
        shares_updates: whether encoder updates leave the hospital.
        diagnostics: whether un-noised statistics of the training do.
        honest: with joint noise, how many honest hospitals in a round make up that noise together; 0: the
            hospital adds all of it.
    """

    run: str
    scope: str
    records: int
    noise_multiplier: float | None
    sample_rate: float
    steps: int
    max_grad_norm: float
    target_epsilon: float
    delta: float
    upload: UploadTerms | None = None
    shares_updates: bool = True
    diagnostics: bool = False
    honest: int = 0

    @property
    def own_noise_multiplier(self) -> float | None:
        """Of the noise that this hospital itself adds: all of it, or its share of joint noise."""
        return self.noise_multiplier and self.noise_multiplier / math.sqrt(self.honest or 1)

    def event(self, server_round: int) -> PoissonGaussian | JointGaussian | None:
        """The noised sums of one round, whoever else takes part in it; None without DP."""
        if self.noise_multiplier is None:
            return None
        if self.honest:
            return JointGaussian(
                self.noise_multiplier, self.honest, self.sample_rate, self.steps, server_round
            )
        return PoissonGaussian(self.noise_multiplier, self.sample_rate, self.steps, server_round)

    def round_events(self, server_round: int) -> tuple[Event, ...]:
        """Everything that one round releases: noised sums, updates without a guarantee, diagnostics."""
        noised = self.event(server_round)
        updates = self.shares_updates and not SCOPES[self.scope].formal
        return (
            *((noised,) if noised is not None else ()),
            *((self._unprotected(UPDATES, TRAIN_PART, server_round),) if updates else ()),
            *self.diagnostic_events(server_round),
        )

    def diagnostic_events(self, server_round: int) -> tuple[Unprotected, ...]:
        """The diagnostics of one round, from training and from evaluation; empty if the run sends none."""
        return (self._unprotected(DIAGNOSTICS, TRAIN_PART, server_round),) if self.diagnostics else ()

    def upload_events(self, part: str, server_round: int) -> tuple[Event, ...]:
        """Everything that an upload of `part` releases; empty if the run shares no encodings.

        An encoder that was trained without a guarantee shows its train records through the encodings of
        either part, noised or not.
        """
        if self.upload is None:
            return ()
        plain = []
        if not SCOPES[self.scope].formal:
            plain.append((ENCODINGS, TRAIN_PART))
        if self.upload.encoding_noise_multiplier is None:
            plain.append((ENCODINGS, part))
        if part == TRAIN_PART and not self.upload.label_epsilon:
            plain.append((LABELS, part))
        return (
            *self.upload.events(part, server_round),
            *(self._unprotected(artefact, whose, server_round) for artefact, whose in dict.fromkeys(plain)),
        )

    def any_events(self, server_round: int) -> tuple[Event, ...]:
        """Everything that could have been announced at this point."""
        uploads = [event for part in PARTS for event in self.upload_events(part, server_round)]
        return (*self.round_events(server_round), *uploads)

    @property
    def formal(self) -> bool:
        """True if everything that the run may release has a guarantee."""
        return not unprotected(self.any_events(1))

    def _unprotected(self, artefact: str, part: str, server_round: int) -> Unprotected:
        return Unprotected(artefact, self.scope, part, self.run, server_round)
