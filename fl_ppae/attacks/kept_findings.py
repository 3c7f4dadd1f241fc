"""What finished attacks of an audit found, kept until the audit is complete, so that it can go on.

They are kept for the same run, effort, threads, data and version of fl-ppae alone; of any other audit they
are dropped. A file that can't be read is an attack that did not finish.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import fl_ppae
from fl_ppae.attacks.attack import Attack, Findings, Result, ThreatModel
from fl_ppae.attacks.audited_run import AuditedRun
from fl_ppae.files import write_json

_FOLDER, _AUDIT = "unfinished", "audit.json"
Draw = Callable[[Path], None]


@dataclass(frozen=True)
class KeptFindings:
    """The findings in `folder`, one file for each attack under a threat model, with its figures."""

    folder: Path

    def find(self, attack: Attack, model: ThreatModel) -> Findings | None:
        """What the attack found before the audit was interrupted; None if it did not finish."""
        try:
            kept = json.loads(self._path(attack, model).read_bytes())
            rows = {part: tuple(Result(**row) for row in kept[part]) for part in ("results", "details")}
            figures = {str(name): self._figure(name) for name in kept["figures"]}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        if not all((self.folder / name).is_file() for name in figures):
            return None
        return Findings(rows["results"], rows["details"], figures)

    def keep(self, attack: Attack, model: ThreatModel, found: Findings) -> Findings:
        """Keep what an attack found, its file last; returns it with figures that are drawn already."""
        for name, draw in found.figures.items():
            draw(self.folder / name)
        rows = {"results": list(map(asdict, found.results)), "details": list(map(asdict, found.details))}
        write_json(self._path(attack, model), {**rows, "figures": list(found.figures)})
        return replace(found, figures={name: self._figure(name) for name in found.figures})

    def drop(self) -> None:
        """The audit is complete."""
        shutil.rmtree(self.folder)

    def _path(self, attack: Attack, model: ThreatModel) -> Path:
        return self.folder / f"{attack.name}-{model.name}.json"

    def _figure(self, name: str) -> Draw:
        return partial(_copy, self.folder / name)


def kept_findings(audited: AuditedRun, threads: int) -> KeptFindings:
    """Those of the audit of this run that was interrupted, if it was this one; else none so far."""
    summary = (audited.path / "summary.json").read_bytes()
    audit = {
        "version": fl_ppae.__version__,
        "run": hashlib.sha256(summary).hexdigest(),
        "data": audited.dataset.source.md5,
        "effort": json.loads(json.dumps(asdict(audited.effort))),
        "threads": threads,
    }
    folder = audited.path / "audit" / _FOLDER
    if folder.is_dir() and _read(folder / _AUDIT) != audit:
        shutil.rmtree(folder)
    if not folder.is_dir():
        write_json(folder / _AUDIT, audit)
    return KeptFindings(folder)


def _read(path: Path) -> Mapping[str, object] | None:
    try:
        found: Mapping[str, object] = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return found


def _copy(kept: Path, path: Path) -> None:
    shutil.copyfile(kept, path)
