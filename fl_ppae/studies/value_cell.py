"""One cell of `study value`: what one hospital gains by a federation of which everything is formal.

The federation trains a linear head on `scatter` codes in one-step rounds. Beside it stand the median hospital
alone, the server alone, and the hospital with the common model and its own network together. A hospital alone
answers with its network, with a logistic regression on the same codes, or with both; the best by test
accuracy counts, which flatters staying alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from fl_ppae.config import RunConfig
from fl_ppae.data.cache import Dataset, Split
from fl_ppae.data.checksums import md5_of
from fl_ppae.data.deal import Deal, hospital_names, make_deal
from fl_ppae.data.records import HospitalRecords
from fl_ppae.data.sources import resolve
from fl_ppae.models import scattering
from fl_ppae.models.augment import ORIENTATIONS
from fl_ppae.models.build import autoencoder_of, local_model_of
from fl_ppae.models.encoding import encode
from fl_ppae.models.personal import Mixture, fitted_mixture
from fl_ppae.models.plain_training import class_probabilities
from fl_ppae.privacy.figures import FORMAL, NONE
from fl_ppae.privacy.plan import plan_hospital
from fl_ppae.protection import honest_of
from fl_ppae.runs.kept import State, kept
from fl_ppae.server.plain_networks import Budget, Reached, network_config, trained
from fl_ppae.studies.hits import packed
from fl_ppae.studies.study_data import StudyData
from fl_ppae.studies.value_grid import NO_EPSILON, ValueCell, settings
from fl_ppae.studies.value_head import Array, scores_of, summed_noise, train_head
from fl_ppae.studies.workers import Rows

_REGULARISATION = 10.0  # of the hospital's own logistic regression, chosen on the validation split
# Several times longer than `worth-joining = "quick"`, because what one stays alone with must not be too weak.
_FROM_RANDOM = Budget(passes=150, fewest=1000, most=1500, batch=64, smoothing=0.99)
_TUNED = Budget(passes=30, fewest=400, most=600, batch=64, smoothing=0.99)
_HELD_OUT = 4  # every fourth record, while weights of the mixture are fitted
_FEWEST_TO_TRAIN_TWICE = 400  # records; with fewer, only the regression learns without the held-out ones


@dataclass(frozen=True)
class _Hospital:
    """What the median hospital answers for the test images: class probabilities (N, K)."""

    alone: NDArray[Any]
    personal: NDArray[Any]
    mixture: Mixture


def measure(cell: ValueCell, data: StudyData) -> Rows:
    """Run the cell; returns its one row."""
    config = cell_config(cell, data)
    dataset = resolve(config)
    deal = make_deal(dataset, config, hospital_names(cell.hospitals))
    codes = {name: _codes(config, dataset, name) for name in ("train", "test")}
    head, noise = _head(cell, config, deal, codes["train"])
    labels = np.ravel(dataset.test.labels)
    common = softmax(scores_of(codes["test"], head).numpy(), axis=1)
    networks = network_config(config).model_copy(update={"views": ORIENTATIONS})
    public = HospitalRecords(dataset.val, np.arange(len(dataset.val)))
    server = trained(networks, dataset, "the server alone", (public,), _FROM_RANDOM) if len(public) else None
    median = sorted(deal.train, key=lambda name: len(deal.train[name]))[len(deal.train) // 2]
    found = _hospital(networks, dataset, deal.train[median], public, server, codes, head, common)
    hits = found.personal.argmax(1) == labels
    better = found.alone.argmax(1) == labels
    if server is not None and server.hits.mean() > better.mean():
        better = server.hits
    row = {
        "accuracy": float((common.argmax(1) == labels).mean()),
        "accuracy_personal": float(hits.mean()),
        "accuracy_alone": float((found.alone.argmax(1) == labels).mean()),
        "accuracy_server": None if server is None else float(server.hits.mean()),
        "gain": float(hits.mean() - better.mean()),
        "gain_common": float((common.argmax(1) == labels).mean() - better.mean()),
        "weight_common": found.mixture.common,
        "weight_own": found.mixture.own,
        "noise_std": noise,
        "records": len(deal.train[median]),
        "epsilon_status": NONE if cell.epsilon == NO_EPSILON else FORMAL,
        "hits": packed(hits),
        "hits_better": packed(better),
    }
    return [row]


def cell_config(cell: ValueCell, data: StudyData) -> RunConfig:
    """The configuration of the run that the cell stands for; without noise, but for `target-epsilon`."""
    return RunConfig.from_flat(
        {**settings(cell), "data-source": "file", "data-file": data.file, "seed": cell.seed}
    )


def _codes(config: RunConfig, dataset: Dataset, split_name: str) -> torch.Tensor:
    """The codes (N, d) of a whole split, kept on disk: the encoder learns nothing."""
    split: Split = getattr(dataset, split_name)
    identity = {"data": dataset.path.name, "split": split_name, "code": md5_of(inspect.getsource(scattering))}

    def make() -> State:
        return {"codes": torch.from_numpy(encode(autoencoder_of(config).encoder, split.images))}

    return kept("study_value", "codes", identity, make)["codes"]


def _head(
    cell: ValueCell, config: RunConfig, deal: Deal, codes: torch.Tensor
) -> tuple[Mapping[str, Array], float]:
    """The common head, and the standard deviation of the noise in each sum."""
    rows = np.concatenate([records.indices for records in deal.train.values()])
    labels = torch.from_numpy(np.ravel(deal.dataset.train.labels)[rows].astype(np.int64))
    noise = 0.0
    if cell.epsilon != NO_EPSILON:
        name, records = next(iter(deal.train.items()))
        multiplier = plan_hospital(name, len(records), config).noise_multiplier
        assert multiplier is not None  # the scope has noise, which one public rate makes the same for all
        noise = summed_noise(multiplier, config.max_grad_norm, cell.hospitals, honest_of(config) or 1)
    head = train_head(
        codes[rows],
        labels,
        deal.dataset.spec.num_classes,
        config.num_server_rounds,
        config.learning_rate,
        config.max_grad_norm,
        noise,
        cell.seed,
    )
    return head, noise


def _hospital(
    config: RunConfig,
    dataset: Dataset,
    records: HospitalRecords,
    public: HospitalRecords,
    server: Reached | None,
    codes: Mapping[str, torch.Tensor],
    head: Mapping[str, Array],
    common: NDArray[Any],
) -> _Hospital:
    """The hospital alone, and with the common head whose answers are `common`."""
    labels = np.ravel(dataset.test.labels)
    budget = _FROM_RANDOM if server is None else _TUNED
    network = trained(config, dataset, "a hospital alone", (records, public), budget, server).likely
    regression = _regression(dataset, records, public, codes["train"])(codes["test"])
    both = _together(network, regression)
    alone = max((network, regression, both), key=lambda likely: (likely.argmax(1) == labels).mean())
    held_out = np.arange(len(records)) % _HELD_OUT == 0
    part = HospitalRecords(records.split, records.indices[~held_out])
    rest = HospitalRecords(records.split, records.indices[held_out])
    asked = codes["train"][rest.indices]
    answers = _regression(dataset, part, public, codes["train"])(asked)
    if len(records) >= _FEWEST_TO_TRAIN_TWICE:
        partial = trained(config, dataset, "a part of a hospital", (part, public), budget, server)
        model = local_model_of(config)
        model.load_state_dict({name: partial.state[name] for name in model.state_dict()})
        answers = _together(class_probabilities(model, rest, any_way_up=True), answers)
    mixture = fitted_mixture(softmax(scores_of(asked, head).numpy(), axis=1), answers, rest.labels().numpy())
    return _Hospital(alone, mixture.log_probabilities(common, both), mixture)


def _together(one: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
    """Class probabilities (N, K) proportional to the geometric mean of two models'."""
    found: NDArray[Any] = np.exp(Mixture(0.5, 0.5).log_probabilities(one, other))
    return found


def _regression(
    dataset: Dataset, records: HospitalRecords, public: HospitalRecords, codes: torch.Tensor
) -> Callable[[torch.Tensor], NDArray[Any]]:
    """A regression on the codes of own and public records: from codes (N, d) to class probabilities (N, K).

    `codes`: of the train split.
    """
    from sklearn.linear_model import LogisticRegression

    learned = codes[records.indices].numpy()
    if len(public):
        scatter = scattering.Scattering(dataset.spec.image_shape[0])
        learned = np.concatenate([learned, encode(scatter, dataset.val.images)])
    labels = np.concatenate([records.labels().numpy(), public.labels().numpy()])
    fitted = LogisticRegression(C=_REGULARISATION, max_iter=500).fit(learned, labels)

    def answers(asked: torch.Tensor) -> NDArray[Any]:
        likely = np.zeros((len(asked), dataset.spec.num_classes))
        likely[:, fitted.classes_] = fitted.predict_proba(asked.numpy())
        return likely

    return answers
