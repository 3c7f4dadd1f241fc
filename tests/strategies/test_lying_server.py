"""A server that tells hospitals different things learns nothing but a sum that all of them agree on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message
from masked_federation import LATE, Deliver, Federation, lying_to, with_record

from fl_ppae.messages import ARRAYS, CLAIM, CONSISTENT, SECAGG, TRAIN, UNMASK


def other_weights(message: Message) -> Message:
    arrays = {name: Array(array.numpy() + 1) for name, array in message.content[ARRAYS].items()}
    return with_record(message, ARRAYS, ArrayRecord(arrays))


def other_step(message: Message) -> Message:
    record = ConfigRecord({**message.content[SECAGG], "step": message.content[SECAGG]["step"] * 2})
    return with_record(message, SECAGG, record)


def without_one(message: Message) -> Message:
    names = [name for name in message.content[SECAGG]["survivors"] if name != "hospital-3"]
    return with_record(message, SECAGG, ConfigRecord({**message.content[SECAGG], "survivors": names}))


def fewer(message: Message) -> Message:
    record = ConfigRecord({**message.content[SECAGG], "survivors": [LATE, "hospital-0"]})
    return with_record(message, SECAGG, record)


def without_itself(message: Message) -> Message:
    names = [name for name in message.content[SECAGG]["survivors"] if name != LATE]
    return with_record(message, SECAGG, ConfigRecord({**message.content[SECAGG], "survivors": names}))


@pytest.mark.parametrize("lie", [other_weights, other_step])
def test_a_hospital_that_trains_on_something_else_than_the_others_hides_the_sum(
    tmp_path: Path, lie: Callable[[Message], Message]
) -> None:
    """A server that singles a hospital out by its weights gets numbers that are uniform on the ring."""
    federation = Federation(tmp_path / "masked", tamper=lying_to(LATE, TRAIN, lie))
    before = federation.weights
    federation.round()
    assert "signature" in federation.reason(LATE)
    records = sum(plan.records for plan in federation.plans.values())
    drawn = [
        (value - before[name]).ravel() * records / federation.step
        for name, value in federation.weights.items()
    ]
    assert float(np.std(np.concatenate(drawn))) == pytest.approx(2**32 / 12**0.5, rel=0.02)


@pytest.mark.parametrize(
    ("kind", "lie"), [(CONSISTENT, without_one), (CONSISTENT, without_itself), (UNMASK, without_one)]
)
def test_a_hospital_that_hears_another_list_than_the_others_answers_nothing_of_use(
    tmp_path: Path, of_all: dict[str, np.ndarray], kind: str, lie: Callable[[Message], Message]
) -> None:
    federation = Federation(tmp_path / "masked", tamper=lying_to(LATE, kind, lie))
    assert federation.round()
    federation.check_close(of_all)
    assert federation.reason(LATE)
    assert set(federation.sent(kind, LATE)[1].content) == {CLAIM}, "it declined"


@pytest.mark.parametrize("lie", [without_one, fewer])
def test_a_list_that_is_too_short_is_signed_by_nobody(
    tmp_path: Path, lie: Callable[[Message], Message]
) -> None:
    def lying(kind: str, _name: str, question: Message, deliver: Deliver) -> Message:
        return deliver(lie(question) if kind == CONSISTENT else question)

    federation = Federation(tmp_path / "masked", tamper=lying)
    assert not federation.round()
    assert UNMASK not in {kind for kind, _, _, _ in federation.network.carried}
    assert all("hospital" in federation.reason(name) for name in federation.nodes)
