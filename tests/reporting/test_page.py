import base64
import hashlib

from reporting.html_page import LOADING, page_of, report_of
from support import Run

from fl_ppae.files import read_json, write_json
from fl_ppae.reporting.page import markdown


def test_nothing_is_loaded_from_outside(formal: Run) -> None:
    page = page_of(formal.path / "report.html")
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            if name in LOADING:
                assert (value or "").startswith("data:image/png;base64,"), (tag, name)
            if name in ("href", "xlink:href"):
                assert (value or "").startswith("#"), (tag, value)
            assert not name.startswith("on"), (tag, name)
            assert "url(" not in (value or "")
    assert not page.all("link") and not page.all("iframe")
    assert "@import" not in (formal.path / "report.html").read_text()
    policy = next(tag["content"] for tag in page.all("meta") if "http-equiv" in tag) or ""
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_ids_are_unique(formal: Run) -> None:
    ids = [held["id"] for _, held in page_of(formal.path / "report.html").tags if "id" in held]
    assert "rounds" in ids
    assert len(ids) == len(set(ids))


def test_the_policy_allows_only_the_script_that_sorts(formal: Run) -> None:
    page = page_of(formal.path / "report.html")
    assert len(page.all("script")) == 1
    digest = base64.b64encode(hashlib.sha256(page.script.encode()).digest()).decode()
    policy = next(tag["content"] for tag in page.all("meta") if "http-equiv" in tag) or ""
    assert f"script-src 'sha256-{digest}'" in policy
    assert "aria-sort" in page.script and "data-tip" in page.script
    assert any("sortable" in (table["class"] or "") for table in page.all("table"))
    assert all(head.get("scope") in ("col", "row") for head in page.all("th") if head)


def test_what_comes_from_files_is_escaped(formal: Run) -> None:
    attack = "<script>alert(1)</script>"
    config = read_json(formal.path / "config.json")
    config["data_source"]["label"] = attack
    write_json(formal.path / "config.json", config)
    summary = formal.summary | {
        "status": "failed",
        "error": attack,
        "data_source": attack,
        "simulation": attack,
    }
    write_json(formal.path / "summary.json", summary)
    card = f"# x\n\n{attack} <img src=http://x> ![x](http://example.org/x.png) [y](http://example.org)"
    (formal.path / "privacy_card.md").write_text(card)
    path = report_of(formal.path, formal.path / "other.html")
    page = page_of(path)
    assert len(page.all("script")) == 1
    assert page.text.count("alert(1)") > 5
    assert not [a for a in page.all("a") if not (a["href"] or "").startswith("#")]
    assert not [i for i in page.all("img") if not (i["src"] or "").startswith("data:")]
    assert "alert" not in page.script


def test_markdown_shows_html_as_text() -> None:
    assert "<b>" not in markdown("<b>x</b> **y**")
    assert "<strong>y</strong>" in markdown("<b>x</b> **y**")
