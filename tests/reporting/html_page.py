"""Reports for tests, written and parsed."""

from html.parser import HTMLParser
from pathlib import Path

from fl_ppae.reporting.evidence import gather
from fl_ppae.reporting.run_report import write_run_report
from fl_ppae.runs.stored import open_run

VOID = {"meta", "img", "br", "hr", "link", "input"}
LOADING = {"src", "srcset", "poster", "data", "action", "background"}


class Page(HTMLParser):
    """A parsed page: its tags with their attributes, and its text outside script and style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.script = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["script"]:
            self.script += data
        elif self.open[-1:] != ["style"]:
            self.text += data + " "

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(path: Path) -> Page:
    page = Page(path.read_text(encoding="utf-8"))
    assert not page.open  # every tag is closed
    return page


def text_of(path: Path) -> str:
    return " ".join(page_of(path).text.split())


def report_of(run_directory: Path, output: Path | None = None) -> Path:
    run = open_run(run_directory)
    return write_run_report(run, gather(run), output)
