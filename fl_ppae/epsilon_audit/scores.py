"""Scores of canaries from the noised sums of a training: a regression on their own gradients.

The adversary is white-box: it is handed every step's noised sum and the parameters at which it was made,
so it can compute the clipped gradient g_i that each canary would add there. With q the sample rate,
    noised sum = q * sum_i s_i g_i + q * (sum of the other records' g) + noise,   s_i = 1 if i is in,
where the noise is the mechanism's and that of Poisson sampling. The other records are known, so their
part is subtracted. The score is the best linear estimate of s from what is left (generalised ridge
regression: the posterior mean under a normal prior), over all steps. The canaries' Gram matrix and
sampling make the noise differ between directions; a plain inner product with g_i, which ignores that,
drowns in what gradients have in common once training has begun. Whatever is computed here, the bound
stays valid, because the coins are not looked at.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from opacus import GradSampleModule
from scipy.linalg import solve
from scipy.linalg.blas import ssyrk
from torch import Tensor

from fl_ppae.data.records import HospitalRecords
from fl_ppae.hospital.training import TrainingTerms
from fl_ppae.models.objectives import LocalModel
from fl_ppae.privacy.clipping import per_sample_norms

SPREAD = 128  # own records that stand for how a batch varies
_GRADIENTS_AT_ONCE = 2**23  # numbers of per-sample gradients in one pass: 32 MiB
_RIDGE = 1e-6  # of the gradients' mean square; about float32's resolution


class CanaryScores:
    """An observer of `train_round`.

    The hospital's own records are known to the adversary, their batches are not: `q` times the sum of
    their clipped gradients is subtracted from every noised sum, and `SPREAD` of them, chosen evenly,
    stand for how the rest varies with the batch.
    """

    def __init__(
        self,
        model: LocalModel,
        own: HospitalRecords,
        canaries: HospitalRecords,
        terms: TrainingTerms,
    ) -> None:
        self._own = own
        self._canaries = canaries
        self._terms = terms
        self._model = copy.deepcopy(model)
        self._observed = _observed(self._model, terms)
        self._model.requires_grad_(False)
        self._observed.requires_grad_(True)
        size = sum(parameter.numel() for parameter in self._observed.parameters())
        m = len(canaries)
        self._spread = np.unique(np.linspace(0, len(own) - 1, min(SPREAD, len(own))).astype(int))
        self._gradients = torch.empty(m + len(self._spread), size)
        q = terms.sample_rate
        in_batch = np.repeat([0.5, len(own) / len(self._spread)], [m, len(self._spread)])
        self._sampling_variance = q * (1 - q) * in_batch
        self._information = np.zeros((m, m))
        self._evidence = np.zeros(m)

    def __call__(self, model: LocalModel, sums: list[Tensor]) -> None:
        """Take one step into account."""
        self._model.load_state_dict(model.state_dict())
        wrapped = GradSampleModule(self._model, batch_first=True, loss_reduction="sum")
        m, q = len(self._canaries), self._terms.sample_rate
        for positions in self._batches(m):
            self._gradients[positions] = self._clipped(wrapped, self._canaries, positions)
        known = 0.5 * self._gradients[:m].sum(dim=0)
        for positions in self._batches(len(self._own)):
            clipped = self._clipped(wrapped, self._own, positions)
            known += clipped.sum(dim=0)
            rows = np.isin(self._spread, positions)
            self._gradients[m:][rows] = clipped[np.isin(positions, self._spread)]
        wrapped.remove_hooks()
        surprise = torch.cat([total.flatten() for total in sums]).float() - q * known
        gram = _gram(self._gradients)
        match = (self._gradients @ surprise).double().numpy()
        scale = gram.trace() / len(gram) or 1.0
        gram, match, square = gram / scale, match / scale, float(surprise.double().square().sum()) / scale
        variance = _unexplained(gram, match, square, len(surprise))
        whitening = variance * np.eye(len(gram)) + gram * self._sampling_variance
        whitened = solve(whitening, np.column_stack([gram[:, :m], match]))[:m]
        self._information += q**2 * whitened[:, :-1]
        self._evidence += q * whitened[:, -1]

    def scores(self) -> np.ndarray:
        """Posterior means (m,) of being included, minus 1/2: higher for canaries that look included."""
        mean: np.ndarray = solve(self._information + 4 * np.eye(len(self._evidence)), self._evidence)
        return mean

    def _batches(self, records: int) -> list[np.ndarray]:
        rows = max(1, _GRADIENTS_AT_ONCE // self._gradients.shape[1])
        return np.split(np.arange(records), range(rows, records, rows))

    def _clipped(self, wrapped: GradSampleModule, records: HospitalRecords, positions: np.ndarray) -> Tensor:
        """Gradients (N, parameters), clipped as in training; unclipped under dp-scope none."""
        images, labels = records.images(positions).contiguous(), records.labels(positions)
        outputs = wrapped(images)
        self._terms.objective.loss(outputs, images, labels).sum().backward()
        parameters = list(self._observed.parameters())
        grads = [parameter.grad_sample for parameter in parameters]  # type: ignore[attr-defined]
        flat = torch.cat([grad.flatten(1) for grad in grads], dim=1)
        for parameter in parameters:
            parameter.grad_sample = parameter.grad = None  # type: ignore[attr-defined]
        if not self._terms.scope.noised:
            return flat
        bound = self._terms.max_grad_norm
        return flat * (bound / per_sample_norms([flat]).float().clamp(min=bound))[:, None]


def gradient_numbers(model: LocalModel, terms: TrainingTerms) -> int:
    """How many numbers one record's observed gradient has."""
    return sum(parameter.numel() for parameter in _observed(model, terms).parameters())


def _observed(model: LocalModel, terms: TrainingTerms) -> torch.nn.Module:
    """The part whose sums are observed: what the scope noises; without DP, everything."""
    return model.part(terms.scope.noised or terms.scope.plain)


def _gram(rows: Tensor) -> np.ndarray:
    """(N, N) float64 inner products of the rows; half the work of a matrix product."""
    upper = np.triu(ssyrk(1.0, rows.numpy().T, trans=1)).astype(np.float64)
    result: np.ndarray = upper + np.triu(upper, 1).T
    return result


def _unexplained(gram: np.ndarray, match: np.ndarray, square: float, size: int) -> float:
    """Mean square per coordinate of the part of the noised sum that no mixture of the gradients explains.

    Estimated rather than taken from the plan, so that missing noise makes the scores sharper.
    """
    mixture = solve(gram + _RIDGE * np.eye(len(gram)), match, assume_a="pos")
    rest = square - 2 * mixture @ match + mixture @ gram @ mixture
    return max(rest / max(1, size - len(gram)), _RIDGE)
