"""Images drawn by the project itself, in the shape of a dataset that can't be had here.

Every image holds soft ellipses on a slowly varying ground, a little like stained cells; on one channel
they are long and thin, like strokes. What tells the classes apart is how many there are, how large, how
long, at which angle, with how dark a core and about where; colour tells groups of classes apart. All of
these, brightness and noise vary within a class, so that raw pixels help but do not suffice. In an image of
several labels, each adds one or two ellipses of its own look.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fl_ppae.data.npz import Arrays
from fl_ppae.data.spec import DatasetSpec

_COUNTS = {"train": 4_000, "val": 800, "test": 1_000}
_FEWER = 8  # times fewer images of more than 64 pixels: drawing 4,000 of them takes minutes
_CHUNK = 1_000  # images of up to 32 pixels that are drawn at once; of larger ones as many pixels
_MOST = 9  # ellipses in an image of one class
_MOST_OF_A_LABEL = 2
_LABEL_RATE = 0.15
_WANDER = 0.09  # standard deviation of an ellipse about its class's place for it, in image sides


@dataclass(frozen=True)
class _Look:
    """What a class looks like. Lengths are in image sides, angles in half turns."""

    number: int
    radius: float
    elongation: float
    angle: float
    core: float
    tint: int


# A set of K classes has the first K.
_LOOKS = (
    _Look(number=1, radius=0.24, elongation=1.0, angle=0.0, core=0.0, tint=0),
    _Look(number=5, radius=0.11, elongation=1.0, angle=0.0, core=0.0, tint=1),
    _Look(number=2, radius=0.15, elongation=2.2, angle=0.0, core=0.0, tint=2),
    _Look(number=2, radius=0.15, elongation=2.2, angle=0.5, core=0.0, tint=0),
    _Look(number=8, radius=0.07, elongation=1.0, angle=0.0, core=0.9, tint=1),
    _Look(number=1, radius=0.24, elongation=1.0, angle=0.0, core=0.9, tint=2),
    _Look(number=5, radius=0.10, elongation=2.4, angle=0.25, core=0.0, tint=0),
    _Look(number=5, radius=0.10, elongation=2.4, angle=0.75, core=0.0, tint=1),
    _Look(number=3, radius=0.16, elongation=1.3, angle=0.25, core=0.9, tint=2),
    _Look(number=2, radius=0.19, elongation=2.8, angle=0.25, core=0.0, tint=0),
    _Look(number=4, radius=0.09, elongation=1.8, angle=0.0, core=0.9, tint=2),
    _Look(number=1, radius=0.20, elongation=2.0, angle=0.5, core=0.9, tint=1),
    _Look(number=7, radius=0.06, elongation=1.5, angle=0.5, core=0.0, tint=0),
    _Look(number=1, radius=0.17, elongation=3.0, angle=0.75, core=0.0, tint=2),
)

# Light taken away by an ellipse, and by its darker core: red, green, blue.
_TINTS = np.array([(0.30, 0.55, 0.18), (0.42, 0.48, 0.20), (0.34, 0.42, 0.34)], dtype=np.float32)
_CORE = np.array([0.30, 0.35, 0.12], dtype=np.float32)
_GROUND = np.array([0.93, 0.83, 0.90], dtype=np.float32)

# Where each class's ellipses lie about: (2, classes, _MOST). Drawn once, the same for every seed; ten classes
# and then the others, because the places of the first must not depend on how many there are.
_PLACES = np.concatenate(
    [
        np.random.default_rng(seed).uniform(0.2, 0.8, (2, classes, _MOST))
        for seed, classes in ((7, 10), (8, len(_LOOKS) - 10))
    ],
    axis=1,
)


def stand_in(spec: DatasetSpec, seed: int = 0) -> Arrays:
    """Six arrays in the shape of `spec`'s: 4,000 images for train, 800 for val, 1,000 for test; an eighth of
    that if images have more than 64 pixels a side.

    The same `spec` and `seed` give the same images on one machine.
    """
    pixels = spec.height * spec.width
    fewer = _FEWER if pixels > 64 * 64 else 1
    counts = {split: count // fewer for split, count in _COUNTS.items()}
    total = sum(counts.values())
    rng = np.random.default_rng([seed, *spec.name.encode()])
    if spec.multi_label:
        labels = (rng.random((total, spec.num_classes)) < _LABEL_RATE).astype(np.int64)
    else:
        labels = rng.integers(0, spec.num_classes, total)
    chunk = _CHUNK if pixels <= 32 * 32 else _CHUNK * 32 * 32 // pixels
    chunks = [_draw(labels[start : start + chunk], spec, rng) for start in range(0, total, chunk)]
    images = np.concatenate(chunks)
    arrays, start = {}, 0
    for split, count in counts.items():
        arrays[f"{split}_images"] = images[start : start + count]
        arrays[f"{split}_labels"] = labels[start : start + count]
        start += count
    return arrays


def _draw(labels: np.ndarray, spec: DatasetSpec, rng: np.random.Generator) -> np.ndarray:
    """Images (N, H, W, C) uint8 of the classes `labels` (N,), or of the label sets (N, K)."""
    n = len(labels)
    y, x = ((np.mgrid[: spec.height, : spec.width] + 0.5) / max(spec.height, spec.width)).astype(np.float32)
    strokes = 1.6 if spec.channels == 1 else 1.0
    if spec.multi_label:
        body, core = np.zeros((2, n, *x.shape), np.float32)
        for label, present in enumerate(labels.T):
            its_body, its_core = _ellipses(np.full(n, label), _MOST_OF_A_LABEL, x, y, strokes, rng)
            body = np.maximum(body, _column(present) * its_body)
            core = np.maximum(core, _column(present) * its_core)
    else:
        body, core = _ellipses(labels, _MOST, x, y, strokes, rng)

    if spec.channels == 1:
        pixels = (0.05 + 0.85 * body - 0.5 * core)[..., None]
    else:
        tints = _TINTS[np.array([look.tint for look in _LOOKS])[labels]] + rng.normal(0, 0.11, (n, 3))
        pixels = (
            _GROUND * _ground(x, y, n, rng)[..., None]
            - body[..., None] * tints[:, None, None]
            - core[..., None] * _CORE
        )
    pixels = pixels * rng.uniform(0.75, 1.05, (n, 1, 1, 1)) + rng.normal(0, 0.04, pixels.shape)
    return np.round(pixels.clip(0, 1) * 255).astype(np.uint8)


def _ellipses(
    labels: np.ndarray, most: int, x: np.ndarray, y: np.ndarray, strokes: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Bodies and cores (N, H, W) in [0, 1] of the ellipses, up to `most` an image, of the classes (N,).

    x, y: (H, W), of the pixels. `strokes`: how much longer and thinner than the class's look.
    """
    n = len(labels)
    looks = {
        name: np.array([getattr(look, name) for look in _LOOKS])[labels]
        for name in ("number", "radius", "elongation", "angle", "core")
    }
    number = np.clip(looks["number"] + rng.integers(-1, 2, n), 1, most)
    turn = np.pi * (looks["angle"] + rng.normal(0, 0.07, n))
    body = np.zeros((n, *x.shape), dtype=np.float32)
    core = np.zeros_like(body)
    for index in range(most):
        radius = looks["radius"] * rng.uniform(0.75, 1.3, n)
        stretch = np.sqrt(looks["elongation"] * rng.uniform(0.9, 1.25, n)) * strokes
        angle = turn + rng.normal(0, 0.25, n)
        centres = _PLACES[:, labels, index] + rng.normal(0, _WANDER, (2, n))
        along, across = _rotated(x, y, centres, angle)
        distance = np.sqrt(
            (along / _column(radius * stretch)) ** 2 + (across / _column(radius / stretch)) ** 2
        )
        shown = _column(index < number)
        body = np.maximum(body, shown * _inside(distance, 1.0))
        core = np.maximum(core, shown * _column(looks["core"]) * _inside(distance, 0.55))
    return body, core


def _column(values: np.ndarray) -> np.ndarray:
    """(N,) as (N, 1, 1) float32, to meet (N, H, W)."""
    return values.astype(np.float32)[:, None, None]


def _rotated(
    x: np.ndarray, y: np.ndarray, centres: np.ndarray, angle: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pixel positions (N, H, W) along and across an axis at `angle` (N,) through `centres` (2, N)."""
    dx, dy = x - _column(centres[0]), y - _column(centres[1])
    cos, sin = _column(np.cos(angle)), _column(np.sin(angle))
    return dx * cos + dy * sin, dy * cos - dx * sin


def _inside(distance: np.ndarray, edge: float) -> np.ndarray:
    """About 1 within `edge`, about 0 beyond, soft between."""
    return 1 / (1 + np.exp((distance - edge).clip(-3, 3) * 9))


def _ground(x: np.ndarray, y: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Brightness (N, H, W) of the ground: one slow wave an image, 0.8 to 1."""
    waves = rng.uniform(-6, 6, (2, n))
    phase = _column(rng.uniform(0, 2 * np.pi, n))
    return 0.9 + 0.1 * np.sin(x * _column(waves[0]) + y * _column(waves[1]) + phase)
