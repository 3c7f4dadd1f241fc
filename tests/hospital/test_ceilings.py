"""A hospital's limits hold, whatever the run's configuration asks for, and a refusal names the limit."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from support import SMALL, write_npz

from fl_ppae import client_app, message_arrays, messages
from fl_ppae.config import RunConfig
from fl_ppae.errors import UserError
from fl_ppae.hospital.ceilings import limits_of, refusal
from fl_ppae.hospital.node_keys import read_node
from fl_ppae.keys import kebab
from fl_ppae.models.build import autoencoder_of
from fl_ppae.privacy.accounting import epsilon, replace_one_epsilon
from fl_ppae.privacy.events import updates
from fl_ppae.privacy.ledger import read_ledger
from fl_ppae.simulation.in_process import InProcessGrid

SIMULATED: dict[str, Any] = {"partition-id": 0, "num-partitions": 1}
DEPLOYED: dict[str, Any] = {**SIMULATED, "data-file": "own.npz", "max-epsilon": 8}
NOISED = {"share": "updates+encodings", "encoding-noise-epsilon": 4.0, "label-epsilon": 2.0}
RECORDS = 1000


def reason(node: dict[str, Any], run: dict[str, Any], records: int = RECORDS) -> str:
    return refusal(limits_of(read_node(node), records), RunConfig.from_flat(run))


@pytest.mark.parametrize(
    ("node", "run", "words"),
    [
        ({}, {}, ""),
        ({}, {"target-epsilon": 8.1}, "asks for target-epsilon = 8.1; this hospital has max-epsilon = 8"),
        (
            {},
            {"target-delta": 1.1e-5},
            "target-delta = 1.1e-05; this hospital has max-delta = 1e-05",
        ),
        ({"max-delta": 1e-4}, {"target-delta": 1e-4}, ""),
        ({"max-delta": 1e-6}, {}, "this hospital has max-delta = 1e-06"),
        (
            {},
            {"dp-scope": "none"},
            "dp-scope = none; this hospital has allowed-scopes = frozen-decoder",
        ),
        ({}, {"dp-scope": "encoder"}, "dp-scope = encoder; this hospital has allowed-scopes"),
        ({}, {"dp-scope": "frozen-decoder"}, ""),
        ({"allowed-scopes": "encoder"}, {"dp-scope": "encoder"}, ""),
        ({"allowed-scopes": "encoder"}, {}, "dp-scope = autoencoder; this hospital has allowed-scopes = enc"),
        (
            {"allowed-scopes": "none"},
            {"dp-scope": "none"},
            "infinite epsilon; this hospital has max-epsilon = 8",
        ),
        ({}, {"diagnostics": True}, "diagnostics; this hospital has allow-diagnostics = false"),
        ({"allow-diagnostics": True}, {"diagnostics": True}, ""),
        ({}, {"share": "encodings"}, "plain encodings and labels; this hospital has allow-plain-encodings"),
        ({}, {**NOISED, "label-epsilon": 0.0}, "plain labels; this hospital has allow-plain-encodings = fal"),
        ({}, {**NOISED, "encoding-noise-epsilon": 0.0}, "plain encodings; this hospital has allow-plain-enc"),
        ({}, NOISED, ""),
        ({"allow-plain-encodings": True}, {"share": "updates+encodings"}, ""),
    ],
)
def test_a_deployed_hospital_allows_what_is_formal_and_what_its_operator_names(
    node: dict[str, Any], run: dict[str, Any], words: str
) -> None:
    found = reason({**DEPLOYED, **node}, run)
    assert words in found
    assert bool(found) == bool(words)


JOINT = {
    "noise": "joint",
    "protection": "secagg",
    "local-steps": 1,
    "sample-rate": 0.1,
    "honest-hospitals": 3,
    "dp-scope": "frozen-decoder",
}


@pytest.mark.parametrize(
    ("node", "run", "words"),
    [
        (DEPLOYED, JOINT, "joint noise, .*; this hospital has no max-epsilon-alone, the most that its"),
        ({**DEPLOYED, "max-epsilon-alone": 20.0}, JOINT, ""),
        ({**DEPLOYED, "max-epsilon-alone": 20.0}, {**JOINT, "target-epsilon": 8.1}, "has max-epsilon = 8"),
        ({**DEPLOYED, "max-epsilon-alone": 4.0}, JOINT, "target-epsilon = 8; .* has max-epsilon-alone = 4"),
        (DEPLOYED, {}, ""),
        ({**SIMULATED, "data-file": "own.npz", "allow-unlimited-epsilon": True}, JOINT, ""),
        (SIMULATED, JOINT, ""),
        ({**SIMULATED, "max-epsilon-alone": 4.0}, {"dp-scope": "encoder"}, "allowed-scopes"),
    ],
)
def test_joint_noise_takes_a_ceiling_for_the_case_that_all_others_collude(
    node: dict[str, Any], run: dict[str, Any], words: str
) -> None:
    found = reason(node, run)
    assert re.search(words, found)
    assert bool(found) == bool(words)


@pytest.mark.parametrize(("records", "largest"), [(100, 1e-5), (10_000, 1e-5), (40_000, 2.5e-6)])
def test_a_deployed_hospitals_delta_follows_its_number_of_records(records: int, largest: float) -> None:
    assert reason(DEPLOYED, {"target-delta": largest}, records) == ""
    assert "max-delta" in reason(DEPLOYED, {"target-delta": 1.01 * largest}, records)
    assert "max-delta" in reason(DEPLOYED, {"target-delta": 0.99 / records}, records)


@pytest.mark.parametrize(
    ("node", "run", "words"),
    [
        ({}, {"dp-scope": "none", "share": "encodings", "diagnostics": True, "target-delta": 0.5}, ""),
        ({"max-epsilon": 1.5}, {}, "max-epsilon = 1.5"),
        ({"max-epsilon": 8}, {}, ""),
        ({"max-epsilon": 1e6}, {"dp-scope": "none"}, "allowed-scopes = frozen-decoder, autoencoder"),
        ({"max-epsilon": 1e6}, {"dp-scope": "encoder"}, "allowed-scopes"),
        ({"max-delta": 1e-6}, {}, "max-delta = 1e-06"),
        ({"allowed-scopes": "autoencoder, frozen-decoder"}, {"dp-scope": "encoder"}, "allowed-scopes"),
        ({"allow-plain-encodings": False}, {"share": "encodings"}, "plain encodings and labels"),
        ({"allow-plain-encodings": False}, {}, ""),
        ({"allow-diagnostics": False}, {"diagnostics": True}, "allow-diagnostics"),
    ],
)
def test_a_simulated_hospital_allows_everything_but_obeys_the_same_keys(
    node: dict[str, Any], run: dict[str, Any], words: str
) -> None:
    found = reason({**SIMULATED, **node}, run)
    assert words in found
    assert bool(found) == bool(words)


def test_no_configuration_gets_a_deployed_hospital_to_more_than_its_limits() -> None:
    """A grid over every key that costs privacy; only what is formal and within both ceilings is accepted."""
    limits = limits_of(read_node(DEPLOYED), RECORDS)
    accepted = 0
    for scope, target, delta, diagnostics, (share, encoding, label) in itertools.product(
        ("none", "encoder", "frozen-decoder", "autoencoder"),
        (0.1, 8.0, 8.01, 1e3),
        (1e-9, 1e-5, 1.01e-5, 1e-3, 0.99),
        (False, True),
        (
            ("updates", 0.0, 0.0),
            ("encodings", 4.0, 2.0),
            ("updates+encodings", 4.0, 0.0),
            ("encodings", 0.0, 2.0),
        ),
    ):
        config = RunConfig.from_flat(
            {
                "dp-scope": scope,
                "target-epsilon": target,
                "target-delta": delta,
                "diagnostics": diagnostics,
                "share": share,
                "encoding-noise-epsilon": encoding,
                "label-epsilon": label,
            }
        )
        within = (
            scope in ("frozen-decoder", "autoencoder")
            and target <= 8
            and delta <= 1e-5
            and not diagnostics
            and (share == "updates" or (encoding > 0 and label > 0))
        )
        assert bool(refusal(limits, config)) != within
        accepted += within
    assert accepted == 2 * 2 * 2 * 2


@pytest.mark.parametrize(
    "key", ["target-epsilon", "target-delta", "max-grad-norm", "noise-multiplier", "label-epsilon"]
)
def test_a_privacy_key_of_another_type_or_beyond_every_range_is_no_configuration(key: str) -> None:
    for wrong in ("8", True, float("nan"), float("inf"), -1.0, 1e7, [1.0], None):
        with pytest.raises(UserError, match=key):
            RunConfig.from_flat({key: wrong})
    RunConfig.from_flat({key: 0.5, "share": "encodings"})


@pytest.mark.parametrize("key", ["dp-scope", "share", "diagnostics", "batch-size", "local-epochs"])
def test_a_key_that_changes_what_leaves_takes_no_value_of_another_type(key: str) -> None:
    for wrong in (0.5, "yes", 1.0, float("nan"), None):
        with pytest.raises(UserError, match=key):
            RunConfig.from_flat({key: wrong})


class Asked:
    """A deployed hospital of 117 records, and a server that sends it whatever configuration it likes."""

    def __init__(self, folder: Path, **node: Any) -> None:
        self.state = folder / "state"
        data = {"data-file": str(write_npz(folder / "own.npz", 130)), "state-dir": str(self.state)}
        data["site-dir"] = str(folder / "site")
        self.node = {**SIMULATED, **data, "max-epsilon": 8, "max-delta": 1e-3, **node}
        self.start()

    def start(self, **run: Any) -> None:
        """Submit another run."""
        formal = {**SMALL, "data-source": "auto", "noise-multiplier": 0.0, "target-epsilon": 4.0}
        self.config = RunConfig.from_flat({**formal, **{kebab(key): value for key, value in run.items()}})
        self.grid = InProcessGrid(client_app.app, self.config.to_flat(), [self.node])

    def ask(self, kind: str, **values: Any) -> Message:
        encoder = message_arrays.to_arrays(autoencoder_of(self.config).encoder.state_dict())
        asked = RecordDict({messages.CONFIG: ConfigRecord(values)})
        if kind != messages.ENROL:
            asked[messages.ARRAYS] = encoder
        (node,) = self.grid.get_node_ids()
        (reply,) = self.grid.send_and_receive([Message(asked, dst_node_id=node, message_type=kind)])
        return reply

    def everything(self) -> Iterator[Message]:
        """Every request a server can make, each twice."""
        for _ in range(2):
            yield self.ask(messages.ENROL)
            for server_round in (1, 2, 10_000):
                yield self.ask(messages.TRAIN, **{"server-round": server_round})
            for part in ("train", "test"):
                yield self.ask(messages.ENCODINGS, part=part, chunk=0)
            yield self.ask(messages.EVALUATE, **{"server-round": 1})

    def spent(self) -> tuple[float, float]:
        """Epsilon of the updates, and of everything under replace-one; 0 without a ledger."""
        path = self.state / "ledger.jsonl"
        events = read_ledger(path).events if path.exists() else ()
        return epsilon(updates(events), 1e-3).spent, replace_one_epsilon(events, 1e-3)


def told_nothing(reply: Message) -> bool:
    """True if a reply holds no array and no loss."""
    if not reply.has_content():
        return True
    losses = [metrics for metrics in reply.content.metric_records.values() if "loss" in metrics]
    return not reply.content.array_records and not losses


@pytest.mark.parametrize(
    "run",
    [
        {"target_epsilon": 1e3},
        {"target_delta": 0.99 / 117},
        {"noise_multiplier": 0.2},
        {"share": "updates+encodings"},
        {"share": "encodings"},
        {"share": "encodings", "label_epsilon": 100.0},
        {"diagnostics": True},
        {"dp_scope": "none"},
        {"dp_scope": "encoder"},
        {
            "dp_scope": "none",
            "target_epsilon": 1e3,
            "target_delta": 0.99 / 117,
            "noise_multiplier": 0.2,
            "share": "updates+encodings",
            "diagnostics": True,
            "num_server_rounds": 10_000,
        },
    ],
)
def test_a_run_that_asks_for_too_much_gets_nothing_whatever_it_sends(
    run: dict[str, Any], tmp_path: Path
) -> None:
    hospital = Asked(tmp_path)
    hospital.start(**run)
    assert all(told_nothing(reply) for reply in hospital.everything())
    assert hospital.spent() == (0.0, 0.0)


def test_a_run_within_the_limits_gets_its_updates(tmp_path: Path) -> None:
    hospital = Asked(tmp_path)
    assert any(not told_nothing(reply) for reply in hospital.everything())
    assert 0 < hospital.spent()[0] <= 8


@pytest.mark.parametrize(
    ("noise", "reason"),
    [
        ({"encoding_noise_epsilon": 7.0}, "above this hospital's max-epsilon = 8"),
        ({"label_epsilon": 7.0}, "above this hospital's max-epsilon = 8"),
        ({"encoding_noise_epsilon": 1e3}, "encoding-noise-epsilon = 1000; this hospital has max-epsilon = 8"),
        ({"label_epsilon": 100.0}, "label-epsilon = 100; this hospital has max-epsilon = 8"),
    ],
)
def test_the_ceiling_covers_encodings_and_labels_too(
    noise: dict[str, float], reason: str, tmp_path: Path
) -> None:
    """Alone or together with the training they pass the ceiling; what does so alone costs no accounting."""
    hospital = Asked(tmp_path)
    noised = {"encoding_noise_epsilon": 0.1, "label_epsilon": 0.1, "projection_size": 4, **noise}
    hospital.start(share="updates+encodings", target_epsilon=4.0, **noised)
    replies = list(hospital.everything())
    assert reason in str(replies[0].content["claim"]["reason"])
    uploads = [reply for reply in replies if reply.metadata.message_type == messages.ENCODINGS]
    assert all(map(told_nothing, uploads))
    assert hospital.spent()[1] <= 8


def test_many_rounds_requests_and_runs_never_pass_the_ceiling(tmp_path: Path) -> None:
    """The server ignores what the hospital says at enrolment, and goes on asking."""
    hospital = Asked(tmp_path)
    for target in (4.0, 8.0, 8.0):
        hospital.start(target_epsilon=target, num_server_rounds=3)
        list(hospital.everything())
        assert hospital.spent()[0] <= 8
    assert hospital.spent()[0] > 4


def test_a_run_that_would_pass_the_ceiling_is_declined_before_it_starts(tmp_path: Path) -> None:
    """Updates alone: the second run fits the ceiling by itself, but not on top of the first."""
    hospital = Asked(tmp_path)
    for server_round in (1, 2):
        hospital.ask(messages.TRAIN, **{"server-round": server_round})
    assert hospital.ask(messages.ENROL).content["claim"]["status"] == "ready", "its own rounds count once"
    hospital.start(target_epsilon=7.9)
    claim = hospital.ask(messages.ENROL).content["claim"]
    assert claim["status"] == "declined"
    assert "above this hospital's max-epsilon = 8" in str(claim["reason"])
    hospital.start(target_epsilon=3.0)
    assert hospital.ask(messages.ENROL).content["claim"]["status"] == "ready"
