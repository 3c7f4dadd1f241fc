"""The simulations, and the keys that they set."""

import shutil
import subprocess
import sysconfig
import tomllib
from pathlib import Path

import pytest
from golden import KEY_DEFAULTS, SIMULATION_CHANGES

from fl_ppae import catalogue
from fl_ppae.config import RunConfig
from fl_ppae.errors import UserError

CHECKOUT = Path(__file__).parent.parent


def test_the_keys_and_their_defaults_are_these() -> None:
    defaults = RunConfig.from_flat({}).to_flat()
    assert defaults == KEY_DEFAULTS
    assert list(defaults) == list(KEY_DEFAULTS)


@pytest.mark.parametrize("name", SIMULATION_CHANGES)
def test_a_simulation_lists_every_key_in_order_with_its_default_or_its_own_value(name: str) -> None:
    values = catalogue.find(name).values
    assert list(values) == list(KEY_DEFAULTS)
    assert values == {**KEY_DEFAULTS, **SIMULATION_CHANGES[name]}
    assert [type(value) for value in values.values()] == [type(value) for value in KEY_DEFAULTS.values()]
    RunConfig.from_flat({**values, **({"data-file": "own.npz"} if name == "own_data" else {})})


def test_the_simulations_are_these() -> None:
    assert set(catalogue.available()) == set(SIMULATION_CHANGES)


@pytest.mark.parametrize("name", SIMULATION_CHANGES)
def test_flower_accepts_a_simulation_unchanged(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flwr.cli.build import build_fab_from_disk
    from flwr.cli.config_migration import migrate
    from flwr.cli.config_utils import load_and_validate

    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    directory = catalogue.available()[name]
    before = (directory / "pyproject.toml").read_bytes()
    migrate(str(directory), [], ignore_legacy_usage=True)  # what `flwr run` does first
    config, warnings = load_and_validate(directory / "pyproject.toml")
    assert not warnings
    assert config["project"]["name"] == name.replace("_", "-")
    assert build_fab_from_disk(directory)
    assert (directory / "pyproject.toml").read_bytes() == before


def test_flwr_build_accepts_a_simulation_in_a_folder_with_a_valid_name(tmp_path: Path) -> None:
    folder = tmp_path / "pathmnist-iid"  # `flwr build`, unlike `flwr run`, refuses an underscore
    shutil.copytree(catalogue.available()["pathmnist_iid"], folder)
    flwr = Path(sysconfig.get_path("scripts")) / "flwr"
    subprocess.run([flwr, "build"], cwd=folder, check=True, env={"FLWR_HOME": str(tmp_path), "PATH": ""})
    assert list(folder.glob("fl-ppae.pathmnist-iid.*.fab"))


def test_every_simulation_has_its_own_name_and_no_dependency() -> None:
    for name, directory in catalogue.available().items():
        project = tomllib.loads((directory / "pyproject.toml").read_text())["project"]
        assert project["name"] == name.replace("_", "-")
        assert project["dependencies"] == []


def test_a_simulation_is_found_by_folder_too(tmp_path: Path) -> None:
    own = tmp_path / "mine"
    shutil.copytree(catalogue.available()["mnist_iid"], own)
    found = catalogue.find(str(own))
    assert (found.name, found.values["dataset"]) == ("mine", "mnist")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pathmnist_idd", "did you mean 'pathmnist_iid'"),
        ("zzz", "valid: bloodmnist_dirichlet"),
        ("tests", "has no pyproject.toml"),
        (".", "has no [tool.flwr.app.config] table"),
    ],
)
def test_an_invalid_simulation_is_explained_in_one_line(
    name: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(CHECKOUT)
    with pytest.raises(UserError) as mistake:
        catalogue.find(name)
    assert words in str(mistake.value)
    assert "\n" not in str(mistake.value)


def test_overrides_take_the_types_of_their_keys() -> None:
    pairs = ["dp-scope=encoder", "target-epsilon=3", "diagnostics=True", "seed=-1", "data-file='a b=c.npz'"]
    assert catalogue.parse_overrides(pairs) == {
        "dp-scope": "encoder",
        "target-epsilon": 3.0,
        "diagnostics": True,
        "seed": -1,
        "data-file": "a b=c.npz",
    }


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ("seed", "not key=value"),
        ("=5", "not key=value"),
        ("sed=1", "did you mean 'seed'"),
        ("seed=1.5", "seed = '1.5': must be a whole number"),
        ("target-epsilon=low", "must be a number"),
        ("diagnostics=yes", "must be true or false"),
    ],
)
def test_a_bad_override_is_explained_in_one_line(pair: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        catalogue.parse_overrides([pair])


def test_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    config = catalogue.find("pathmnist_iid").config({"output-dir": "out", "data-root": "~/data"})
    assert config.output_dir == str(tmp_path / "out")
    assert config.data_root == "/home/somebody/data"
    assert config.data_file == ""


def test_a_key_that_is_not_listed_cannot_be_overridden(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool.flwr.app.config]\ndataset = "mnist"\n')
    simulation = catalogue.find(str(tmp_path))
    simulation.check_listed(["dataset"])
    with pytest.raises(UserError, match="has to list seed"):
        simulation.check_listed(["dataset", "seed"])


@pytest.mark.parametrize(
    "value", ["nan", "inf", "-1", "[1]", "{a = 1}", "2020-01-01", "1" + "0" * 400, '"x"']
)
def test_a_value_of_any_type_is_accepted_or_refused_by_key(value: str, tmp_path: Path) -> None:
    refused = 0
    for key in KEY_DEFAULTS:
        (tmp_path / "pyproject.toml").write_text(f"[tool.flwr.app.config]\n{key} = {value}\n")
        simulation = catalogue.find(str(tmp_path))
        try:
            simulation.config({})
        except UserError as mistake:
            assert key in str(mistake)
            assert "\n" not in str(mistake)
            refused += 1
    assert refused > len(KEY_DEFAULTS) / 2


def test_the_file_instead_of_its_folder_is_told_so() -> None:
    file = catalogue.available()["mnist_iid"] / "pyproject.toml"
    with pytest.raises(UserError, match=r"is a file; give the folder that holds pyproject\.toml"):
        catalogue.find(str(file))
