"""`fl-ppae data check` and `data make-example`: a user's own images before any run uses them."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from fl_ppae.catalogue import parse_overrides
from fl_ppae.commands.output import show
from fl_ppae.config import RunConfig, declared_in
from fl_ppae.declared import OWN_DATA
from fl_ppae.errors import UserError, printable
from fl_ppae.files import home
from fl_ppae.paths import check_can_hold_files, path_of
from fl_ppae.steps import step

EPSILONS = (1.0, 3.0, 8.0)
_USER_MISTAKE = 2


def check(arguments: argparse.Namespace) -> int:
    """Say what is at a path and what is wrong with it; 2 if a run can't use it."""
    from fl_ppae.data.check import inspect
    from fl_ppae.reporting.inspection import inspection_tables

    path = path_of(arguments.path, "PATH")
    given = {**parse_overrides(arguments.overrides), "dataset": OWN_DATA, "data-file": arguments.path}
    config = RunConfig.from_flat(given)
    cache = home() / "cache"
    check_can_hold_files(cache, "FL_PPAE_HOME")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".check-") as scratch:
        found = inspect(path, declared_in(config), Path(scratch))
    costs = [] if found.wrong else _costs(found.records["train"], found.hospitals, config)
    document = {**found.document(), "privacy": costs}
    show(document, inspection_tables(found, costs, config), as_json=arguments.json)
    return _USER_MISTAKE if found.wrong else 0


def make_example(arguments: argparse.Namespace) -> int:
    """Write the same drawn images as a folder, a manifest and DICOM files."""
    from fl_ppae.data.example import example_arrays, write_dicom, write_folder, write_manifest

    root = path_of(arguments.folder, "FOLDER")
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UserError(f"{root} is there already and not empty; name another folder")
    check_can_hold_files(root, "FOLDER")
    arrays, names = example_arrays()
    written = {
        "folder": write_folder(arrays, names, root / "folder"),
        "manifest": write_manifest(arrays, names, root / "manifest", ("Mitte", "Nord", "West")),
    }
    try:
        written["dicom"] = write_dicom(arrays, names, root / "dicom")
        note = ""
    except ImportError:
        note = 'no DICOM files: that needs pydicom; pip install "fl-ppae[dicom]"'
    records = sum(len(arrays[f"{split}_labels"]) for split in ("train", "val", "test"))
    lines: list[RenderableType] = [f"{records} drawn images, the same in each:"]
    lines += [f"  {printable(str(path))}" for path in written.values()]
    lines += [note] if note else []
    lines.append(f"to use them: fl-ppae run own_data -c data-file={printable(str(written['folder']))}")
    document = {"records": records, "note": note, **{kind: str(path) for kind, path in written.items()}}
    show(document, lines, as_json=arguments.json)
    return 0


def _costs(records: int, hospitals: dict[str, int], config: RunConfig) -> list[dict[str, Any]]:
    """What the smallest and the largest hospital would need for each of `EPSILONS`, in a run of `config`."""
    from fl_ppae.privacy.plan import plan_hospital

    step("computing what epsilon takes")
    named = hospitals or {"all train records as one hospital": records}
    smallest, largest = min(named, key=lambda name: named[name]), max(named, key=lambda name: named[name])
    rows = []
    for name in dict.fromkeys((smallest, largest)):
        # Below 1 / records by far, as a delta must be.
        delta = min(config.target_delta, 0.1 / max(named[name], 1))
        for epsilon in EPSILONS:
            asked = config.model_copy(update={"target_epsilon": epsilon, "target_delta": delta})
            plan = plan_hospital(name, named[name], asked)
            rows.append(
                {
                    "hospital": name,
                    "records": plan.records,
                    "epsilon": epsilon,
                    "delta": delta,
                    "noise_multiplier": plan.noise_multiplier,
                    "sample_rate": plan.sample_rate,
                    "steps": plan.steps_per_round * plan.rounds,
                    "spent": plan.epsilon_total,
                }
            )
    return rows
