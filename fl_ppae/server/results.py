"""A run's results: baselines, epsilon and guarantees, the trained networks, the summary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safetensors.torch import save_file
from torch import nn

from fl_ppae.models.build import autoencoder_of
from fl_ppae.privacy.figures import largest
from fl_ppae.privacy.guarantees import as_row, guarantees, is_formal
from fl_ppae.privacy.repeated_records import group_costs, repeated_in
from fl_ppae.privacy.scopes import Guarantee
from fl_ppae.server.classification import classifier_state
from fl_ppae.server.evaluation import Measured, encoder_leakage, measure_encoder, measure_pixels
from fl_ppae.server.round_log import RoundLog
from fl_ppae.server.session import Session


def measure_baselines(session: Session) -> dict[str, Any]:
    """The server's classifier trained on the images themselves, and on a random encoder's encodings.

    Without a labelled image, only what a random encoder's encodings show is measured.
    """
    config, labelled = session.config, session.labelled
    encoder, trained_on = autoencoder_of(config).encoder, f"{len(labelled.labels)} records"
    if not len(labelled.labels):
        leakage = encoder_leakage(encoder, session.dataset, config)
        return {"trained_on": trained_on, "raw_pixels": None, "random_encoder": leakage}
    random = measure_encoder(encoder, session.dataset, config, labelled)
    pixels = measure_pixels(session.dataset, config, labelled)
    return {
        "trained_on": trained_on,
        "raw_pixels": pixels.as_row(),
        "random_encoder": {**random.as_row(), **random.attack_success},
    }


def write_results(session: Session, encoder: nn.Module, result: Measured) -> None:
    """Complete `ledger.json` and `summary.json`; save the classifier and, if it is common, the encoder."""
    config, run = session.config, session.run
    spent = {name: account.spending() for name, account in session.server_ledger.accounts.items()}
    round_log = RoundLog(run, session.server_ledger, config.dp_scope, config.target_delta)
    round_log.write_ledger(spent)
    round_log.mark_refuted()
    save_file(classifier_state(result.classifier), run.path / "classifier.safetensors")
    if config.shares_updates:
        save_file(encoder.state_dict(), run.path / "encoder.safetensors")
    together = largest(one.updates for one in spent.values())
    promised = guarantees(config, spent)
    noised, spec = result.noised_score, session.dataset.spec
    run.update(
        rounds=config.num_server_rounds,
        **result.score.as_row(),
        recall=dict(zip(spec.class_names, result.score.recall, strict=True)),
        **({"class_distance": result.score.class_distance} if spec.task == "ordinal-regression" else {}),
        **({} if noised is None else {"accuracy_noised": noised.accuracy, "auc_noised": noised.auc}),
        reconstruction_loss=result.reconstruction_loss,
        **result.attack_success,
        epsilon={name: one.updates.epsilon for name, one in spent.items()},
        epsilon_basis={name: one.updates.basis for name, one in spent.items()},
        epsilon_alone={name: one.updates.alone for name, one in spent.items()},
        epsilon_max=together.epsilon,
        epsilon_max_basis=together.basis,
        epsilon_alone_max=together.alone,
        epsilon_added={name: one.added for name, one in spent.items()},
        guarantees={artefact: as_row(guarantee) for artefact, guarantee in promised.items()},
        formal=is_formal(spent),
        **_interruptions(session),
        refuted=session.server_ledger.refuted(),
        repeated_records=_repeated_records(session, promised),
        leakage=result.leakage,
    )


def _interruptions(session: Session) -> dict[str, Any]:
    """Of a run that was resumed: how many rounds each hospital paid for more than once."""
    if session.checkpoint is None:
        return {}
    accounts = session.server_ledger.accounts.items()
    return {"rounds_paid_twice": {name: account.rounds_paid_twice() for name, account in accounts}}


def _repeated_records(session: Session, promised: Mapping[str, Guarantee]) -> list[dict[str, Any]] | None:
    """What images in several records cost; None in a deployment, where nobody can compare all records."""
    if session.deal is None:
        return None
    costs = group_costs(
        repeated_in(session.deal, session.config),
        {name: account.counted_events() for name, account in session.server_ledger.accounts.items()},
        session.config.target_delta,
        updates=promised["updates"].formal and session.config.shares_updates,
        everything=promised["total"].formal,
    )
    return [cost.document() for cost in costs]
