"""The claims in a hospital's replies: what it did or why it declines, and what its ledger holds."""

from __future__ import annotations

import math

from flwr.app import ConfigRecord

from fl_ppae import messages
from fl_ppae.hospital.identity import Identity
from fl_ppae.messages import DECLINED, READY, Claim, Claims
from fl_ppae.privacy.accounting import epsilon
from fl_ppae.privacy.events import updates
from fl_ppae.privacy.ledger import Ledger


def train_claim(identity: Identity, ledger: Ledger, status: str, reason: str) -> ConfigRecord:
    """Of a round that was trained or declined, with the epsilon of all updates so far."""
    private = ledger.terms.noise_multiplier is not None
    spent = epsilon(updates(ledger.events), ledger.terms.delta).spent if private else math.inf
    reason = messages.reason_text(reason)
    chain = messages.chain_text(ledger.chain.heads)
    return messages.claim_record(Claim(identity.name, status, reason, ledger.events, spent, chain))


def upload_claim(
    identity: Identity, chunks: int, ledger: Ledger | None = None, reason: str = ""
) -> ConfigRecord:
    """Of an upload of `chunks` chunks, or of why there is none; `ledger` is None if it was not opened."""
    claim: Claims = {
        **_standing(identity, reason),
        "chunks": chunks,
        "events": messages.events_text(ledger.events if ledger else ()),
        "chain": messages.chain_text(ledger.chain.heads if ledger else ()),
    }
    return ConfigRecord(claim)


def masking_claim(identity: Identity, reason: str) -> ConfigRecord:
    """Of a step of secure aggregation, taken or declined."""
    return ConfigRecord(_standing(identity, reason))


def _standing(identity: Identity, reason: str) -> Claims:
    return {
        "hospital": identity.name,
        "status": DECLINED if reason else READY,
        "reason": messages.reason_text(reason),
    }
