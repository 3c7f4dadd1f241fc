"""The wheel holds both packages and the simulations, and works from anywhere."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from support import write_npz

pytestmark = pytest.mark.xdist_group("wheel")

CHECKOUT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of a fresh environment with the wheel, which uses all other packages of this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    python = [sys.executable, "-m"]
    subprocess.run(
        [*python, "build", "--wheel", "--outdir", str(folder), str(CHECKOUT)],
        check=True,
        stdout=subprocess.PIPE,
    )
    (wheel,) = folder.glob("fl_ppae-*.whl")
    venv.create(folder / "env", with_pip=False)
    scripts = folder / "env" / "bin"
    subprocess.run(
        [*python, "pip", "--python", str(scripts / "python"), "install", "-q", "--no-deps", str(wheel)],
        check=True,
    )
    (packages,) = (folder / "env").glob("lib/python*/site-packages")
    # A path file inside a borrowed folder is not read, so a checkout installed there stays out.
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return scripts


def run(installed: Path, cwd: Path, *command: str) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["FL_PPAE_HOME"] = str(cwd / "home")
    return subprocess.run(
        [str(installed / command[0]), *command[1:]],
        cwd=cwd,
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout


def test_everything_is_imported_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    code = (
        "import fl_ppae, strategies; from fl_ppae.catalogue import available;"
        "print(fl_ppae.__file__, strategies.__file__, *available().values(), sep='\\n')"
    )
    found = run(installed, tmp_path, "python", "-c", code).splitlines()
    environment = str(installed.parent)
    assert all(path.startswith(environment) for path in found)
    assert {Path(path).name for path in found[2:]} == {path.name for path in CHECKOUT.glob("simulations/*")}


def test_a_simulation_is_found_from_another_directory(installed: Path, tmp_path: Path) -> None:
    data = ("-c", "data-source=file", "-c", f"data-file={write_npz(tmp_path / 'tiny.npz')}")
    plan = run(installed, tmp_path, "fl-ppae", "plan", "mnist_iid", *data, "-c", "min-records=10", "--json")
    assert json.loads(plan)["simulation"] == "mnist_iid"


def test_a_report_s_templates_are_in_the_wheel(installed: Path, tmp_path: Path) -> None:
    failed = tmp_path / "failed"
    failed.mkdir()
    (failed / "summary.json").write_text('{"status": "failed", "error": "no luck"}')
    told = json.loads(run(installed, tmp_path, "fl-ppae", "report", "failed", "--json"))
    assert "no luck" in Path(told["report"]).read_text()
