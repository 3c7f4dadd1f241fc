"""Finds a simulation by name or folder, and parses `key=value` overrides of its configuration."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fl_ppae.config import PUBLIC, RANDOM, RunConfig, Scalar
from fl_ppae.errors import UserError, did_you_mean, printable
from fl_ppae.keys import kebab
from fl_ppae.paths import FILE, FOLDER, MISSING, file_problem, kind_of, os_reason, path_of, path_text

_PATH_KEYS = ("data-root", "data-file", "output-dir", "start")
_CONFIG = ("tool", "flwr", "app", "config")


@dataclass(frozen=True)
class Simulation:
    """A Flower app that consists of its configuration alone."""

    name: str
    directory: Path
    values: Mapping[str, Any]

    def config(self, overrides: Mapping[str, Scalar]) -> RunConfig:
        """The run's configuration: the simulation's values with `overrides`, and absolute paths.

        Raises:
            UserError: a key or value is wrong.
        """
        values = {**self.values, **overrides}
        for key in keys_of_paths(values):
            values[key] = path_text(path_of(values[key], key))
        return RunConfig.from_flat(values)

    def check_listed(self, keys: Iterable[str]) -> None:
        """Refuse to override a key that the simulation's file doesn't list, as Flower does.

        Raises:
            UserError: names the first such key.
        """
        for key in keys:
            if key not in self.values:
                file = self.directory / "pyproject.toml"
                raise UserError(f"{file} has to list {key}: Flower overrides only listed keys")


def keys_of_paths(values: Mapping[str, Any]) -> list[str]:
    """The keys of `values` that hold a path."""
    texts = {key: value for key in _PATH_KEYS if isinstance(value := values.get(key), str) and value}
    return [key for key, value in texts.items() if key != "start" or value not in (RANDOM, PUBLIC)]


def available() -> dict[str, Path]:
    """The simulations that come with fl-ppae, by name."""
    package = Path(__file__).parent
    packaged = package / "simulations"  # in a wheel; in a checkout they are beside the package
    folder = packaged if packaged.is_dir() else package.parent / "simulations"
    return {file.parent.name: file.parent for file in sorted(folder.glob("*/pyproject.toml"))}


def find(name_or_directory: str) -> Simulation:
    """The simulation of this name, or the one in this folder.

    Raises:
        UserError: neither exists.
    """
    packaged = available()
    directory = packaged.get(name_or_directory) or path_of(name_or_directory, "simulation")
    kind = kind_of(directory)
    if kind == FILE:
        raise UserError(f"{directory} is a file; give the folder that holds pyproject.toml")
    if kind == MISSING:
        raise UserError(
            f"no simulation {name_or_directory!r}, and no folder of that name"
            + did_you_mean(name_or_directory, packaged)
        )
    if kind != FOLDER:
        raise UserError(f"{directory}: {kind}; give the folder of a simulation")
    directory = directory.resolve()
    return Simulation(printable(directory.name), directory, _values_of(directory))


def _values_of(path: Path) -> dict[str, Any]:
    """The `[tool.flwr.app.config]` table of a simulation's `pyproject.toml`.

    Raises:
        UserError: the file can't be read, is no TOML, or has no such table.
    """
    file = path / "pyproject.toml"
    problem = file_problem(file)
    if problem == MISSING:
        raise UserError(f"{path} is no simulation: it has no pyproject.toml")
    if problem:
        raise UserError(f"{file}: {problem}")
    values: dict[str, Any] = _parsed(file)
    for depth, key in enumerate(_CONFIG, 1):
        if key not in values:
            raise UserError(f"{file} has no [{'.'.join(_CONFIG)}] table")
        values = values[key]
        if not isinstance(values, dict):
            raise UserError(f"{file}: {'.'.join(_CONFIG[:depth])} must be a table, not {values!r:.40}")
    return values


def _parsed(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8-sig")  # some editors begin UTF-8 with a byte order mark
    except UnicodeDecodeError:
        raise UserError(f"{file} is not UTF-8 text; save it again with that encoding") from None
    except OSError as error:
        raise UserError(f"{file} can't be read ({os_reason(error)})") from None
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise UserError(f"{file} is not valid TOML: lists or tables are nested too deeply") from None
    except ValueError as error:  # a TOMLDecodeError, or a number of too many digits
        raise UserError(f"{file} is not valid TOML: {error}") from None


def parse_overrides(pairs: Iterable[str]) -> dict[str, Scalar]:
    """Parse `["target-epsilon=3", "dp-scope=encoder"]` into values of the keys' types.

    Raises:
        UserError: a pair has no `=`, a key is unknown, or a value has the wrong type.
    """
    return dict(_parse(pair) for pair in pairs)


def _parse(pair: str) -> tuple[str, Scalar]:
    key, equals, text = (part.strip() for part in pair.partition("="))
    if not (key and equals):
        raise UserError(f"-c {pair!r} is not key=value")
    fields = {kebab(name): field for name, field in RunConfig.model_fields.items()}
    if key not in fields:
        raise UserError(f"unknown key {key!r}{did_you_mean(key, fields)}")
    kind = type(fields[key].default)
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1]
    try:
        if kind is bool:
            return key, {"true": True, "false": False}[text.lower()]
        value: Scalar = kind(text)
    except (KeyError, ValueError):
        wanted = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
        raise UserError(f"{key} = {text!r}: must be {wanted}") from None
    return key, value
