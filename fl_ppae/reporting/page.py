"""One HTML page in one file: no network, nothing loaded from outside, all text escaped.

Its Content-Security-Policy forbids every request and allows one inline script, identified by its digest.
The script sorts tables and shows tooltips without delay; the page is complete without it.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup
from rich.table import Table
from rich.text import Text

from fl_ppae import __version__
from fl_ppae.files import write_atomically

_PNG = b"\x89PNG\r\n\x1a\n"
_MAX_BYTES = 2**25


@dataclass(frozen=True)
class Cell:
    """One cell: its text, and its mark: `good`, `bad` or none."""

    text: str
    mark: str = ""


@dataclass(frozen=True)
class HtmlTable:
    """A table for the page; `columns` are pairs of header and whether the column holds numbers."""

    caption: str
    columns: tuple[tuple[str, bool], ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Picture:
    """An image in the page: its `data:` address, a description of what it shows, and a caption."""

    address: str
    description: str
    caption: str = ""


def as_html(table: Table) -> HtmlTable:
    """The terminal's table for the page, so that the two can't differ."""
    columns = tuple(
        (" ".join(str(column.header).split()), column.justify == "right") for column in table.columns
    )
    rows = zip(*(column.cells for column in table.columns), strict=True)
    cells = tuple(tuple(_cell(content) for content in row) for row in rows)
    return HtmlTable(_plain(table.title), columns, cells, _plain(table.caption))


def embedded(png: bytes) -> str:
    """A PNG as a `data:` address."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def is_picture(path: Path) -> bool:
    """Whether there is a PNG file of a size that a page can hold."""
    try:
        if not path.is_file() or path.stat().st_size > _MAX_BYTES:
            return False
        with path.open("rb") as file:
            return file.read(len(_PNG)) == _PNG
    except OSError:
        return False


def picture(path: Path, description: str, caption: str = "") -> Picture:
    """A PNG file, embedded in the page."""
    return Picture(embedded(path.read_bytes()), description, caption)


def markdown(text: str) -> Markup:
    """Markdown as HTML. Raw HTML is shown as text; links and images are not rendered."""
    converter = MarkdownIt("commonmark", {"html": False}).enable("table")
    html = converter.disable(["link", "image", "autolink"]).render(text)
    # A wide table scrolls, not the page. Tags in the text are already escaped here.
    html = html.replace("<table>", '<div class="scroll" tabindex="0"><table>')
    return Markup(html.replace("</table>", "</table></div>"))


def write_page(path: Path, template: str, **content: Any) -> None:
    """Render a template of this package into one self-contained file."""
    script = (files(__package__) / "templates" / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    html = (
        _environment()
        .get_template(template)
        .render(
            script=Markup(script),
            script_digest=digest,
            style=Markup((files(__package__) / "templates" / "page.css").read_text(encoding="utf-8")),
            version=__version__,
            **content,
        )
    )
    write_atomically(path, html.encode())
    path.chmod(0o644)


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("fl_ppae.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _cell(content: Any) -> Cell:
    marks = {"green": "good", "red": "bad", "bold red": "bad", "yellow": "bad"}
    return Cell(_plain(content), marks.get(str(content.style), "") if isinstance(content, Text) else "")


def _plain(text: Any) -> str:
    if text is None:
        return ""
    return text.plain if isinstance(text, Text) else str(text)
