"""Infers the class mix of each hospital from its updates."""

from __future__ import annotations

import numpy as np
import torch

from fl_ppae.attacks.attack import Attack, Findings, Result, ThreatModel, result
from fl_ppae.attacks.audited_run import AuditedRun
from fl_ppae.attacks.needs import one_class_missing, updates_missing
from fl_ppae.attacks.received import ReceivedRound, received_rounds, simulated_updates
from fl_ppae.attacks.shadows import SEED, without_dp
from fl_ppae.config import RunConfig
from fl_ppae.data.records import HospitalRecords
from fl_ppae.leakage.class_mix import draw_mix, fit_and_predict, random_mixes, total_variation
from fl_ppae.leakage.intervals import t_mean

NAME = "property-inference"
SERVER = ThreatModel(
    "server",
    "sees every hospital's updates, and simulates hospitals of random class mixes from the validation split",
)
_ROUNDS = 2  # at most; on BloodMNIST more took longer and revealed no more
_RECORDS = 600  # of a simulated hospital
_WEIGHTS = 2**17  # of an update


def run(audited: AuditedRun, threat_model: ThreatModel) -> Findings:
    """Total variation of guessed and true class shares, averaged over hospitals: 0 is perfect, 1 the worst.

    Chance is guessing the validation split's mix for each. Details are the single hospitals.
    """
    assert audited.deal is not None
    rounds = received_rounds(audited, min(_ROUNDS, audited.effort.update_rounds))
    names = [name for name in audited.hospitals if name in rounds[0].updates]
    rounds = [each for each in rounds if set(names) <= set(each.updates)]
    classes = audited.dataset.spec.num_classes
    truth = np.array([_shares(audited.deal.train[name].labels().numpy(), classes) for name in names])
    seen = np.array([_features([each.updates[name] for each in rounds]) for name in names])
    errors = total_variation(_guesses(audited, audited.config, rounds, names, seen), truth)
    plain = errors
    if audited.config.dp_scope != "none":
        config = without_dp(audited.config)
        unprotected = [
            simulated_updates(config, records, len(records), rounds, index)
            for index, records in enumerate(audited.deal.train[name] for name in names)
        ]
        seen = np.array([_features(updates) for updates in unprotected])
        plain = total_variation(_guesses(audited, config, rounds, names, seen), truth)
    usual = _shares(np.asarray(audited.dataset.val.labels), classes)
    chance = total_variation(np.tile(usual, (len(names), 1)), truth)

    def row(positions: np.ndarray, group: str) -> Result:
        return result(
            NAME,
            threat_model.name,
            "total variation",
            t_mean(errors[positions]),
            chance=float(chance[positions].mean()),
            undefended=float(plain[positions].mean()),
            group=group,
        )

    details = [row(np.array([index]), name) for index, name in enumerate(names)]
    return Findings((row(np.arange(len(names)), "all"),), tuple(details))


def _guesses(
    audited: AuditedRun, config: RunConfig, rounds: list[ReceivedRound], names: list[str], seen: np.ndarray
) -> np.ndarray:
    """Class shares (H, K) for features `seen`, learned from hospitals simulated under `config`."""
    split, count = audited.dataset.val, audited.effort.simulated
    labels = np.asarray(split.labels)
    usual = _shares(labels, audited.dataset.spec.num_classes)
    mixes = random_mixes(count, usual, SEED)
    size = int(np.median([audited.stored.config["records"][name] for name in names]))
    rng = np.random.default_rng(SEED)
    features, held = [], []
    for index, mix in enumerate(mixes):
        if index % 10 == 0:
            audited.say(f"{NAME}: simulated hospital {index + 1} of {count}, dp-scope {config.dp_scope}")
        rows = draw_mix(labels, mix, min(_RECORDS, size), rng)
        records = HospitalRecords(split, rows)
        features.append(_features(simulated_updates(config, records, size, rounds, len(names) + index)))
        held.append(_shares(labels[rows], len(mix)))
    return fit_and_predict(np.array(features), np.array(held), seen, usual)


def _features(updates: list[torch.Tensor]) -> np.ndarray:
    """All rounds' updates in one row; for large encoders only evenly spaced weights, to bound the memory."""
    stride = -(-len(updates[0]) // _WEIGHTS)
    row: np.ndarray = torch.cat([update[::stride] for update in updates]).double().numpy()
    return row


def _shares(labels: np.ndarray, classes: int) -> np.ndarray:
    shares: np.ndarray = np.bincount(labels, minlength=classes) / len(labels)
    return shares


ATTACK = Attack(
    NAME,
    "the class mix of each hospital from its updates, by regression on simulated hospitals",
    "Melis et al. 2019 (arXiv:1805.04049); Ganju et al. 2018 (ACM CCS)",
    run,
    (SERVER,),
    (one_class_missing, updates_missing),
)
