"""Shadow models, which an attacker trains for comparison; kept on disk for later audits.

They are in `shadows/` in the home folder, named by a digest of everything that they depend on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from fl_ppae.attacks.audited_run import AuditedRun, frozen
from fl_ppae.config import RunConfig
from fl_ppae.data.records import Records
from fl_ppae.hospital.rounds import LocalTraining, train_together
from fl_ppae.hospital.training import TrainingTerms, round_terms
from fl_ppae.models.build import autoencoder_of, local_model_of
from fl_ppae.privacy.plan import plan_hospital, planned_terms
from fl_ppae.privacy.randomness import Streams, streams
from fl_ppae.runs.kept import State, digest, kept

SEED = 1_618_033  # of the attacker's own draws, unlike any run's
_FEWEST = 4
_FORMAT = 3  # increase it when the training changes
_PATHS = ("data-root", "data-file", "data-source", "output-dir")


def shadow_count(audited: AuditedRun, passes: int) -> int:
    """How many shadows, each trained on `passes` records in all, an attack trains: an even number, or 0."""
    wanted = audited.effort.shadows
    affordable = max(_FEWEST, 2 * int(audited.effort.shadow_passes / max(1, passes) / 2))
    if wanted > affordable:
        audited.say(
            f"{affordable} shadow models, for {wanted} would take long; --shadows {wanted} trains them all"
        )
    return min(wanted, affordable)


def cached(kind: str, depends_on: Mapping[str, Any], make: Callable[[], State]) -> State:
    """What `make` returns, from disk if it was made before. `depends_on` is anything that JSON can hold."""
    return kept("shadows", kind, {"format": _FORMAT, **depends_on}, make)


def _training_keys(config: RunConfig) -> dict[str, Any]:
    """The keys of a configuration without those that say where files are."""
    return {key: value for key, value in config.to_flat().items() if key not in _PATHS}


def without_dp(config: RunConfig) -> RunConfig:
    """The same run under dp-scope none."""
    return config.model_copy(update={"dp_scope": "none", "noise_multiplier": 0.0})


def terms_like(config: RunConfig, hospital_records: int, records: int) -> TrainingTerms:
    """A hospital's terms for a round, applied to another number of records.

    Sample rate, steps and the noise on the mean gradient are those of a hospital of `hospital_records`.
    """
    plan = plan_hospital("simulated", hospital_records, config)
    terms = round_terms(planned_terms(plan, config, run="audit"), config)
    return replace(terms, noise_multiplier=terms.noise_multiplier * records / hospital_records)


def attackers_draws(index: int) -> Callable[[int], Streams]:
    """The randomness of hospital number `index` by round, when an attacker trains it."""
    return partial(streams, SEED, index)


def shadow_encoder(
    audited: AuditedRun, config: RunConfig, records: Records, what: str, index: int
) -> nn.Module:
    """An encoder trained alone on `records`, over all rounds of the run, from the common initial weights.

    Args:
        audited: the run.
        config: of the training: the run's, or the same without DP.
        records: whose positions are trained on.
        what: a digest of the records.
        index: which of several; it seeds the randomness.
    """
    model = local_model_of(config)

    def train() -> State:
        audited.say(f"training shadow encoder {index + 1}, dp-scope {config.dp_scope}; kept for later audits")
        terms = terms_like(config, len(records), len(records))
        LocalTraining(model, records, terms, attackers_draws(index)).train_rounds(config.num_server_rounds)
        return model.encoder.state_dict()

    key = {
        "config": _training_keys(config),
        "md5": audited.dataset.source.md5,
        "records": what,
        "index": index,
    }
    model.encoder.load_state_dict(cached("encoder", key, train))
    return frozen(model.encoder)


def encoder_without_dp(audited: AuditedRun) -> nn.Module:
    """The encoder that the run's federation would have learned without DP, in the same rounds."""
    assert audited.deal is not None
    config, hospitals = without_dp(audited.config), audited.deal.train
    encoder = autoencoder_of(config).encoder

    def train() -> State:
        audited.say("training the same federation without DP; kept for later audits")
        trained = [
            LocalTraining(
                local_model_of(config),
                records,
                terms_like(config, len(records), len(records)),
                attackers_draws(index),
            )
            for index, records in enumerate(hospitals.values())
        ]
        train_together(trained, encoder, config.num_server_rounds)
        return encoder.state_dict()

    dealt = digest(*(records.indices for records in hospitals.values()))
    key = {"config": _training_keys(config), "md5": audited.dataset.source.md5, "deal": dealt}
    encoder.load_state_dict(cached("federation", key, train))
    return frozen(encoder)
