"""Model extraction: a surrogate trained on a classifier's answers to queries."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fl_ppae.leakage.finite import check_finite
from fl_ppae.leakage.linear_inversion import fit_linear
from fl_ppae.leakage.ranges import check_paired, check_shares
from fl_ppae.models.seeding import seeded

Surrogate = Callable[[Tensor], Tensor]

_LEAST_ANSWER = 1e-300
_FEWEST = 10
_HIDDEN = 256
_STEPS = 300
_BATCH = 128
_RATE = 2e-3
_SEED = 0


def extract(encodings: Tensor, answers: Tensor) -> Surrogate:
    """A surrogate of a classifier: encodings (N, *encoding) to class guesses (N,).

    Three attackers: the most frequent answer, whatever is asked; equation solving, a linear map to the
    answers' logarithms (Tramer et al. 2016, arXiv:1609.02943), which is exact for a linear classifier once
    there are as many queries as numbers in an encoding; and a network trained on the answers (Orekondy et
    al. 2019, arXiv:1812.02766). The one that agrees most with the classifier on a held-out fifth of the
    queries is fitted to all.

    Args:
        encodings: the queries, (M, *encoding), M at least 10.
        answers: the classifier's class probabilities (M, classes); in float64, or those near 0 say less.

    Raises:
        Unmeasurable: a number that is not finite, fewer than 10 queries, not as many answers, or answers that
            are no probabilities.
    """
    check_finite(encodings=encodings)
    check_shares(answers=answers)
    check_paired(_FEWEST, encodings=encodings, answers=answers)
    order = torch.randperm(len(encodings), generator=torch.Generator().manual_seed(_SEED))
    encodings, answers = encodings[order], answers[order]
    held_out = len(encodings) // 5
    wanted = answers[:held_out].argmax(1)
    attackers = (_most_frequent, _solve, _imitate)

    def agreement(attacker: Callable[[Tensor, Tensor], Surrogate]) -> float:
        surrogate = attacker(encodings[held_out:], answers[held_out:])
        return (surrogate(encodings[:held_out]) == wanted).float().mean().item()

    return max(attackers, key=agreement)(encodings, answers)


def _most_frequent(_: Tensor, answers: Tensor) -> Surrogate:
    guess = int(answers.argmax(1).bincount().argmax())
    return lambda seen: torch.full((len(seen),), guess)


def _solve(encodings: Tensor, answers: Tensor) -> Surrogate:
    logarithms = answers.double().clamp(min=_LEAST_ANSWER).log()
    always = (answers > _LEAST_ANSWER).all(0)  # a class that is never answered tells nothing about the others
    common = logarithms[:, always if always.any() else ~always].mean(1, keepdim=True)
    linear = fit_linear(encodings, (logarithms - common).float())
    return lambda seen: linear.raw(seen).argmax(1)


def _imitate(encodings: Tensor, answers: Tensor) -> Surrogate:
    flat = encodings.flatten(1)
    mean, spread = flat.mean(0), flat.std(0)
    scale = torch.where(spread > 1e-6 * spread.max(), spread, torch.inf)
    inputs = (flat - mean) / scale
    with seeded(_SEED):
        network = nn.Sequential(
            nn.Linear(flat.shape[1], _HIDDEN), nn.ELU(), nn.Linear(_HIDDEN, answers.shape[1])
        )
    optimiser = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=1e-2)
    generator = torch.Generator().manual_seed(_SEED)
    for _ in range(_STEPS):
        rows = torch.randint(len(inputs), (_BATCH,), generator=generator)
        optimiser.zero_grad()
        F.cross_entropy(network(inputs[rows]), answers[rows].float()).backward()
        optimiser.step()

    @torch.inference_mode()
    def guess(seen: Tensor) -> Tensor:
        return network((seen.flatten(1) - mean) / scale).argmax(1).clone()

    return guess
