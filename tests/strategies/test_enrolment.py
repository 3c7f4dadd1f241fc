"""What a node answers when it is met is read value by value."""

import pytest
from flwr.app import ConfigRecord

from fl_ppae.errors import UserError
from fl_ppae.messages import HELLO
from strategies.enrolment import Answered


def answered(**claim: object) -> Answered:
    return Answered(7, HELLO, ConfigRecord(claim))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["hospital-0", "St. Mary's", "Klinikum Großhadern", "病院"])
def test_an_ordinary_name_is_taken(name: str) -> None:
    assert answered(hospital=name).name() == name


@pytest.mark.parametrize(
    "name", ["", "..", "../../home", "/etc/passwd", "a\\b", ".hidden", "é" * 101, 7, "a\nb"]
)
def test_a_name_that_could_not_be_that_of_a_file_is_refused(name: object) -> None:
    with pytest.raises(UserError, match=r"^node 7 answered query.hello wrongly: hospital is not a "):
        answered(hospital=name).name()


@pytest.mark.parametrize("count", [-1, 10**9 + 1, True, 1.0, "3", None])
def test_a_count_that_is_none_is_refused(count: object) -> None:
    claim = {} if count is None else {"index": count}
    with pytest.raises(UserError, match="index is not a whole number from 0 to 1000000000"):
        answered(**claim).count("index")
