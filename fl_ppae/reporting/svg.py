"""Matplotlib figures as inline SVG that scales with the page and has a tooltip on each mark.

No element has an id, so that a page can hold several figures. The same figure always gives the same text.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure

_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))
_NOT_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_FINER_THAN_A_HUNDREDTH = re.compile(r"(\.\d\d)\d+")
_LEFT_OUT = ("id", "clip-path", "data-tip", _HREF)
_REACH = "9"  # radius around a marker that shows its tooltip, in units of the figure


def inline_svg(figure: Figure, description: str, tips: Mapping[str, Sequence[str]]) -> Markup:
    """The figure as an `svg` element without a fixed size; `description` is for screen readers.

    `tips`: tooltips by the gid of an artist: one for each of its markers, in the order of its points, or one
    for an artist without markers.
    """
    file = io.StringIO()
    with rc_context({"svg.fonttype": "none"}):
        figure.savefig(file, format="svg", metadata=_NO_METADATA)
    root = ElementTree.fromstring(_NOT_XML.sub("", file.getvalue()))
    shapes = {f"#{path.get('id')}": path for path in root.iter(f"{_SVG}path")}
    groups = {group.get("id"): group for group in root.iter(f"{_SVG}g")}
    for gid, texts in tips.items():
        marks = list(groups[gid].iter(f"{_SVG}use")) or [groups[gid]]
        for mark, text in zip(marks, texts, strict=True):
            mark.set("data-tip", text)
    cleaned = _clean(root, shapes)
    described = {
        "class": "chart",
        "role": "img",
        "viewBox": root.get("viewBox", ""),
        "aria-label": description,
    }
    cleaned.attrib = described | {"stroke-linejoin": "round"}
    return Markup(_NOT_XML.sub("", ElementTree.tostring(cleaned, encoding="unicode")))


def _clean(element: Element, shapes: Mapping[str, Element]) -> Element:
    """A copy without namespaces, ids, clipping and definitions; each reference becomes the shape itself."""
    attributes = {key: _short(value) for key, value in element.items() if key not in _LEFT_OUT}
    if attributes.get("transform", "").startswith("rotate(-0 "):
        del attributes["transform"]
    copy = Element(element.tag.removeprefix(_SVG), attributes)
    copy.text = (element.text or "").strip()
    for child in element:
        if child.tag not in (f"{_SVG}defs", f"{_SVG}metadata"):
            cleaned = _clean(child, shapes)
            copy.extend(cleaned if cleaned.tag == "g" and not cleaned.attrib else [cleaned])
    if element.tag == f"{_SVG}use":
        copy = _marker(copy, shapes[element.get(_HREF, "")])
    tip = element.get("data-tip")
    return copy if tip is None else _with_tip(copy, tip)


def _marker(use: Element, shape: Element) -> Element:
    x, y = use.get("x", "0"), use.get("y", "0")
    style = f"{shape.get('style', '')}; {use.get('style', '')}"
    path = {"d": _short(shape.get("d", "")), "transform": f"translate({x} {y})", "style": style}
    marker = Element("g")
    marker.append(Element("path", path))
    marker.append(Element("circle", {"cx": x, "cy": y, "r": _REACH, "fill-opacity": "0"}))
    return marker


def _with_tip(element: Element, text: str) -> Element:
    """Add a tooltip: the browser shows the title, the page's script shows `data-tip` without delay."""
    element.set("data-tip", text)
    element.insert(0, title := Element("title"))
    title.text = text
    return element


def _short(value: str) -> str:
    return _FINER_THAN_A_HUNDREDTH.sub(r"\1", value)
