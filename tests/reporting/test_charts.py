import re
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import pytest

from fl_ppae.plotting import LOUD
from fl_ppae.reporting import charts
from fl_ppae.reporting.drawing import Axes, Point, Series

AXES = Axes("t", "round", "accuracy (0 to 1)", "MNIST")
LINE = (Point(1, 0.2), Point(2, 0.9, 0.8, 0.95, note="<b>"))


def xy_chart(*given: Any, **options: Any) -> str:
    return charts.xy_chart(*given, **options).svg


def bar_chart(*given: Any, **options: Any) -> str:
    return charts.bar_chart(*given, **options).svg


def parsed(svg: str) -> Element:
    return ElementTree.fromstring(svg)


def marks(svg: str) -> dict[str, Element]:
    """Every element with a tooltip, by its tooltip."""
    return {
        element.attrib["data-tip"]: element for element in parsed(svg).iter() if "data-tip" in element.attrib
    }


def place(mark: Element) -> tuple[float, float]:
    """The position of a point, from the upper left."""
    reach = next(mark.iter("circle"))
    return float(reach.attrib["cx"]), float(reach.attrib["cy"])


def texts(svg: str) -> dict[str, str]:
    """The texts of a chart, with their styles."""
    return {element.text or "": element.attrib["style"] for element in parsed(svg).iter("text")}


def test_every_point_has_a_tooltip_with_series_place_value_and_interval() -> None:
    svg = xy_chart([Series("one", LINE), Series("two", (Point(1, 0.5),))], AXES, target=0.7)
    assert list(marks(svg)) == [
        "one, round 1: 0.2",
        "one, round 2: 0.9 (95 % interval 0.8 to 0.95) <b>",
        "two, round 1: 0.5",
    ]
    assert all(mark.findtext("title") == tip for tip, mark in marks(svg).items())  # without the page's script
    assert "target 0.7" in texts(svg)
    assert {"one", "two"} <= set(texts(svg))


def test_larger_values_are_higher_and_to_the_right() -> None:
    (left, low), (right, high) = map(place, marks(xy_chart([Series("one", LINE)], AXES)).values())
    assert left < right
    assert high < low


def test_an_interval_is_drawn_around_its_point() -> None:
    svg = xy_chart([Series("one", LINE)], AXES)
    x, y = place(list(marks(svg).values())[1])
    lines = [re.findall(r"[\d.]+", path.attrib["d"]) for path in parsed(svg).iter("path")]
    ends = [
        (float(line[1]), float(line[3]))
        for line in lines
        if len(line) == 4 and line[0] == line[2] and abs(float(line[0]) - x) < 0.1
    ]
    assert len(ends) == 1
    assert min(ends[0]) < y < max(ends[0])


def test_series_differ_by_more_than_their_colour() -> None:
    svg = xy_chart([Series(str(number), (Point(number, 1),)) for number in range(8)], AXES)
    shapes = [next(mark.iter("path")).attrib for mark in marks(svg).values()]
    filled = ["fill: #ffffff" not in shape["style"] for shape in shapes]
    assert len({shape["d"] for shape in shapes[:4]}) == 4
    assert filled == [True] * 4 + [False] * 4


def test_rounds_have_ticks_at_whole_numbers_and_places_can_be_named() -> None:
    for last in (1, 3):
        svg = xy_chart([Series("one", (Point(1, 0.5), Point(last, 0.5)))], AXES, whole=(1, last))
        assert [text for text in texts(svg) if text.isdigit()] == ["1", "2", "3"][:last]
    svg = xy_chart([Series("one", (Point(0.1, 0.5),))], AXES, x_names={0.0: "no DP", 1.0: "8"})
    assert {"no DP", "8"} <= set(texts(svg))
    assert list(marks(svg)) == ["one, no DP: 0.5"]


@pytest.mark.parametrize(
    ("source", "loud"),
    [
        ("MNIST (official files)", False),
        ("stand-in for MNIST", True),
        ("MNIST - ATTACK RUN: label-flip by hospital-1", True),
    ],
)
def test_a_chart_names_its_source_and_marks_stand_ins_and_attacks_in_red(source: str, loud: bool) -> None:
    axes = Axes("t", "round", "y", source)
    for svg in (xy_chart([Series("one", LINE)], axes), bar_chart({"a": 1.0}, axes)):
        label = parsed(svg).attrib["aria-label"]
        (written,) = ((text, style) for text, style in texts(svg).items() if text.startswith("data: "))
        assert written[0].removeprefix("data: ").startswith(source)
        assert source in label
        assert ("NOT REAL DATA" in label) == source.startswith("stand-in") == ("NOT REAL" in written[0])
        style = written[1]
        assert ((LOUD.lower() in style.lower() and "bold" in style) or "700" in style) == loud


def test_text_is_shown_as_it_was_written() -> None:
    odd = "<script>alert(1)</script> $x_1$ &\x01\\frac"
    svg = xy_chart([Series(odd, LINE), Series("two", LINE)], Axes(odd, odd, odd, odd), upright={odd: 1.5})
    shown = odd.replace("\x01", "")
    assert "<script" not in svg
    assert list(texts(svg)).count(shown) >= 1
    assert f"data: {shown}" in texts(svg)
    assert f"{shown}, {shown} 1: 0.2" in marks(svg)
    assert shown in texts(bar_chart({odd[:20]: 1.0}, Axes("t", odd, "", "MNIST")))


def test_the_same_chart_is_the_same_text_whatever_was_drawn_before() -> None:
    def charts() -> list[str]:
        return [xy_chart([Series("one", LINE), Series("two", LINE)], AXES), bar_chart({"a": 1.0}, AXES)]

    first = charts()
    bar_chart({"b": 2.0}, AXES, hollow=True)
    assert charts() == first


def test_a_chart_scales_with_its_page_and_refers_to_nothing() -> None:
    for svg in (xy_chart([Series("one", LINE)], AXES), bar_chart({"a": 1.0}, AXES)):
        root = parsed(svg)
        assert root.attrib["role"] == "img"
        assert "viewBox" in root.attrib
        assert not {"width", "height"} & set(root.attrib)
        for element in root.iter():
            assert not [key for key in element.attrib if key == "id" or "href" in key]
            assert not [value for value in element.attrib.values() if "url(" in value]


@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_points_that_are_not_finite_are_left_out(odd: float) -> None:
    series = [
        Series("one", (Point(1, odd), Point(2, 0.5))),
        Series("none", (Point(1, odd),)),
        Series("empty", ()),
    ]
    assert list(marks(xy_chart(series, AXES, from_zero=True))) == ["one, round 2: 0.5"]


@pytest.mark.parametrize("values", [{"a": 0.0}, {"a": 1e-9, "b": 3.0}, {"x" * 80: 900.0}])
def test_bars_of_any_size_are_drawn_with_their_values(values: dict[str, float]) -> None:
    svg = bar_chart(values, Axes("t", "epsilon", "", "MNIST"), target=8.0)
    assert list(marks(svg)) == [f"{name}: {value:.3f}, target 8" for name, value in values.items()]
    assert {f"{value:.2f}" for value in values.values()} | {"target 8"} <= set(texts(svg))


def test_bars_without_a_guarantee_are_hollow() -> None:
    def fill(*, hollow: bool) -> str:
        (bar,) = marks(bar_chart({"a": 1.0}, AXES, hollow=hollow)).values()
        return next(bar.iter("path")).attrib["style"]

    assert "fill: #ffffff" in fill(hollow=True) and "dash" in fill(hollow=True)
    assert "fill: #ffffff" not in fill(hollow=False)
