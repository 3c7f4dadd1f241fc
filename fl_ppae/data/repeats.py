"""What a data set holds that a reader of its results must know: repeats, absent classes, blank images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from fl_ppae.data.cache import Dataset, Split
from fl_ppae.data.npz import SPLITS
from fl_ppae.data.pieces import pieces
from fl_ppae.steps import step

_NAMED = 3  # classes named in a sentence


@dataclass(frozen=True)
class Findings:
    """Counts over the official splits. Two images are the same if all their decoded pixels are.

    Attributes:
        records: by split.
        repeated: how many records of a split repeat an earlier one of it.
        shared: how many different images stand in both of two splits, by their names.
        contradictory: how many different images have records of different labels.
        blank: how many images of a split have one colour throughout.
        absent: the classes without a record, by split.
        classes: of the data set.
    """

    records: Mapping[str, int]
    repeated: Mapping[str, int]
    shared: Mapping[tuple[str, str], int]
    contradictory: int
    blank: Mapping[str, int]
    absent: Mapping[str, tuple[str, ...]]
    classes: int

    def document(self) -> dict[str, object]:
        """The JSON form in `summary.json` and in `fl-ppae plan --json`."""
        return {
            "repeated": dict(self.repeated),
            "shared": {f"{one} and {other}": count for (one, other), count in self.shared.items()},
            "contradictory": self.contradictory,
            "blank": dict(self.blank),
            "absent_classes": {split: list(names) for split, names in self.absent.items()},
            "in_words": self.in_words(),
        }

    def in_words(self) -> list[str]:
        """One sentence for each count that isn't 0, without a full stop; empty for a sound data set."""
        lines = [
            f"{count} of {self.records[split]} {split} records repeat an earlier one"
            for split, count in self.repeated.items()
            if count
        ]
        lines += [
            f"{_stand(count)} in both {one} and {other}"
            + (": results on test flatter" if other == "test" else "")
            for (one, other), count in self.shared.items()
            if count
        ]
        if self.contradictory:
            lines.append(f"{_stand(self.contradictory)} in records of different labels")
        lines += [
            f"{count} of {self.records[split]} {split} images have one colour throughout"
            for split, count in self.blank.items()
            if count
        ]
        lines += [
            f"no {split} record of {_named(names)}: {self._loss(split)}"
            for split, names in self.absent.items()
            if names and (self.records[split] or split != "val")
        ]
        return lines

    def _loss(self, split: str) -> str:
        """What an absent class means for the results."""
        if split != "test":
            return {"train": "no hospital can teach it", "val": "the server's split can't teach it"}[split]
        if self.classes - len(self.absent[split]) < 2:
            return "all are of one class, so there is no AUC"
        return "accuracy says nothing about it, and AUC is the mean over the other classes"


@dataclass(frozen=True)
class Repeated:
    """Images that the same hospitals hold equally often.

    Attributes:
        images: how many different images.
        copies: (train, test) records of each such image by hospital, in the hospitals' order.
    """

    images: int
    copies: tuple[tuple[str, int, int], ...]


def examine(dataset: Dataset) -> Findings:
    """Count what `Findings` holds."""
    step("looking for repeated images")
    splits: dict[str, Split] = {split: getattr(dataset, split) for split in SPLITS}
    distinct = {name: np.unique(dataset.identities[name]) for name in splits}
    spec = dataset.spec
    return Findings(
        records={name: len(split) for name, split in splits.items()},
        repeated={name: len(split) - len(distinct[name]) for name, split in splits.items()},
        shared={
            (one, other): len(np.intersect1d(distinct[one], distinct[other], assume_unique=True))
            for one, other in combinations(SPLITS, 2)
        },
        contradictory=_contradictory(
            dataset.identities, {name: split.labels for name, split in splits.items()}
        ),
        blank={name: _blank(split.images) for name, split in splits.items()},
        absent={
            name: tuple(
                f"class {label} ({spec.class_names[label]})"
                for label in np.flatnonzero(spec.class_counts(split.labels) == 0).tolist()
            )
            for name, split in splits.items()
        },
        classes=spec.num_classes,
    )


def repeated_records(
    train: Mapping[str, np.ndarray], test: Mapping[str, np.ndarray] | None = None
) -> list[Repeated]:
    """The images that stand in more than one record of these hospitals' parts, most images first.

    Args:
        train, test: identities (N,) of each hospital's records, by its name. Without `test`, nothing of the
            test parts leaves a hospital.
    """
    held = [(name, 0, numbers) for name, numbers in train.items()]
    held += [(name, 1, numbers) for name, numbers in (test or {}).items()]
    every, counts = np.unique(np.concatenate([numbers for *_, numbers in held]), return_counts=True)
    repeated = every[counts > 1]
    copies: dict[int, dict[str, list[int]]] = {number: {} for number in repeated.tolist()}
    for name, part, numbers in held:
        for number in numbers[np.isin(numbers, repeated)].tolist():
            copies[number].setdefault(name, [0, 0])[part] += 1
    patterns = Counter(
        tuple((name, own[name][0], own[name][1]) for name in train if name in own) for own in copies.values()
    )
    return [Repeated(images, pattern) for pattern, images in patterns.most_common()]


def _contradictory(numbers: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]) -> int:
    pairs = np.concatenate([np.column_stack([numbers[split], labels[split]]) for split in SPLITS])
    _, different = np.unique(np.unique(pairs, axis=0)[:, 0], return_counts=True)
    return int((different > 1).sum())


def _blank(images: np.ndarray) -> int:
    return sum(int((piece == piece[:, :1, :1]).all(axis=(1, 2, 3)).sum()) for piece in pieces(images))


def _stand(images: int) -> str:
    return "1 image stands" if images == 1 else f"{images} images stand"


def _named(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
