"""Every key that an operator may write in a node's config, with its type, range and meaning.

The node config is the hospital's own: no run and no message can change it. Keys are kebab-case, as in
`--node-config 'partition-id=0 num-partitions=2 data-file="own.npz" max-epsilon=8'`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from fl_ppae.declared import DECLARING_KEYS, declared
from fl_ppae.errors import UserError, did_you_mean
from fl_ppae.hospital.ledgers import MAIN
from fl_ppae.keys import OWN_ENCODER, kebab
from fl_ppae.privacy.budget import Ceilings
from fl_ppae.privacy.scopes import SCOPES

NodeConfig = Mapping[str, bool | int | float | str]
"""A node's config as Flower passes it."""

_TRUTH = "true or false, without quotes"
_TEXT = "text in quotes"


def _key(default: Any, valid: str, meaning: str, **bounds: Any) -> Any:
    """A key of a node config. `valid` says in words what its type and `bounds` demand."""
    return Field(default, description=meaning, json_schema_extra={"valid": valid}, **bounds)


class NodeKeys(BaseModel):
    """One node's config, checked. None: not set, so `ceilings.limits_of` decides."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, alias_generator=kebab)

    partition_id: int = _key(..., "a whole number from 0", "the hospital's number", ge=0)
    num_partitions: int = _key(..., "a whole number from 1", "how many hospitals there are", ge=1)
    hospital: str | None = _key(None, _TEXT, "the hospital's name", min_length=1)
    data_file: str | None = _key(
        None,
        _TEXT,
        'its records: an `.npz`, or for `dataset = "custom"` a folder or manifest; a node that has one is '
        "deployed",
        min_length=1,
    )
    image_shape: str = _key(
        "", _TEXT, "of [its own images](own_data.md), as the run's key; empty: as in its data file"
    )
    class_names: str = _key("", _TEXT, "the classes of its own images, as the run's key")
    intensity_range: str = _key("", _TEXT, "its own images' values of black and white, as the run's key")
    resize: int = _key(0, "a whole number from 0", "the side of its own images, as the run's key", ge=0)
    max_unreadable: int = _key(
        0, "a whole number from 0", "how many of its own files may be left out, as the run's key", ge=0
    )
    state_dir: str | None = _key(None, _TEXT, "where a deployed node keeps its ledgers", min_length=1)
    site_dir: str | None = _key(
        None, _TEXT, "where it keeps what guards them: counters, key, digests of records", min_length=1
    )
    ledger: str = _key(MAIN, _TEXT, "the ledger of its data file, opened with `fl-ppae ledger`", min_length=1)
    max_epsilon: float | None = _key(
        None,
        "a number above 0 and at most 1e6, without quotes",
        "the most that its records may spend, in all runs together",
        gt=0,
        le=1e6,
    )
    max_epsilon_alone: float | None = _key(
        None,
        "a number above 0 and at most 1e6, without quotes",
        "the same if all other hospitals collude; a deployed node declines joint noise without it",
        gt=0,
        le=1e6,
    )
    allow_unlimited_epsilon: bool = _key(
        False, _TRUTH, "a deployed node may have no `max-epsilon` and no `max-epsilon-alone`"
    )
    max_delta: float | None = _key(
        None, "a number above 0 and below 1, without quotes", "the largest `target-delta`", gt=0, lt=1
    )
    allowed_scopes: tuple[str, ...] | None = _key(
        None, f'one or more of "{", ".join(SCOPES)}", with commas, in quotes', "each `dp-scope` that may run"
    )
    allow_plain_encodings: bool | None = _key(
        None, _TRUTH, "encodings or their labels may leave without noise"
    )
    allow_diagnostics: bool | None = _key(None, _TRUTH, "losses and clipping may leave without noise")
    allow_test_encodings: bool | None = _key(
        None, _TRUTH, "encodings of the test part may leave, and its number of records"
    )
    allow_after_unprotected: bool = _key(
        False, _TRUTH, "under `max-epsilon`, records may be used after a release without a guarantee"
    )
    allowed_encoders: tuple[str, ...] = _key(
        (),
        'one or more "package.module:function", with commas, in quotes',
        "each `encoder` whose code a deployed node may import; no run can name another",
    )
    allow_new_keys: bool = _key(
        True,
        _TRUTH,
        "hospitals whose signing keys are not pinned yet may take part in masked rounds, which pins them",
    )

    @field_validator("allowed_scopes", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        scopes = tuple(scope.strip() for scope in value.split(",")) if isinstance(value, str) else ()
        if not set(scopes) <= SCOPES.keys() or not scopes:
            raise ValueError
        return scopes

    @field_validator("allowed_encoders", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        names = tuple(name.strip() for name in value.split(",")) if isinstance(value, str) else ()
        if not all(re.fullmatch(OWN_ENCODER, name) for name in names) or not names:
            raise ValueError
        return names

    @model_validator(mode="after")
    def _values_fit_together(self) -> Self:
        only_deployed = {"state-dir": self.state_dir, "site-dir": self.site_dir, "ledger": self.ledger}
        for key, value in only_deployed.items():
            if value not in (None, MAIN) and not self.deployed:
                raise ValueError(
                    f"{key} is only used with data-file; a simulation keeps the state in the run"
                )
        for key in DECLARING_KEYS:
            if getattr(self, key.replace("-", "_")) and not self.deployed:
                raise ValueError(f"{key} is only used with data-file; in a simulation it is a key of the run")
        declared(self.image_shape, self.class_names, self.intensity_range, self.resize, self.max_unreadable)
        for key, ceiling in Ceilings(self.max_epsilon, self.max_epsilon_alone).set_ones().items():
            if self.allow_unlimited_epsilon:
                raise ValueError(f"allow-unlimited-epsilon = true contradicts {key} = {ceiling:g}; keep one")
        if self.deployed and self.max_epsilon is None and not self.allow_unlimited_epsilon:
            raise ValueError(
                "a node with a data-file needs max-epsilon, the most that its records may spend, such as "
                "max-epsilon=8; only allow-unlimited-epsilon=true goes without"
            )
        return self

    @property
    def deployed(self) -> bool:
        """True if the node has records of its own."""
        return self.data_file is not None


def read_node(config: NodeConfig) -> NodeKeys:
    """The node's config, checked.

    Raises:
        UserError: one line naming the first wrong key or value and what would be right. A misspelled limit is
            an error, never ignored.
    """
    known = [kebab(name) for name in NodeKeys.model_fields]
    for key in config:
        if key not in known:
            raise UserError(f"the node config has an unknown key {key!r}{did_you_mean(key, known)}")
    try:
        return NodeKeys.model_validate(dict(config))
    except ValidationError as error:
        raise UserError(_in_one_line(error, config)) from None


def _in_one_line(error: ValidationError, config: NodeConfig) -> str:
    first = error.errors()[0]
    if not first["loc"]:
        return f"the node config is wrong: {first['ctx']['error']}"
    key = str(first["loc"][0])
    if key not in config:
        return (
            f"the node config has no {key}; start the SuperNode with "
            '--node-config "partition-id=0 num-partitions=2"'
        )
    valid = NodeKeys.model_fields[key.replace("-", "_")].json_schema_extra
    assert isinstance(valid, dict)  # every field is made by `_key`
    return f"the node config has {key} = {config[key]!r}: must be {valid['valid']}"
