"""Which records belong to which of a site's ledgers, as keyed digests of their decoded pixels.

A digest is BLAKE2b (RFC 7693) with the site's secret key, so that whoever finds the sets can't test guesses
against them. Digests never leave the site. They recognise a record whatever file holds it, but only if every
pixel is the same: after a re-compression, a crop or one flipped bit it counts as another record.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock

from fl_ppae.data.cache import Dataset, Split
from fl_ppae.data.pieces import pieces
from fl_ppae.errors import UserError
from fl_ppae.files import read_json, write_atomically, write_json

_DIGEST_BYTES, _KEY_BYTES = 16, 32


@dataclass(frozen=True)
class RecordSet:
    """The records of one ledger.

    Attributes:
        folder: of this set; its siblings are those of the site's other ledgers.
        key_path: the site's key, of all sets.
    """

    folder: Path
    key_path: Path

    def check(self, dataset: Dataset) -> None:
        """Raise unless the records of `dataset` may be used with this ledger.

        Raises:
            UserError: some belong to another ledger of the site. For the operator alone: the text depends on
                the records.
        """
        with self._locked():
            self._checked(dataset)

    def claim(self, dataset: Dataset) -> None:
        """Add the records of `dataset`, all parts of it, to this ledger. On return they are on disk.

        Raises:
            UserError: as `check`.
        """
        with self._locked():
            digests = self._checked(dataset)
            if digests is not None:
                own = sorted(_load(self.folder) | digests)
                write_atomically(self.folder / _RECORDS, b"".join(own))
                write_json(self._files, sorted({*self._known_files(), dataset.source.md5}))

    def __len__(self) -> int:
        return len(_load(self.folder))

    def _checked(self, dataset: Dataset) -> set[bytes] | None:
        """The digests of `dataset`; None if the whole file is known to be this ledger's."""
        if dataset.source.md5 in self._known_files():
            return None
        digests = keyed_digests(dataset, self._key())
        for other in sorted(self.folder.parent.iterdir()):
            if other != self.folder and (shared := len(digests & _load(other))):
                raise UserError(
                    f"{shared} records of {dataset.source.file} belong to another ledger of this site, "
                    f"{other.name}: a record belongs to one ledger only"
                )
        return digests

    def _key(self) -> bytes:
        if not self.key_path.exists():
            if any(self.folder.parent.glob(f"*/{_RECORDS}")):
                raise UserError(
                    f"{self.key_path} is missing, without which no record is recognised; "
                    "restore it from a backup"
                )
            write_atomically(self.key_path, secrets.token_bytes(_KEY_BYTES))  # readable by its owner alone
        key = self.key_path.read_bytes()
        if len(key) != _KEY_BYTES:
            raise UserError(f"{self.key_path} is damaged; restore it from a backup")
        return key

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder.parent / ".lock", fallback_to_soft=False):
            yield

    @property
    def _files(self) -> Path:
        return self.folder / "files.json"

    def _known_files(self) -> list[str]:
        return list(read_json(self._files)) if self._files.exists() else []


_RECORDS = "records.bin"


def keyed_digests(dataset: Dataset, key: bytes) -> set[bytes]:
    """One digest of 16 bytes for each different image in any part of `dataset`."""
    return {
        hashlib.blake2b(image, key=key, digest_size=_DIGEST_BYTES).digest()
        for part in (dataset.train, dataset.val, dataset.test)
        for image in _pixels(part)
    }


def _load(folder: Path) -> set[bytes]:
    path = folder / _RECORDS
    content = path.read_bytes() if path.exists() else b""
    if len(content) % _DIGEST_BYTES:
        raise UserError(f"{path} is damaged; restore it from a backup")
    return {content[start : start + _DIGEST_BYTES] for start in range(0, len(content), _DIGEST_BYTES)}


def _pixels(split: Split) -> Iterator[bytes]:
    """Shape and pixels of each image."""
    shape = repr(split.images.shape[1:]).encode()
    for piece in pieces(split.images):
        for image in np.ascontiguousarray(piece):
            yield shape + image.tobytes()
