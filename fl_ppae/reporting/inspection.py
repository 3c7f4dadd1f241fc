"""What `fl-ppae data check` found, as tables and lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from fl_ppae.config import RunConfig
from fl_ppae.data.check import Inspection
from fl_ppae.data.npz import SPLITS
from fl_ppae.errors import printable

_CLASSES = 20  # more are in the JSON alone


def inspection_tables(
    found: Inspection, costs: Sequence[Mapping[str, Any]], config: RunConfig
) -> list[RenderableType]:
    """What is there, what is wrong, and what a hospital of this size would pay in a run of `config`."""
    lines: list[RenderableType] = [Text(f"wrong: {text}", style="bold red") for text in found.wrong]
    lines += [Text(f"warning: {text}", style="yellow") for text in found.warnings]
    if found.counts:
        lines = [f"records in {printable(str(found.path))}", _counts(found), *_facts(found), *lines]
    if not costs:
        return [*lines, Text("can't be used as it is", style="bold red")]
    heading = (
        f"what epsilon takes of a hospital's own noise: {config.num_server_rounds} rounds of "
        f"{config.local_epochs} epochs, batches of {config.batch_size}; updates alone, a record as the unit"
    )
    return [*lines, heading, _costs(costs), Text("can be used", style="green"), *_keys(found)]


def _counts(found: Inspection) -> Table:
    table = _table("class", *SPLITS)
    classes = list(found.counts["train"])
    for name in classes[:_CLASSES]:
        table.add_row(name, *(f"{found.counts[split][name]:,}" for split in SPLITS))
    if len(classes) > _CLASSES:
        table.add_row(f"{len(classes) - _CLASSES} more", *("" for _ in SPLITS))
    table.add_row("all", *(f"{found.records[split]:,}" for split in SPLITS), style="bold")
    return table


def _facts(found: Inspection) -> list[str]:
    channels, height, width = found.keys["image-shape"].split(",")
    facts = [f"images: {height} x {width} pixels, {channels} channels"]
    if found.intensities is not None:
        low, high = found.intensities
        facts.append(f"pixels as stored: {low:g} to {high:g}; no run uses this range, see intensity-range")
    if found.hospitals:
        sizes = [
            f"hospital-{number} is {name} ({size:,} train records)"
            for number, (name, size) in enumerate(found.hospitals.items())
        ]
        facts.append(f"hospitals, for partition = natural: {'; '.join(sizes)}")
    if found.patients is not None:
        facts.append(f"patients: {found.patients:,}; none is divided between splits")
    if found.sites:
        facts.append(
            f"sites: {', '.join(f'{name} ({size:,} records)' for name, size in found.sites.items())}"
        )
    return facts


def _costs(costs: Sequence[Mapping[str, Any]]) -> Table:
    table = _table("hospital", "records", "epsilon", "delta", "noise", "sample rate", "steps")
    for row in costs:
        noise, rate = f"{row['noise_multiplier']:.3f}", f"{row['sample_rate']:.4f}"
        numbers = (f"{row['records']:,}", f"{row['epsilon']:g}", f"{row['delta']:.1e}", noise, rate)
        table.add_row(row["hospital"], *numbers, f"{row['steps']:,}")
    return table


def _keys(found: Inspection) -> list[str]:
    keys = " ".join(f"{key}={value!r}" for key, value in found.keys.items())
    return [f"flwr run and deployed hospitals need these keys, fl-ppae run finds them itself: {keys}"]


def _table(*columns: str) -> Table:
    table = Table(header_style="bold")
    for column in columns:
        table.add_column(
            column, justify="left" if column in ("class", "hospital") else "right", overflow="fold"
        )
    return table
