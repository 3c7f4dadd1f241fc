"""Noised encodings and labels in whole runs: paid before drawn, made once, and worth what is printed."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message
from support import Run, simulated_nodes, write_npz

from fl_ppae.config import RunConfig
from fl_ppae.errors import UserError
from fl_ppae.hospital import release
from fl_ppae.messages import CLAIM, ENCODINGS, TRAIN
from fl_ppae.privacy.accounting import epsilon, replace_one_epsilon
from fl_ppae.privacy.budget import over_ceiling, over_target
from fl_ppae.privacy.events import Gaussian, PoissonGaussian, RandomisedResponse, from_dict
from fl_ppae.privacy.ledger import Ledger, Terms, UploadTerms, open_run, read_ledger
from fl_ppae.privacy.plan import plan_hospital
from fl_ppae.simulation.in_process import InProcessGrid
from strategies.server_ledger import EXCLUDED, Account, ServerLedger

NOISED = {"encoding_noise_epsilon": 4.0, "label_epsilon": 2.0, "projection_size": 5}
UPLOAD = UploadTerms(4.0, 2.0, 1.5, 10)
TERMS = Terms("run-a", "autoencoder", 100, 1.5, 0.25, 4, 1.0, 8.0, 1e-3, UPLOAD)
SHARES = ["encodings", "updates+encodings"]


def ledgers(run: Run) -> dict[str, Ledger]:
    return {path.parent.name: read_ledger(path) for path in sorted(run.path.glob("hospitals/*/ledger.jsonl"))}


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("scope", ["autoencoder", "frozen-decoder"])
def test_a_run_whose_encodings_and_labels_are_noised_is_formal_at_its_total(
    federate: Callable[..., Run], share: str, scope: str
) -> None:
    run = federate("run", share=share, dp_scope=scope, **NOISED)
    promised = run.summary["guarantees"]
    assert run.summary["formal"]
    assert all(promised[name]["formal"] for name in promised)
    assert (promised["labels"]["epsilon"], promised["labels"]["delta"]) == (2.0, 0.0)
    account = run.ledger["hospitals"]["hospital-0"]
    events = [from_dict(event) for event in account["events"]]
    assert [type(event) for event in events[:4]] == [*2 * [PoissonGaussian], Gaussian, RandomisedResponse]
    without_labels = [event for event in events if not isinstance(event, RandomisedResponse)]
    totals = [one["epsilon"]["replace_one"] for one in run.ledger["hospitals"].values()]
    assert account["epsilon"]["replace_one"] == pytest.approx(replace_one_epsilon(events, 1e-3))
    assert promised["total"]["epsilon"] == promised["classifier"]["epsilon"] == max(totals)
    assert promised["encodings"]["epsilon"] >= replace_one_epsilon(without_labels, 1e-3)
    assert promised["total"]["epsilon"] > promised["encodings"]["epsilon"] > run.summary["epsilon_max"]
    card = (run.path / "privacy_card.md").read_text()
    assert f"epsilon {promised['total']['epsilon']:.3f} if one record is replaced" in card


@pytest.mark.parametrize("scope", ["none", "encoder"])
@pytest.mark.parametrize("share", SHARES)
def test_noise_on_encodings_of_an_encoder_without_a_guarantee_promises_nothing(
    federate: Callable[..., Run], share: str, scope: str
) -> None:
    run = federate("run", share=share, dp_scope=scope, **NOISED)
    promised = run.summary["guarantees"]
    assert not run.summary["formal"]
    for name in ("encodings", "classifier", "total"):
        assert not promised[name]["formal"]
        assert promised[name]["epsilon"] is None
    assert "one record can move every encoding" in promised["encodings"]["note"]


@pytest.mark.parametrize(
    ("noised", "without"),
    [
        ({"encoding_noise_epsilon": 4.0}, "labels"),
        ({"label_epsilon": 2.0}, "encodings"),
    ],
)
def test_one_of_the_two_left_plain_leaves_the_run_without_a_guarantee(
    federate: Callable[..., Run], noised: dict[str, float], without: str
) -> None:
    run = federate("run", share="updates+encodings", projection_size=5, **noised)
    promised = run.summary["guarantees"]
    lacking = {name for name, guarantee in promised.items() if not guarantee["formal"]}
    assert lacking == {without, "classifier", "total"}
    assert not run.summary["formal"]


@pytest.mark.parametrize("share", SHARES)
def test_what_leaves_is_the_projected_size_is_not_the_truth_and_is_made_once(
    federate: Callable[..., Run], share: str
) -> None:
    replies: list[Message] = []

    class AsksTwice(InProcessGrid):
        def _deliver(self, message: Message) -> Message:
            reply = super()._deliver(message)
            if message.metadata.message_type == ENCODINGS:
                replies.extend((reply, super()._deliver(message)))
            return reply

    run = federate("run", grid=AsksTwice, share=share, **NOISED)
    assert len(replies) == 2 * 3 * (2 if share == "encodings" else 1)
    for first, second in zip(replies[::2], replies[1::2], strict=True):
        assert str(first.content) == str(second.content), "the same bits"
        encodings = first.content["arrays"]["encodings"].numpy()
        assert encodings.shape[1:] == (5,)
        assert np.linalg.norm(encodings, axis=1).max() > 2, "clipped vectors have a norm of at most 1"
    for name, ledger in ledgers(run).items():
        uploads = [event for event in ledger.events if not isinstance(event, PoissonGaussian)]
        assert len(uploads) == (3 if share == "encodings" else 2), name
    for folder in (run.path / "hospitals").iterdir():
        (released,) = folder.glob("released-*-train-labels.npy")
        truth = np.load(folder / "train_records.npy")
        assert len(np.load(released)) == len(truth)


def test_no_two_releases_share_their_noise(federate: Callable[..., Run]) -> None:
    """All records are one image: what differs between releases is noise."""
    run = federate("run", share="encodings", dp_scope="none", **NOISED)
    rows = [np.load(path) for path in sorted(run.path.glob("hospitals/*/released-*n.npy"))]
    rows += [np.load(path) for path in sorted(run.path.glob("hospitals/*/released-*t.npy"))]
    assert len(rows) == 6
    for index, one in enumerate(rows):
        for other in rows[index + 1 :]:
            size = min(len(one), len(other))
            assert abs(np.corrcoef(one[:size].ravel(), other[:size].ravel())[0, 1]) < 0.4


def test_the_events_are_on_the_disk_before_noise_is_drawn(
    federate: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[list[str]] = []

    def spy(name: str) -> None:
        draw = getattr(release, name)

        def watched(*arguments: Any) -> Any:
            (path,) = (tmp_path / "run" / "hospitals").glob("*/ledger.jsonl")
            seen.append([event.mechanism for event in read_ledger(path).events[2:]])
            return draw(*arguments)

        monkeypatch.setattr(release, name, watched)

    spy("noised")
    spy("randomised_response")
    federate("run", nodes=simulated_nodes(1), share="updates+encodings", batch_size=100, **NOISED)
    assert seen == 2 * [["gaussian", "randomised-response"]]


def test_a_release_lost_after_it_was_paid_is_not_made_again(federate: Callable[..., Run]) -> None:
    class Loses(InProcessGrid):
        """Forgets the release after the first answer, as a crash before it was kept would."""

        answers: list[Message] = []  # noqa: RUF012

        def _deliver(self, message: Message) -> Message:
            reply = super()._deliver(message)
            if message.metadata.message_type == ENCODINGS:
                for path in Path(message.content["config"]["run-directory"]).glob("hospitals/*/released-*"):
                    path.unlink()
                self.answers.append(super()._deliver(message))
            return reply

    run = federate("run", grid=Loses, share="updates+encodings", **NOISED)
    for answer in Loses.answers:
        claim = answer.content[CLAIM]
        assert claim["status"] == "declined"
        assert "above 4" in claim["reason"]
    for ledger in ledgers(run).values():
        assert sum(isinstance(event, Gaussian) for event in ledger.events) == 1


def test_a_deployed_hospital_pays_for_encodings_once_and_declines_them_in_the_next_run(
    federate: Callable[..., Run], tmp_path: Path
) -> None:
    nodes = [
        {
            "partition-id": index,
            "num-partitions": 2,
            "data-file": str(write_npz(tmp_path / f"{index}.npz", 150, seed=index)),
        }
        for index in range(2)
    ]
    options = {"nodes": nodes, "share": "updates+encodings", "target_epsilon": 100.0, **NOISED}
    first = federate("first", **options)
    assert first.summary["formal"]
    with pytest.raises(RuntimeError, match="no hospital uploaded encodings"):
        federate("second", **options)
    refused = Run(tmp_path / "second").summary["uploads"]["hospital-0"]["refused"]
    assert "epsilon of the encodings" in refused


def test_a_hospitals_own_ceiling_is_held_against_all_that_the_run_would_release(
    federate: Callable[..., Run], small: Callable[..., RunConfig]
) -> None:
    options = {"share": "updates+encodings", "noise_multiplier": 0.0, "target_epsilon": 4.0, **NOISED}
    plan = plan_hospital("any", 100, small(**options))
    assert plan.epsilon_replace_one is not None
    assert plan.epsilon_replace_one > 8
    for ceiling, status in ((5.0, "stopped"), (60.0, "trained")):
        nodes = [{**node, "max-epsilon": ceiling} for node in simulated_nodes(1)]
        small_ones = [*nodes]
        if status == "stopped":
            with pytest.raises(RuntimeError, match="no hospital uploaded"):
                federate(f"run-{status}", nodes=small_ones, **options)
            continue
        run = federate(f"run-{status}", nodes=small_ones, **options)
        assert {row["status"] for row in run.rows("hospitals.csv")} == {status}


def test_budgets_count_the_whole_history_kind_by_kind() -> None:
    gaussian, labels = UPLOAD.events("train", 2)
    training = (PoissonGaussian(1.5, 0.25, 4, 1),)
    assert over_target(training, (gaussian, labels), TERMS) == ""
    assert "epsilon of the encodings" in over_target((*training, gaussian), (gaussian,), TERMS)
    assert "epsilon of the labels to 3.000, above 1.5" in over_target((labels,), (labels,), TERMS)
    tight = replace(TERMS, target_epsilon=epsilon(training, 1e-3).spent)
    assert over_target((gaussian, labels), training, tight) == "", "uploads do not count as updates"
    assert "epsilon of the updates" in over_target(training, training, tight)


def test_a_ceiling_counts_everything_together_and_nothing_asked_is_never_over_it() -> None:
    gaussian, labels = UPLOAD.events("train", 2)
    training = PoissonGaussian(1.5, 0.25, 4, 1)
    added = epsilon([training], 1e-3).spent
    assert over_ceiling((), (training,), 1e-3, added) == ""
    assert "epsilon of all updates" in over_ceiling((training,), (training,), 1e-3, added)
    total = replace_one_epsilon((training, gaussian, labels), 1e-3)
    assert over_ceiling((training,), (gaussian, labels), 1e-3, total) == ""
    assert "(replace-one)" in over_ceiling((training,), (gaussian, labels), 1e-3, total - 0.01)
    assert over_ceiling((training, gaussian), (), 1e-3, 0.1) == ""
    assert over_ceiling((training,), (gaussian,), 1e-3, None) == ""


def test_a_torn_line_counts_as_whatever_the_terms_could_have_announced(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = open_run(path, TERMS)
    event = TERMS.event(1)
    assert event is not None
    ledger = ledger.announce(event, *TERMS.upload_events("train", 1))
    content = path.read_bytes()
    start = content.rstrip(b"\n").rindex(b"\n") + 1
    path.write_bytes(content[: start + 9])
    found = read_ledger(path)
    assert set(ledger.events[:2]) < set(found.events)
    assert {type(event) for event in found.events[2:]} == {PoissonGaussian, Gaussian, RandomisedResponse}
    assert replace_one_epsilon(found.events, 1e-3) > replace_one_epsilon(ledger.events, 1e-3)
    assert read_ledger(path) == found


def account(**changes: Any) -> tuple[Account, ServerLedger]:
    config = RunConfig.from_flat(
        {
            "dataset": "mnist",
            "batch-size": 25,
            "target-delta": 1e-3,
            "noise-multiplier": 1.5,
            "share": "updates+encodings",
            "encoding-noise-epsilon": 4.0,
            "label-epsilon": 2.0,
        }
    )
    found = Account(plan_hospital("hospital-0", 100, config), **changes)
    return found, ServerLedger({"hospital-0": found})


def settled(server_ledger: ServerLedger, events: tuple[Any, ...], *, declined: bool = False) -> str:
    return server_ledger.settle_upload("hospital-0", events, "train", 10, declined=declined)


def test_an_upload_is_charged_when_it_is_asked_for_and_refunded_only_if_declined() -> None:
    own, server_ledger = account()
    server_ledger.charge_upload("hospital-0", "train", 10)
    costs = own.plan.upload_events("train", 10)
    assert own.counted_events() == costs
    assert len(costs) == 2
    assert settled(server_ledger, (), declined=True) == ""
    assert own.counted_events() == ()
    server_ledger.charge_upload("hospital-0", "train", 10)
    assert own.counted_events() == costs, "silence is not refunded"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda costs: (), "without an event"),
        (lambda costs: costs[:1], "without an event"),
        (lambda costs: (replace(costs[0], noise_multiplier=9.0), costs[1]), "differs from the plan"),
        (lambda costs: (costs[0], replace(costs[1], epsilon=0.1)), "differs from the plan"),
        (lambda costs: (replace(costs[0], part="test"), costs[1]), "without an event"),
    ],
)
def test_an_upload_whose_events_do_not_hold_is_excluded_and_stays_charged(
    change: Callable[..., tuple[Any, ...]], words: str
) -> None:
    own, server_ledger = account()
    server_ledger.charge_upload("hospital-0", "train", 10)
    costs = own.plan.upload_events("train", 10)
    assert words in settled(server_ledger, change(costs))
    assert own.status == EXCLUDED
    assert own.counted_events() == costs


def test_an_upload_that_forgets_its_history_is_excluded() -> None:
    history = (PoissonGaussian(2.0, 0.1, 7, 1),)
    own, server_ledger = account(history=history)
    costs = own.plan.upload_events("train", 10)
    assert "no longer hold" in settled(server_ledger, costs)
    own, server_ledger = account(history=history)
    assert settled(server_ledger, (*history, *costs)) == ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"share": "updates", "encoding_noise_epsilon": 4.0}, "encoding-noise-epsilon = 4 needs share"),
        ({"share": "updates", "label_epsilon": 2.0}, "label-epsilon = 2 needs share"),
        ({"share": "encodings", "encoding_noise_epsilon": 4.0, "classifier": "resnet18"}, 'use "lr"'),
        ({"share": "encodings", "encoding_noise_epsilon": -1.0}, "encoding-noise-epsilon"),
        ({"share": "encodings", "encoding_noise_epsilon": 4.0, "projection_size": 0}, "projection-size"),
    ],
)
def test_noise_that_does_not_fit_the_run_is_refused_in_one_line(
    small: Callable[..., RunConfig], changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words) as told:
        small(**changes)
    assert "\n" not in str(told.value)


def test_a_projection_larger_than_the_encoding_is_refused_before_training(
    federate: Callable[..., Run],
) -> None:
    trained: list[Message] = []

    class Watches(InProcessGrid):
        def _deliver(self, message: Message) -> Message:
            if message.metadata.message_type == TRAIN:
                trained.append(message)
            return super()._deliver(message)

    with pytest.raises(UserError, match="projection-size = 17 is too large"):
        federate("run", grid=Watches, share="encodings", **{**NOISED, "projection_size": 17})
    assert not trained
