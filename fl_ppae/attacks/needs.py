"""What attacks need of a run. Each function says in one line why a run lacks it; None if it doesn't."""

from __future__ import annotations

from fl_ppae.attacks.attack import COLLUDING_HOSPITAL, SERVER_SPLIT, ThreatModel
from fl_ppae.attacks.audited_run import AuditedRun
from fl_ppae.config import RunConfig
from fl_ppae.protection import SECAGG

_ORDER = " whose order is in audit-only/"
_NO_IMAGES = "the server has no images (public-records = 0)"
_DEPLOYED = "the hospitals were deployed: their records are not here"


def encoder_missing(audited: AuditedRun, _: ThreatModel) -> str | None:
    """A common encoder, and the records that it was trained on."""
    if audited.encoder is None:
        return "every hospital kept its encoder (share = encodings)"
    return _DEPLOYED if audited.deal is None else None


def one_class_missing(audited: AuditedRun, _: ThreatModel) -> str | None:
    """Records of one class each."""
    spec = audited.dataset.spec
    return f"records of {spec.title} have several labels each, not one class" if spec.multi_label else None


def classifier_missing(audited: AuditedRun, _: ThreatModel) -> str | None:
    """A classifier."""
    return "the run left no classifier.safetensors" if audited.classifier is None else None


def uploads_missing(audited: AuditedRun, _: ThreatModel) -> str | None:
    """If the run shares encodings, uploads whose images are at hand."""
    if not audited.config.shares_encodings:
        return None
    if audited.deal is None:
        return "the hospitals were deployed: the images of their uploads are not here"
    return None if audited.hospitals else f"no hospital uploaded encodings{_ORDER}"


def updates_missing(audited: AuditedRun, _: ThreatModel) -> str | None:
    """Updates that the server received and kept."""
    if not audited.config.shares_updates:
        return "no updates left a hospital (share = encodings)"
    if unread := _unread(audited.config):
        return unread
    if not audited.config.record_messages:
        return "the updates were not kept: the run needs record-messages=true"
    if audited.deal is None:
        return _DEPLOYED
    if not any((audited.path / "received" / "round-1").glob("*.safetensors")):
        return "received/round-1 is empty"
    return None


def two_hospitals_missing(audited: AuditedRun, _: ThreatModel) -> str | None:
    """Two hospitals whose records are at hand, to be told apart or to collude."""
    if audited.deal is None:
        return _DEPLOYED
    if len(audited.hospitals) < 2:
        return "there are not two hospitals" + (
            f" with uploads{_ORDER}" if audited.config.shares_encodings else ""
        )
    return None


def public_images_missing(audited: AuditedRun, _: ThreatModel) -> str | None:
    """Images of the server's, which the attacker fits a partner of the encoder to."""
    return None if len(audited.dataset.val) else _NO_IMAGES


def _split_missing(audited: AuditedRun, threat_model: ThreatModel) -> str | None:
    """Images of the server's, for an attacker who has no others."""
    empty = threat_model == SERVER_SPLIT and not len(audited.dataset.val)
    return _NO_IMAGES if empty else None


def black_box_missing(audited: AuditedRun, threat_model: ThreatModel) -> str | None:
    """Pairs of encodings and images for this attacker."""
    if missing := _split_missing(audited, threat_model):
        return missing
    if threat_model == COLLUDING_HOSPITAL:
        return two_hospitals_missing(audited, threat_model)
    if audited.encoder is None:
        return "no one but its hospital has an encoder to make pairs with (share = encodings)"
    return uploads_missing(audited, threat_model)


def white_box_missing(audited: AuditedRun, threat_model: ThreatModel) -> str | None:
    """Pairs for this attacker, and an encoder to take gradients through."""
    if audited.encoder is not None:
        return black_box_missing(audited, threat_model)
    missing = _split_missing(audited, threat_model) or two_hospitals_missing(audited, threat_model)
    if missing is None and audited.own_encoder(audited.hospitals[1]) is None:
        return f"audit-only/ has no encoder of {audited.hospitals[1]}"
    return missing


def noise_missing(audited: AuditedRun, _: ThreatModel) -> str | None:
    """Encodings that were noised."""
    if audited.release is None:
        return "encodings have no noise (encoding-noise-epsilon = 0), so their Fisher information is infinite"
    return None


def common_encoder_missing(audited: AuditedRun, _: ThreatModel) -> str | None:
    """A common encoder."""
    return None if audited.encoder is not None else "every hospital has its own encoder (share = encodings)"


def known_encoder_missing(audited: AuditedRun, threat_model: ThreatModel) -> str | None:
    """An encoder that some attacker has, and what it encoded."""
    if audited.encoder is not None:
        return uploads_missing(audited, threat_model)
    return white_box_missing(audited, threat_model)


def _unread(config: RunConfig) -> str:
    """Why what the server received are no encoders; empty if they are."""
    if config.protection == SECAGG:
        return "updates arrived masked (protection = secagg): the server saw no single one"
    return "updates were gradients (local-steps = 1), not encoders" if config.local_steps else ""
