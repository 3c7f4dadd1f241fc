"""Noised encodings and labels in whole runs: charged before drawn, made once, with the stated guarantees."""

from collections.abc import Callable
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
from fl_ppae.privacy.accounting import replace_one_epsilon
from fl_ppae.privacy.events import Gaussian, PoissonGaussian, RandomisedResponse, from_dict
from fl_ppae.privacy.ledger import Ledger, read_ledger
from fl_ppae.privacy.plan import plan_hospital
from fl_ppae.simulation.in_process import InProcessGrid

NOISED = {"encoding_noise_epsilon": 4.0, "label_epsilon": 2.0, "projection_size": 5}
SHARES = ["encodings", "updates+encodings"]


def ledgers(run: Run) -> dict[str, Ledger]:
    return {path.parent.name: read_ledger(path) for path in sorted(run.path.glob("hospitals/*/ledger.jsonl"))}


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("scope", ["autoencoder", "frozen-decoder"])
def test_a_run_with_noised_encodings_and_labels_is_formal_at_its_total(
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
    assert f"replaced by another (conjectured): epsilon {promised['total']['epsilon']:.3f}." in card


@pytest.mark.parametrize("scope", ["none", "encoder"])
@pytest.mark.parametrize("share", SHARES)
def test_noise_on_encodings_guarantees_nothing_if_the_encoder_has_no_guarantee(
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
def test_plain_encodings_or_plain_labels_leave_the_run_without_a_guarantee(
    federate: Callable[..., Run], noised: dict[str, float], without: str
) -> None:
    run = federate("run", share="updates+encodings", projection_size=5, **noised)
    promised = run.summary["guarantees"]
    lacking = {name for name, guarantee in promised.items() if not guarantee["formal"]}
    assert lacking == {without, "classifier", "total"}
    assert not run.summary["formal"]


@pytest.mark.parametrize("share", SHARES)
def test_a_release_has_the_projected_size_is_noised_and_is_made_once(
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
    """All records are the same image: releases differ only by their noise."""
    run = federate("run", share="encodings", dp_scope="none", **NOISED)
    rows = [np.load(path) for path in sorted(run.path.glob("hospitals/*/released-*n.npy"))]
    rows += [np.load(path) for path in sorted(run.path.glob("hospitals/*/released-*t.npy"))]
    assert len(rows) == 6
    for index, one in enumerate(rows):
        for other in rows[index + 1 :]:
            size = min(len(one), len(other))
            assert abs(np.corrcoef(one[:size].ravel(), other[:size].ravel())[0, 1]) < 0.4


def test_the_events_are_on_disk_before_noise_is_drawn(
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
        """Loses the release after the first reply, as a crash before saving it would."""

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
            "max-epsilon": 1000,
            "max-delta": 1e-3,
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


def test_a_hospital_compares_its_ceiling_with_everything_that_the_run_would_release(
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


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"share": "updates", "encoding_noise_epsilon": 4.0}, "encoding-noise-epsilon = 4 needs share"),
        ({"share": "updates", "label_epsilon": 2.0}, "label-epsilon = 2 needs share"),
        ({"share": "encodings", "encoding_noise_epsilon": 4.0, "classifier": "resnet18"}, 'use "lr"'),
        (
            {"share": "encodings", "encoding_noise_epsilon": 4.0, "encoding_bits": 1},
            "one of the two",
        ),
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
