"""Trains a hospital through its own handler, with a malicious server around it and canaries inside.

The server sends weights at which the records' own gradients vanish, in every round, so that a noised sum is
nothing but canaries and noise. Everything between message and reply is the hospital's own code: ceilings,
ledger, streams, sampling, clipping, noise and optimiser. Its plan is that of its own records; canaries are
drawn beside them and counted nowhere.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from flwr.app import RecordDict
from torch import Tensor

from fl_ppae import message_arrays, messages
from fl_ppae.config import RunConfig
from fl_ppae.data.deal import Deal
from fl_ppae.epsilon_audit.canaries import CanaryRows, Layout, gradients
from fl_ppae.epsilon_audit.checks import Checks
from fl_ppae.epsilon_audit.hostile_server import hostile_server
from fl_ppae.epsilon_audit.joint_sum import JointSum
from fl_ppae.epsilon_audit.scores import SumScores, WeightScores, flattened
from fl_ppae.hospital.watch import Watch, watched
from fl_ppae.models.build import local_model_of, shared_of
from fl_ppae.privacy.events import PoissonGaussian, by_kind
from fl_ppae.privacy.plan import HospitalPlan
from fl_ppae.privacy.randomness import FROM_ENTROPY, Stream, seeded_stream
from fl_ppae.protection import shares_head

HOSTILE = 1e4  # times the initial weights: activations saturate, and no record has a gradient left
REAL = "real"


@dataclass(frozen=True, eq=False)
class Subject:
    """The hospital that is audited.

    Attributes:
        index, hospitals: its number, from 0, and how many there are.
        deal: its records alone, by its name.
        plan: for its own records.
        joint: if the sum of joint noise is audited, what else is in it; otherwise the hospital's own noised
            sums are.
    """

    index: int
    hospitals: int
    deal: Deal
    plan: HospitalPlan
    joint: JointSum | None = None


@dataclass(frozen=True, eq=False)
class Training:
    """What one training showed.

    Attributes:
        included: (m,) bool, the coins.
        scores: by release: `REAL`, and each control's sums with its noise in place of the real one.
        weights: scores from the returned encoders; None if the run shares no updates, or only their sum.
        events: the ledger's, at the end.
    """

    included: np.ndarray
    scores: Mapping[str, np.ndarray]
    weights: np.ndarray | None
    events: tuple[PoissonGaussian, ...]
    checks: Checks


def train_with_canaries(
    subject: Subject,
    config: RunConfig,
    layout: Layout,
    controls: Mapping[str, float],
    number: int,
    after_round: Callable[[], None],
) -> Training:
    """One training of all the rounds that the plan affords, with coins and streams of its own.

    Args:
        layout: of the canaries, over the modules that the scope noises.
        controls: noise of each control, as a share of the real noise.
        number: of this training; with the run's seed it seeds the coins and the hospital's streams.

    Raises:
        UserError: the hospital declined or failed.
    """
    coins, own_seed = draw_coins(config, subject.index, number, len(layout.coordinates))
    scratch = config.model_copy(update={"seed": own_seed, "device": "cpu"})  # canaries are made there
    plan, joint = subject.plan, subject.joint
    releases = {REAL: 1.0, **controls}
    scores = {name: SumScores(layout, config.max_grad_norm, plan.sample_rate) for name in releases}
    weights = WeightScores(layout) if config.shares_updates and joint is None else None
    checks = Checks(layout)
    shares = [] if joint is None else joint.streams(config.seed, number)

    def canaries(drawn: np.ndarray) -> list[CanaryRows]:
        checks.drew(drawn)
        return gradients(layout, drawn[coins[drawn]], config.max_grad_norm)

    def observe(sums: Sequence[Tensor], released: Sequence[Tensor]) -> None:
        clean, noisy = flattened(sums), flattened(released)
        if joint is not None:
            noisy = joint.seen(noisy, shares)
        checks.released(noisy)
        for name, share in releases.items():
            scores[name].add(clean + share * (noisy - clean))

    watch = Watch(len(coins), canaries, observe)
    sent = hostile_weights(scratch)
    with hostile_server(subject.deal, scratch, subject.index, subject.hospitals) as server:
        for server_round in range(1, plan.rounds + 1):
            with watched(watch):
                content = server.train(sent, server_round)
            if weights is not None:
                weights.add(_moved(config, sent, content))
            after_round()
    paid, *_others = by_kind(messages.read_claim(content).events)
    return Training(
        coins,
        {name: each.scores for name, each in scores.items()},
        weights.scores if weights is not None else None,
        paid,
        checks,
    )


def draw_coins(config: RunConfig, hospital: int, number: int, canaries: int) -> tuple[np.ndarray, int]:
    """The coins (m,) bool of a training, and a seed for the hospital's own streams."""
    if config.seed == FROM_ENTROPY:
        return Stream(secrets.token_bytes(32)).bernoulli(canaries, 0.5), FROM_ENTROPY
    stream = seeded_stream("audit", config.seed, hospital, number)
    return stream.bernoulli(canaries, 0.5), int(stream.integers(1, 2**31)[0])


def hostile_weights(config: RunConfig) -> dict[str, Tensor]:
    """Weights at which records have no gradient in what is noised.

    Where the server sends the head too, a wrong but certain answer would have one. All weights are then 0, so
    that no class score depends on an image, and only the head's bias, a number a class, has a gradient.
    """
    scale = 0.0 if shares_head(config) else HOSTILE
    return {
        name: scale * value for name, value in shared_of(config, local_model_of(config)).state_dict().items()
    }


def _moved(config: RunConfig, sent: Mapping[str, Tensor], content: RecordDict) -> np.ndarray:
    """How far each number of the encoder moved in a round, in the order of its parameters.

    Where a round is one step, how far a step of length 1 on the returned gradient would move it.
    """
    shapes = message_arrays.shapes_of(sent)
    returned = message_arrays.from_arrays(content.array_records[messages.ARRAYS], shapes)
    if config.local_steps:
        return -flattened(list(returned.values()))
    return flattened([returned[name].double() - sent[name].double() for name in sent])
