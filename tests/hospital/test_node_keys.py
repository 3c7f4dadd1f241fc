"""An operator's node config: what it may hold, and that no mistake in it goes unnoticed."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from flwr.common.config import parse_config_args

from fl_ppae.errors import UserError
from fl_ppae.hospital.ceilings import Limits, limits_of
from fl_ppae.hospital.identity import identify
from fl_ppae.hospital.node_keys import NodeKeys, read_node
from fl_ppae.keys import kebab

SIMULATED: dict[str, Any] = {"partition-id": 0, "num-partitions": 2}
DEPLOYED: dict[str, Any] = {**SIMULATED, "data-file": "own.npz", "max-epsilon": 8}
KEYS = [kebab(name) for name in NodeKeys.model_fields]


def test_a_nodes_identity_comes_from_its_own_configuration() -> None:
    simulated = identify(read_node(SIMULATED))
    assert (simulated.name, simulated.deployed) == ("hospital-0", False)
    named = identify(read_node({**DEPLOYED, "hospital": "St-Anna"}))
    assert (named.name, named.deployed) == ("St-Anna", True)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ({"max-epsilom": 8}, "'max-epsilom'; did you mean 'max-epsilon'?"),
        ({"max_epsilon": 8}, "'max_epsilon'; did you mean 'max-epsilon'?"),
        ({"data-fle": "own.npz"}, "'data-fle'; did you mean 'data-file'?"),
        ({"allow-plain-encoding": False}, "did you mean 'allow-plain-encodings'?"),
        ({"allowed-scope": "autoencoder"}, "did you mean 'allowed-scopes'?"),
        ({"max-epsilon": "8"}, "max-epsilon = '8': must be a number above 0 and at most 1e6, without quotes"),
        ({"max-epsilon": 0}, "must be a number above 0"),
        ({"max-epsilon-alone": 0}, "max-epsilon-alone = 0: must be a number above 0"),
        (
            {"max-epsilon-alone": 8, "allow-unlimited-epsilon": True},
            "contradicts max-epsilon-alone = 8; keep one",
        ),
        ({"max-epsilon": -1.0}, "must be a number above 0"),
        ({"max-epsilon": True}, "must be a number above 0"),
        ({"max-epsilon": float("nan")}, "must be a number above 0"),
        ({"max-epsilon": float("inf")}, "must be a number above 0"),
        ({"max-delta": 1.0}, "must be a number above 0 and below 1"),
        ({"max-delta": float("nan")}, "must be a number above 0 and below 1"),
        (
            {"allow-diagnostics": "false"},
            "diagnostics = 'false': must be true or false, without quotes",
        ),
        ({"allow-diagnostics": 0}, "must be true or false"),
        ({"allow-plain-encodings": "no"}, "must be true or false"),
        ({"allow-unlimited-epsilon": 1}, "must be true or false"),
        ({"allowed-scopes": ""}, 'must be one or more of "none, encoder, frozen-decoder, autoencoder"'),
        ({"allowed-scopes": "autoencoder, decoder"}, "must be one or more of"),
        ({"allowed-scopes": True}, "must be one or more of"),
        ({"allowed-encoders": "module"}, 'must be one or more "package.module:function"'),
        ({"data-file": ""}, "data-file = '': must be text in quotes"),
        ({"data-file": 7}, "must be text in quotes"),
        ({"state-dir": "/state"}, "state-dir is only used with data-file"),
        ({"site-dir": "/site"}, "site-dir is only used with data-file"),
        ({"ledger": "second"}, "ledger is only used with data-file"),
        ({"resize": 64}, "resize is only used with data-file"),
        ({**DEPLOYED, "intensity-range": "auto"}, "intensity-range = 'auto': must be two numbers"),
        ({**DEPLOYED, "resize": 64, "image-shape": "1,28,28"}, "resize = 64 contradicts image-shape"),
        ({"data-file": "own.npz"}, "a node with a data-file needs max-epsilon"),
        ({"data-file": "own.npz", "allow-unlimited-epsilon": False}, "needs max-epsilon"),
        ({"max-epsilon": 8, "allow-unlimited-epsilon": True}, "contradicts max-epsilon = 8"),
        ({"partition-id": -1}, "partition-id = -1: must be a whole number from 0"),
        ({"partition-id": "0"}, "must be a whole number from 0"),
        ({"num-partitions": True}, "must be a whole number from 1"),
    ],
)
def test_a_mistake_is_one_line_that_names_what_would_be_right(wrong: dict[str, Any], right: str) -> None:
    with pytest.raises(UserError) as told:
        read_node({**SIMULATED, **wrong})
    assert right in str(told.value)
    assert "\n" not in str(told.value)


def test_a_missing_number_names_the_command() -> None:
    with pytest.raises(UserError, match="has no num-partitions; start the SuperNode with --node-config"):
        read_node({"partition-id": 0})


@pytest.mark.parametrize("key", KEYS)
def test_every_key_refuses_a_value_of_another_type(key: str) -> None:
    for wrong in (b"8", [8], None if key.startswith(("partition", "num")) else {}, 2**0.5 * 1j):
        with pytest.raises(UserError, match=key):
            read_node({**DEPLOYED, key: wrong})  # type: ignore[dict-item]


def test_every_key_can_be_set() -> None:
    node = {
        **DEPLOYED,
        "hospital": "St-Anna",
        "image-shape": "1,64,64",
        "class-names": "normal,pneumonia",
        "intensity-range": "0,4095",
        "resize": 64,
        "max-unreadable": 3,
        "state-dir": "/state",
        "site-dir": "/site",
        "ledger": "second",
        "max-epsilon-alone": 20.0,
        "max-delta": 1e-6,
        "allowed-scopes": "autoencoder, frozen-decoder",
        "allow-plain-encodings": True,
        "allow-diagnostics": False,
        "allow-test-encodings": True,
        "allow-unlimited-epsilon": False,
        "allow-after-unprotected": True,
        "allow-new-keys": False,
        "allowed-encoders": "package.module:build",
    }
    assert set(node) == set(KEYS)
    keys = read_node(node)
    assert keys.allowed_scopes == ("autoencoder", "frozen-decoder")
    assert (keys.max_epsilon, keys.allow_plain_encodings, keys.allow_diagnostics) == (8.0, True, False)
    assert keys.max_epsilon_alone == 20.0


def documented() -> dict[str, list[str]]:
    """The rows of the table of node keys in docs/privacy.md: for each key valid values, defaults, meaning."""
    lines = (Path(__file__).parents[2] / "docs" / "privacy.md").read_text(encoding="utf-8").splitlines()
    start = lines.index("| key in the node config | value | deployed | simulated | meaning |") + 2
    rows = itertools.takewhile(lambda line: line.startswith("|"), lines[start:])
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    return {key.strip("`"): rest for key, *rest in cells}


def test_the_table_in_the_documentation_lists_every_key_as_the_code_reads_it() -> None:
    table = documented()
    assert list(table) == KEYS
    for key, (valid, _deployed, _simulated, meaning) in table.items():
        field = NodeKeys.model_fields[key.replace("-", "_")]
        assert field.json_schema_extra == {"valid": valid}
        assert field.description == meaning


def test_the_documented_command_starts_a_deployed_node() -> None:
    """Flower's own parser reads it."""
    page = (Path(__file__).parents[2] / "docs" / "privacy.md").read_text(encoding="utf-8")
    written = page.split("--node-config '")[1].split("'")[0]
    assert read_node(parse_config_args([written])).deployed


def test_the_table_in_the_documentation_gives_the_defaults() -> None:
    def in_words(limits: Limits, name: str) -> str:
        value = getattr(limits, name)
        if isinstance(value, bool):
            return str(value).lower()
        return ", ".join(value) if isinstance(value, tuple) else f"{value:g}"

    table = documented()
    defaults = [limits_of(read_node(node), 40_000) for node in (DEPLOYED, SIMULATED)]
    for name in ("allowed_scopes", "allow_plain_encodings", "allow_diagnostics", "allow_test_encodings"):
        assert table[kebab(name)][1:3] == [in_words(limits, name) for limits in defaults]
    assert [limits.max_delta for limits in defaults] == [min(1e-5, 1 / (10 * 40_000)), 1.0]
    assert table["max-delta"][1:3] == ["min(1e-5, 1 / (10 records))", "1"]
    assert table["max-epsilon"][1:3] == ["required", "none"]
    assert table["allow-unlimited-epsilon"][1:3] == ["false", "false"]
