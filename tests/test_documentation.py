"""Pages name modules and tests as what backs a claim, so these must exist."""

import ast
import re
from pathlib import Path

import pytest

from fl_ppae.data.registry import DATASETS

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"`((?:tests/|fl_ppae/)?[a-z_/]+\.py)`")


def words_of(page: str) -> str:
    return (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("page", "at_least"), [("threat_model", 11), ("privacy", 11), ("joint_noise", 4)])
def test_every_file_that_a_page_names_exists(page: str, at_least: int) -> None:
    named = NAMED.findall(words_of(page))
    assert len(named) >= at_least
    missing = [path for path in named if not any((ROOT / top / path).exists() for top in ("", "fl_ppae"))]
    assert not missing


def test_every_line_of_the_threat_models_tables_names_a_test() -> None:
    rows = [line for line in words_of("threat_model").splitlines() if line.startswith("| ")]
    tables = "\n".join(rows).split("shown by |\n")[1:]
    claims = "\n".join(tables).split("| number |")[0].splitlines()
    assert len(claims) > 8
    assert all("`tests/" in claim for claim in claims if not claim.startswith("| it may |"))


def resolves(test: str) -> bool:
    """Whether there is a test function of this `path::name`, or any in the file if there is no name."""
    path, _, name = test.partition("::")
    file = ROOT / path
    if not file.is_file():
        return False
    tree = ast.parse(file.read_text(encoding="utf-8"))
    tests = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return name in tests if name else any(one.startswith("test_") for one in tests)


def test_every_row_of_the_reliability_page_names_tests_that_exist() -> None:
    lines = words_of("reliability").splitlines()
    rows = [line for line in lines if line.startswith("| ") and not line.endswith("| test |")]
    assert len(rows) > 100
    for row in rows:
        named = re.findall(r"`(tests/[^`]*)`", row.rpartition(" | ")[2])
        assert named, row
        assert [test for test in named if not resolves(test)] == []


def test_a_test_that_is_nowhere_is_noticed() -> None:
    assert resolves("tests/test_documentation.py::test_a_test_that_is_nowhere_is_noticed")
    assert not resolves("tests/test_documentation.py::test_that_is_nowhere")
    assert not resolves("tests/test_nowhere.py::test_a_test_that_is_nowhere_is_noticed")
    assert not resolves("tests/support.py")


def test_the_page_of_data_sets_lists_each_as_it_is() -> None:
    rows = [line.split(" | ") for line in words_of("datasets").splitlines() if line.startswith("| `")]
    listed = {name: row for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    tasks = {"binary-class": "binary", "ordinal-regression": "ordinal"}
    for name, spec in DATASETS.items():
        _, images, classes, task, any_way_up = listed[name]
        assert images.startswith("colour" if spec.channels == 3 else "grey")
        assert int(classes.split()[0]) == spec.num_classes
        assert task == tasks.get(spec.task, spec.task)
        assert any_way_up.startswith("yes" if spec.any_way_up else "no")


def test_joint_noise_is_explained_in_at_most_a_thousand_words() -> None:
    assert len(words_of("joint_noise").split()) <= 1_000


def test_the_threat_model_is_one_page_that_the_readme_links() -> None:
    assert len(words_of("threat_model").split()) <= 900
    assert (ROOT / "README.md").read_text(encoding="utf-8").count("(docs/threat_model.md)") == 2
