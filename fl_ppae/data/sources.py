"""Finds the dataset for `data-source`: the official files, the user's own file, or the stand-in."""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

from fl_ppae.config import RunConfig, declared_in
from fl_ppae.data import standin
from fl_ppae.data.cache import Dataset, DataSource, obtain
from fl_ppae.data.checksums import file_md5, md5_of
from fl_ppae.data.download import DEFAULT_LIMITS, Limits, host_answers
from fl_ppae.data.npz import Arrays, read_npz
from fl_ppae.data.official import (
    combined_md5,
    data_root,
    download,
    inspect_files,
    read_official,
)
from fl_ppae.data.own_data import look_at, own_dataset
from fl_ppae.data.public import with_public_records
from fl_ppae.data.registry import spec_of
from fl_ppae.data.spec import DatasetSpec
from fl_ppae.declared import OWN_DATA
from fl_ppae.errors import UserError, printable
from fl_ppae.paths import file_problem, os_reason, path_of
from fl_ppae.steps import step

PUBLISHERS = ("medmnist", "torchvision")


def print_warning(text: str) -> None:
    """Print `text` to stderr."""
    print(text, file=sys.stderr, flush=True)


def resolve(
    config: RunConfig, warn: Callable[[str], None] = print_warning, limits: Limits = DEFAULT_LIMITS
) -> Dataset:
    """The dataset that `config` asks for, cached and memory-mapped; may download, within `limits`.

    Its validation split has `public-records` images; `open_cache` maps all of them. Call it once per run
    and pass on its `path` for `open_cache(path)`: a second `auto` could find a different source.

    Raises:
        UserError: one line naming the file, what is wrong and what would be right.
    """
    found = _found(config, warn, limits)
    return with_public_records(found, config.public_records, config.seed)


def _found(config: RunConfig, warn: Callable[[str], None], limits: Limits) -> Dataset:
    if config.dataset == OWN_DATA:
        own = look_at(path_of(config.data_file, "data-file"), declared_in(config))
        return own_dataset(own, config.any_way_up, warn)
    spec = spec_of(config)
    if config.data_source in PUBLISHERS and config.data_source != spec.publisher:
        raise UserError(
            f'data-source = "{config.data_source}" has no {spec.name}; '
            f'use "{spec.publisher}", "file" or "auto"'
        )
    root = data_root(spec, config.data_root)
    if config.data_source == "file":
        return _from_file(spec, path_of(config.data_file, "data-file"))
    if config.data_source == "stand-in":
        return _from_stand_in(spec)
    if config.data_source == "auto":
        return _auto(spec, root, warn, limits)
    if inspect_files(spec, root).state == "missing":
        download(spec, root, limits)
    return _from_official(spec, root)


def _auto(spec: DatasetSpec, root: Path, warn: Callable[[str], None], limits: Limits) -> Dataset:
    """The official files, downloaded if missing; or the stand-in if that fails."""
    found = inspect_files(spec, root)
    if found.state == "missing":
        if not host_answers(spec.urls[0]):
            warn(stand_in_warning(spec, f"{found.detail}, and {spec.host} does not answer", root))
            return _from_stand_in(spec)
        try:
            download(spec, root, limits)
        except UserError as error:
            warn(stand_in_warning(spec, str(error), root))
            return _from_stand_in(spec)
    return _from_official(spec, root)


def _from_official(spec: DatasetSpec, root: Path) -> Dataset:
    step(f"checking {spec.title}")
    found = inspect_files(spec, root)
    if found.state != "present":
        raise UserError(f"{found.detail}; move it away, or use it with data-source = file")
    name = spec.files[0].name if len(spec.files) == 1 else Path(spec.files[0].name).parts[0]
    source = DataSource(spec.title, spec.publisher, name, combined_md5(spec))
    return obtain(spec, source, lambda scratch: read_official(spec, root, scratch))


def _from_file(spec: DatasetSpec, path: Path) -> Dataset:
    if problem := file_problem(path):
        raise UserError(f"data-file: {problem}: {path}; it should be an .npz of {spec.title} images")
    try:
        source = DataSource(spec.title, "file", printable(path.name), file_md5(path))
    except OSError as error:
        raise UserError(f"data-file: {path} can't be read ({os_reason(error)})") from None

    def read(scratch: Path) -> Arrays:
        arrays = read_npz(path, spec, scratch)
        if file_md5(path) != source.md5:
            raise UserError(f"data-file: {path} changed while it was being read; start again")
        return arrays

    return obtain(spec, source, read)


def _from_stand_in(spec: DatasetSpec) -> Dataset:
    # The version of the images is the code that draws them: a change to it makes a new cache.
    source = DataSource(spec.title, "stand-in", "", md5_of(inspect.getsource(standin)))
    return obtain(spec, source, lambda _: standin.stand_in(spec))


def stand_in_warning(spec: DatasetSpec, reason: str, root: Path) -> str:
    """The framed warning that a run uses drawn images instead of real ones."""
    lines = [
        f"THIS RUN DOES NOT USE {spec.title.upper()}.",
        *textwrap.wrap(f"Why: {reason}.", 74),
        "It uses the stand-in: images drawn by fl-ppae itself. Its numbers say",
        f"nothing about {spec.title}, and every result is labelled as a stand-in.",
        *textwrap.wrap(f"For real data put the official files under {root}, or go online.", 74),
    ]
    width = max(map(len, lines))
    edge = "#" * (width + 4)
    return "\n".join([edge, *(f"# {line:<{width}} #" for line in lines), edge])
