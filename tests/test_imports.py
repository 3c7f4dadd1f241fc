"""The import check of CI: this tree passes, a backward import or a cycle fails."""

import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
LINT_IMPORTS = Path(sysconfig.get_path("scripts")) / "lint-imports"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of both packages and of the contracts, to be changed."""
    for package in ("fl_ppae", "strategies"):
        shutil.copytree(CHECKOUT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(CHECKOUT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(tree: Path) -> tuple[int, str]:
    done = subprocess.run([LINT_IMPORTS, "--no-cache"], cwd=tree, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def test_the_tree_as_it_is_passes(tree: Path) -> None:
    status, output = lint(tree)
    assert (status, output.count("KEPT")) == (0, 2), output


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        ("privacy/clipping.py", "from fl_ppae.reporting import tables", "Imports go one way"),
        ("models/seeding.py", "import strategies.robust", "Imports go one way"),
        ("data/npz.py", "from fl_ppae.privacy import clipping", "No package imports in a circle"),
    ],
)
def test_an_import_in_the_wrong_direction_fails_by_the_name_of_its_contract(
    tree: Path, module: str, line: str, broken: str
) -> None:
    with (tree / "fl_ppae" / module).open("a") as file:
        file.write(f"\n{line}\n")
    status, output = lint(tree)
    assert status == 1
    assert f"{broken} BROKEN" in output
