"""Each number says whether it is proven, conjectured or only measured, and against whom it holds."""

from typing import Any

import pytest
from reporting.html_page import text_of
from support import Run

from fl_ppae.files import read_json, write_json
from fl_ppae.reporting.grounds import grounds
from fl_ppae.reporting.privacy_card import privacy_card


def guarantee(epsilon: float | None, *, formal: bool) -> dict[str, Any]:
    return {"epsilon": epsilon, "delta": None if epsilon is None else 1e-5, "formal": formal, "note": ""}


@pytest.mark.parametrize(
    ("artefact", "share", "expected"),
    [
        ("updates", ["updates"], "proven"),
        ("classifier", ["updates"], "proven"),
        ("total", ["updates"], "conjectured"),
        ("updates", ["updates", "encodings"], "proven"),
        ("labels", ["updates", "encodings"], "proven"),
        ("encodings", ["updates", "encodings"], "conjectured"),
        ("classifier", ["encodings"], "conjectured"),
        ("total", ["encodings"], "conjectured"),
    ],
)
def test_what_counts_training_under_replace_one_is_conjectured(
    artefact: str, share: list[str], expected: str
) -> None:
    assert grounds(artefact, guarantee(3.0, formal=True), share) == expected
    for without in (guarantee(3.0, formal=False), guarantee(None, formal=False)):
        assert grounds(artefact, without, share) == "none"


def test_the_card_and_the_report_name_the_grounds_of_each_number(formal: Run) -> None:
    card = (formal.path / "privacy_card.md").read_text()
    promised = formal.summary["guarantees"]
    assert f"If one record is added or removed (proven): epsilon {formal.summary['epsilon_max']:.3f}." in card
    replaced = (
        f"If one record is replaced by another (conjectured): epsilon {promised['total']['epsilon']:.3f}."
    )
    assert replaced in card
    rows = [line for line in card.splitlines() if line.startswith(("| encoder updates", "| everything tog"))]
    assert [row.split(" | ")[4] for row in rows] == ["proven", "conjectured"]
    assert "arXiv:2405.20769" in card
    assert "Another attack may find more" in card
    assert "formal, conjectured" in text_of(formal.path / "report.html")


def test_the_card_says_against_whom_it_holds_and_names_the_page(formal: Run) -> None:
    config = read_json(formal.path / "config.json")
    for deployed, readers in (
        (False, "do not hold against whoever reads a simulation's"),
        (True, "hold against"),
    ):
        write_json(formal.path / "config.json", config | {"deployed": deployed})
        card = privacy_card(formal.path)
        assert f"They {readers}" in card
        assert "`docs/threat_model.md`" in card
