"""The command that repeats a run, and the keys that differ from the simulation."""

import shlex
from pathlib import Path

import pytest

from fl_ppae.catalogue import find, parse_overrides
from fl_ppae.config import RunConfig
from fl_ppae.files import write_json
from fl_ppae.runs.rerun import changed_keys, rerun_command
from fl_ppae.runs.stored import open_run


@pytest.mark.parametrize("simulation", ["bloodmnist_iid", "pathmnist_encodings"])
def test_the_rerun_command_gives_the_same_configuration(simulation: str, tmp_path: Path) -> None:
    pairs = ["target-epsilon=3", "diagnostics=true", "data-source=file", "data-file=/a b/c$d.npz", "seed=-1"]
    config = find(simulation).config(parse_overrides(pairs))
    document = {"simulation": simulation, "config": config.to_flat(), "hospitals": 4}
    write_json(tmp_path / "config.json", document)
    run = open_run(tmp_path)
    words = shlex.split((rerun_command(run) or "").replace("\\\n", " "))
    assert words[:5] == ["fl-ppae", "run", simulation, "--hospitals", "4"]
    assert find(simulation).config(parse_overrides(words[6::2])) == config
    assert {change.key for change in changed_keys(run)} == {pair.split("=")[0] for pair in pairs}


def test_every_key_has_a_meaning() -> None:
    assert all(field.description for field in RunConfig.model_fields.values())
