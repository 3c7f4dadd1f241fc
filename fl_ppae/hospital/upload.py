"""A hospital's release of encodings: after training, paid before it is made, made once, in a secret order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flwr.app import RecordDict

from fl_ppae.config import RunConfig
from fl_ppae.hardware import limited_threads
from fl_ppae.hospital.local_model import resumed_model
from fl_ppae.hospital.release import diverged, encodings_to_release, labels_to_release
from fl_ppae.hospital.requests import UploadRequest, asked, release_inputs, text_in
from fl_ppae.hospital.simulated import leave_for_audit, leave_order_for_audit
from fl_ppae.hospital.site import Hospital
from fl_ppae.hospital.state import TrainingState
from fl_ppae.hospital.terms import over_budget
from fl_ppae.models.build import released_format_of
from fl_ppae.models.views import viewed
from fl_ppae.paths import path_of
from fl_ppae.privacy.events import TRAIN_PART, priced, updates
from fl_ppae.privacy.ledger import Ledger
from fl_ppae.privacy.randomness import Streams


@dataclass(frozen=True)
class Releasing:
    """A hospital in a run that shares encodings. `draw`: the random streams of its n-th draw."""

    hospital: Hospital
    config: RunConfig
    draw: Callable[[int], Streams]


def release(
    site: Releasing, ledger: Ledger, request: UploadRequest, content: RecordDict
) -> tuple[Ledger, str]:
    """Pay for the release of a part and save it, ready to be sent; or say why not, with nothing paid.

    `content`: of the server's message, unchecked. Hold the hospital's lock.
    """
    hospital, config, part = site.hospital, site.config, request.part
    if request.chunk > 0:
        return ledger, "the first request for a part must be for chunk 0"
    saved = hospital.state.load_training()
    if reason := _too_early(site, ledger, saved):
        return ledger, reason
    inputs, malformed = asked(release_inputs, content, config)
    if inputs is None:
        return ledger, malformed
    costs = ledger.terms.upload_events(part, config.num_server_rounds)
    encoder = resumed_model(config, ledger.terms.run, saved, inputs.encoder)[0].encoder
    if reason := over_budget(ledger, costs, hospital) or diverged(encoder):
        return ledger, reason
    ledger = ledger.announce(*costs)
    upload = ledger.terms.upload
    assert upload is not None  # this run shares encodings
    records = hospital.train if part == TRAIN_PART else hospital.test
    stream = site.draw(len(priced(ledger.events))).noise
    order = site.draw(len(ledger.events)).order.permutation(len(records))
    with limited_threads(config.threads_per_hospital):
        encodes = viewed(encoder, config.views)
        encoded = encodings_to_release(encodes, records, order, upload, inputs.projection, stream)
    labels = labels_to_release(records, order, upload, stream) if part == TRAIN_PART else None
    if not hospital.identity.deployed:
        run_directory = path_of(text_in(content, "run-directory"), "run-directory")
        leave_order_for_audit(order, hospital.identity.name, part, run_directory)
        if not config.shares_updates:
            leave_for_audit(encoder, hospital.identity.name, run_directory)
    sent = released_format_of(config).packed(encoded)
    hospital.state.save_release(ledger.terms.run, part, sent, labels)
    return ledger, ""


def _too_early(site: Releasing, ledger: Ledger, saved: TrainingState | None) -> str:
    """Why training may go on after this upload; empty once no round can follow in this run.

    A server that asks between rounds would otherwise get encodings of an early encoder, beside the updates
    that lead to the last one.
    """
    last = site.config.num_server_rounds
    paid = updates(ledger.events[ledger.history :])
    reached = max((event.round for event in paid), default=0)
    if saved is not None and saved.run == ledger.terms.run:
        reached = max(reached, saved.round)
    if reached >= last or over_budget(ledger, ledger.terms.round_events(last), site.hospital):
        return ""
    return f"encodings leave after the last round, {last}; this hospital has reached round {reached}"
