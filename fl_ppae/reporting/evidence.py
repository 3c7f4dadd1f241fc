"""What a report shows about a run's images: each hospital's label mix, and a simple attacker's guesses.

This needs the images that the run used. A simulation's deal is rebuilt from its configuration. Only the
simulator knows it: no hospital sent it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image
from torch import Tensor

from fl_ppae.attacks.attack import COLLUDING_HOSPITAL, SERVER_SPLIT
from fl_ppae.attacks.audited_run import AuditedRun, Effort, load_artefacts, open_for_audit
from fl_ppae.attacks.needs import black_box_missing
from fl_ppae.attacks.scenes import black_box
from fl_ppae.config import RunConfig
from fl_ppae.data.cache import Dataset
from fl_ppae.data.deal import Deal
from fl_ppae.data.official import data_root, inspect_files
from fl_ppae.data.registry import spec_of
from fl_ppae.errors import Unmeasurable, UserError
from fl_ppae.leakage.image_quality import class_mean_images, image_quality, mean_images
from fl_ppae.leakage.linear_inversion import fit_linear
from fl_ppae.reporting.encoding_maps import as_maps
from fl_ppae.runs.stored import StoredRun

_SHOWN = 8
_GAP, _ZOOM = 2, 3
# Small enough to run at the end of every run: one second on one core for encodings of 784 numbers.
_EFFORT = Effort(victims=100, pairs=500, network_steps=0, gradient_steps=0, queries=0, origins=0)


@dataclass(frozen=True)
class LabelMix:
    """Train records by hospital and class, in all, and Hellinger distances (0 to 1) to the pooled mix.

    A record with several labels counts for each of them.
    """

    classes: tuple[str, ...]
    records: Mapping[str, int]
    counts: Mapping[str, tuple[int, ...]]
    distance: Mapping[str, float]


@dataclass(frozen=True)
class Inversion:
    """A linear attacker's result: rows of images as PNG, and each guess's mean SSIM over `victims` images."""

    attacker: str
    pairs: int
    victims: int
    rows: Mapping[str, bytes]
    ssim: Mapping[str, float]


@dataclass(frozen=True)
class Evidence:
    """Label mix and inversion; `missing` says why one of them is absent."""

    label_mix: LabelMix | None
    inversion: Inversion | None
    missing: str


def gather(stored: StoredRun, data_file: str = "") -> Evidence:
    """Rebuild the deal of a completed run, and invert some encodings by ridge regression.

    Downloads nothing. `data_file`: where the run's data file is now, if it has moved.
    """
    if stored.summary.get("status") != "completed":
        return Evidence(None, None, "the run did not complete")
    try:
        _check_at_hand(stored)
        audited = open_for_audit(stored, _EFFORT, lambda _: None, data_file)
    except UserError as reason:
        return Evidence(None, None, str(reason))
    return _evidence(audited)


def gather_from(stored: StoredRun, config: RunConfig, dataset: Dataset, deal: Deal | None) -> Evidence:
    """The same for the server at the end of a run, which has the data in memory."""
    return _evidence(load_artefacts(stored, config, dataset, deal, _EFFORT, lambda _: None))


def _evidence(audited: AuditedRun) -> Evidence:
    mix = None if audited.deal is None else _label_mix(audited)
    try:
        inversion, missing = _inversion(audited)
    except Unmeasurable as reason:  # a report without it is better than no report
        inversion, missing = None, str(reason)
    return Evidence(mix, inversion, missing)


def _check_at_hand(stored: StoredRun) -> None:
    """Raise a UserError if official files are missing, which would otherwise be downloaded."""
    kind = (stored.config.get("data_source") or {}).get("kind")
    if kind in ("medmnist", "torchvision"):
        config = RunConfig.from_flat({**stored.values, "data-source": kind})
        spec = spec_of(config)
        found = inspect_files(spec, data_root(spec, config.data_root))
        if found.state != "present":
            raise UserError(found.detail)


def _label_mix(audited: AuditedRun) -> LabelMix:
    assert audited.deal is not None
    spec = audited.dataset.spec
    counts = {
        name: spec.class_counts(records.labels().numpy()) for name, records in audited.deal.train.items()
    }
    everyone = np.sum(list(counts.values()), axis=0)

    def distance(own: np.ndarray) -> float:
        overlap = np.sqrt(own / own.sum() * everyone / everyone.sum()).sum()
        return float(np.sqrt(max(0.0, 1 - overlap)))

    return LabelMix(
        spec.class_names,
        {name: len(records) for name, records in audited.deal.train.items()},
        {name: tuple(own.tolist()) for name, own in counts.items()},
        {name: distance(own) for name, own in counts.items()},
    )


def _inversion(audited: AuditedRun) -> tuple[Inversion | None, str]:
    reasons = {model: black_box_missing(audited, model) for model in (SERVER_SPLIT, COLLUDING_HOSPITAL)}
    attacker = next((model for model, reason in reasons.items() if reason is None), None)
    if attacker is None:
        return None, str(reasons[SERVER_SPLIT])
    scene = black_box(audited, attacker)
    known, victims = scene.known, scene.victims
    assert known is not None
    guesses = {
        "attacker, linear": fit_linear(known.encodings, known.images).decode(victims.encodings),
        "class-mean image": class_mean_images(known.images, known.labels, victims.labels),
        "mean image": mean_images(known.images, len(victims)),
    }
    drawn = torch.linspace(0, len(victims) - 1, min(_SHOWN, len(victims))).long()
    rows = {
        "original": _strip(victims.images[drawn]),
        "encoding": _strip(_pictures(victims.encodings[drawn])),
        **{name: _strip(guess[drawn]) for name, guess in guesses.items()},
    }
    ssim = {name: float(image_quality(victims.images, guess).ssim.mean()) for name, guess in guesses.items()}
    return Inversion(attacker.description, len(known), len(victims), rows, ssim), ""


def _pictures(encodings: Tensor) -> Tensor:
    """Encodings (N, *encoding) as pictures (N, 3, H, W): channels tiled, vectors folded to near-squares."""
    maps = torch.from_numpy(as_maps(encodings.numpy()))
    count, channels, height, width = maps.shape
    across = int(np.ceil(np.sqrt(channels)))
    down = -(-channels // across)
    low, high = torch.nanquantile(maps.float().flatten()[:100_000], torch.tensor([0.01, 0.99])).tolist()
    scaled = ((maps - low) / max(high - low, 1e-12)).clamp(0, 1).numpy()
    tiled = np.full((count, down * across, height, width), np.nan)
    tiled[:, :channels] = scaled
    tiled = tiled.reshape(count, down, across, height, width).transpose(0, 1, 3, 2, 4)
    coloured = colormaps["cividis"].with_extremes(bad="white")(
        tiled.reshape(count, down * height, across * width)
    )
    return torch.from_numpy(np.moveaxis(coloured[..., :3], -1, 1))


def _strip(images: Tensor) -> bytes:
    """Images (N, C, H, W) in [0, 1] side by side in one PNG, each pixel a block of pixels."""
    _, channels, height, width = images.shape
    side = 28 * _ZOOM
    strip = Image.new("RGB", ((side + _GAP) * len(images) - _GAP, side), "white")
    for index, image in enumerate(images):
        pixels = (image.clamp(0, 1).expand(3, height, width) if channels == 1 else image.clamp(0, 1)) * 255
        one = Image.fromarray(pixels.round().byte().permute(1, 2, 0).numpy())
        strip.paste(one.resize((side, side), Image.Resampling.NEAREST), ((side + _GAP) * index, 0))
    png = io.BytesIO()
    strip.save(png, "PNG", optimize=True)
    return png.getvalue()
