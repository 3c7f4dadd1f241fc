"""The images and labels of an `.npz`, checked.

Two layouts of keys are accepted: MedMNIST's (`train_images` ... `test_labels`, three splits) and
`x_train y_train x_test y_test`. The second has no validation split, so the server's split is taken from
train: always the same records.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from fl_ppae.data.archive import enough_memory, read_members
from fl_ppae.data.pieces import taken
from fl_ppae.data.spec import DatasetSpec
from fl_ppae.errors import UserError

Arrays = dict[str, np.ndarray]
"""Six arrays: `{train,val,test}_images` (N, H, W, C) uint8 and `{train,val,test}_labels` int64, (N,) or, of a
multi-label set, (N, K)."""

SPLITS = ("train", "val", "test")
_MEDMNIST_KEYS = tuple(f"{split}_{part}" for split in SPLITS for part in ("images", "labels"))
_XY_KEYS = {
    "train_images": "x_train",
    "train_labels": "y_train",
    "test_images": "x_test",
    "test_labels": "y_test",
}

KEYS = frozenset((*_MEDMNIST_KEYS, *_XY_KEYS.values()))
LABEL_KEYS = frozenset(key for key in KEYS if key.endswith("_labels") or key.startswith("y_"))
"""The names that arrays may have, and those of labels."""

_NAMED = 8  # keys of a file that are named when they are the wrong ones

# For a dataset without a validation split, the server's split is as fixed as an official one: it must not
# depend on the run's seed.
_CARVE_SEED = 20_250_101


def read_npz(path: Path, spec: DatasetSpec, scratch: Path) -> Arrays:
    """The six arrays of `path`, checked against `spec`; images are mapped files in the folder `scratch`.

    Raises:
        UserError: one line naming the file, what is wrong and what would be right.
        OSError: `scratch` can't be written.
    """
    stored = read_members(path, KEYS, scratch)
    names = layout(path, stored)
    size = sum(array.nbytes for array in stored.values() if isinstance(array, np.ndarray))
    with enough_memory(str(path), 2 * size):
        return _checked(path, stored, names, spec, scratch)


def layout(path: Path, stored: Collection[str]) -> Mapping[str, str]:
    """What the six arrays, by MedMNIST's names, are called among the members `stored` of the file.

    Raises:
        UserError: they are neither of the two layouts.
    """
    if all(key in stored for key in _MEDMNIST_KEYS):
        return {key: key for key in _MEDMNIST_KEYS}
    if all(key in stored for key in _XY_KEYS.values()):
        return _XY_KEYS
    more = [f"and {len(stored) - _NAMED} more"] if len(stored) > _NAMED else []
    found = ", ".join([*sorted(stored)[:_NAMED], *more]) or "none"
    raise UserError(
        f"{path}: its keys are {found}; expected {' '.join(_MEDMNIST_KEYS)}, or {' '.join(_XY_KEYS.values())}"
    )


def _checked(
    path: Path, stored: Mapping[str, object], names: Mapping[str, str], spec: DatasetSpec, scratch: Path
) -> Arrays:
    """The six arrays from those of the file, where each has its name in `names`."""
    arrays = {}
    for split in SPLITS:
        images, labels = f"{split}_images", f"{split}_labels"
        if images in names:
            where = f"{path}: {names[images]}"
            arrays[images] = check_images(stored[names[images]], spec, where)
            arrays[labels] = check_labels(
                stored[names[labels]], spec, f"{path}: {names[labels]}", len(arrays[images])
            )
    return arrays if "val_images" in arrays else carve_val(arrays, str(path), scratch)


def check_images(images: object, spec: DatasetSpec, where: str) -> np.ndarray:
    """`images` as (N, H, W, C) uint8; (N, H, W) counts as one channel. Errors begin with `where`."""
    right = (spec.height, spec.width, spec.channels)
    wanted = f"expected (N, {', '.join(map(str, right))}) uint8 for {spec.title}"
    if not isinstance(images, np.ndarray):
        raise UserError(f"{where} is not an array; {wanted}")
    if spec.channels == 1 and images.shape[1:] == right[:2]:
        images = images[..., None]
    if images.ndim != 4 or images.shape[1:] != right:
        raise UserError(f"{where} has shape {images.shape}; {wanted}")
    if images.dtype != np.uint8:
        raise UserError(f"{where} is {images.dtype}; {wanted}, pixels from 0 to 255")
    if not len(images):
        raise UserError(f"{where} is empty; every split needs at least one image")
    return images


def check_labels(labels: object, spec: DatasetSpec, where: str, count: int) -> np.ndarray:
    """`labels` of any integer type as int64. Errors begin with `where`.

    Classes, (N,) or (N, 1), become (N,); the labels of a multi-label set are (N, K), each 0 or 1.
    """
    if not isinstance(labels, np.ndarray):
        raise UserError(f"{where} is not an array; expected one integer label per image")
    if labels.dtype.kind not in "iu":
        raise UserError(f"{where} is {labels.dtype}; expected integers")
    if spec.multi_label:
        if labels.shape[1:] != spec.label.shape:
            raise UserError(f"{where} has shape {labels.shape}; expected (N, {spec.num_classes})")
    elif labels.ndim != 1 and labels.shape[1:] != (1,):
        raise UserError(f"{where} has shape {labels.shape}; expected (N,) or (N, 1)")
    else:
        labels = labels.ravel()
    if len(labels) != count:
        raise UserError(f"{where} has {len(labels)} labels for {count} images; expected as many")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high > spec.label.highest:
        wrong = low if low < 0 else high
        raise UserError(f"{where} holds label {wrong}; {spec.title} has 0 to {spec.label.highest}")
    return labels.astype(np.int64)


def carve_val(arrays: Arrays, where: str, scratch: Path) -> Arrays:
    """Move a tenth of train to val: always the same records, whatever the run's seed.

    Images are copied into mapped files in the folder `scratch`.

    Raises:
        UserError: train has fewer than 2 records.
    """
    count = len(arrays["train_labels"])
    val = carved_positions(count, where)
    train = np.setdiff1d(np.arange(count), val)
    return {
        "train_images": taken(arrays["train_images"], train, scratch),
        "train_labels": arrays["train_labels"][train],
        "val_images": taken(arrays["train_images"], val, scratch),
        "val_labels": arrays["train_labels"][val],
        "test_images": arrays["test_images"],
        "test_labels": arrays["test_labels"],
    }


def carved_positions(count: int, where: str) -> np.ndarray:
    """Sorted positions of the tenth of `count` records, at least one, that is the server's.

    Raises:
        UserError: there are fewer than 2. The message begins with `where`.
    """
    if count < 2:
        raise UserError(
            f"{where}: {count} train record; at least 2 are needed to set some aside for the server"
        )
    return np.sort(np.random.default_rng(_CARVE_SEED).permutation(count)[: max(1, count // 10)])
