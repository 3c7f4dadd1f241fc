"""Finds a simulation by name or folder, and parses `key=value` overrides of its configuration."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fl_ppae.config import RunConfig, Scalar
from fl_ppae.errors import UserError, did_you_mean
from fl_ppae.keys import kebab

PATH_KEYS = ("data-root", "data-file", "output-dir")


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
        for key in PATH_KEYS:
            if isinstance(path := values.get(key), str) and path:
                values[key] = str(Path(path).expanduser().absolute())
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
    directory = packaged.get(name_or_directory) or Path(name_or_directory).expanduser()
    if not directory.is_dir():
        raise UserError(
            f"no simulation {name_or_directory!r}, and no folder of that name"
            + did_you_mean(name_or_directory, packaged)
        )
    directory = directory.resolve()
    return Simulation(directory.name, directory, _values_of(directory))


def _values_of(path: Path) -> dict[str, Any]:
    """The `[tool.flwr.app.config]` table of a simulation's `pyproject.toml`.

    Raises:
        UserError: the file is missing, is no TOML, or has no such table.
    """
    file = path / "pyproject.toml"
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is no simulation: it has no pyproject.toml") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{file} is not valid TOML: {error}") from None
    try:
        values: dict[str, Any] = table["tool"]["flwr"]["app"]["config"]
    except KeyError:
        raise UserError(f"{file} has no [tool.flwr.app.config] table") from None
    return values


def parse_overrides(pairs: Iterable[str]) -> dict[str, Scalar]:
    """Parse `["target-epsilon=3", "dp-scope=encoder"]` into values of the keys' types.

    Raises:
        UserError: a pair has no `=`, a key is unknown, or a value has the wrong type.
    """
    return dict(_parse(pair) for pair in pairs)


def _parse(pair: str) -> tuple[str, Scalar]:
    key, equals, text = (part.strip() for part in pair.partition("="))
    if not equals:
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
