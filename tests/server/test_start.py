"""The weights that hospitals start from: random, trained on public images, or from a file that is checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support import Run

from fl_ppae.config import RunConfig
from fl_ppae.data.sources import resolve
from fl_ppae.errors import UserError
from fl_ppae.files import read_json
from fl_ppae.models.build import local_model_of
from fl_ppae.server import plain_networks
from fl_ppae.server.plain_networks import Budget
from fl_ppae.server.start import common_start
from fl_ppae.server.start_file import load_start, write_start

HEAD = {"local_steps": 1, "objective": "task", "dp_scope": "autoencoder", "trains": "head"}


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain_networks, "SERVER", Budget(passes=1, fewest=3, most=3))


def trained(config: RunConfig) -> dict[str, torch.Tensor]:
    """The state of a network of `config` that is not its random one."""
    return {name: value + 0.25 for name, value in local_model_of(config).state_dict().items()}


def test_a_file_is_where_hospitals_start_and_only_the_head_leaves(
    federate: Callable[..., Run], small: Callable[..., RunConfig], tmp_path: Path
) -> None:
    start = tmp_path / "start.safetensors"
    state = trained(small(**HEAD))
    write_start(start, state)
    run = federate("run", **HEAD, start=str(start), record_messages=True, target_epsilon=50.0)
    encoder = load_file(run.path / "encoder.safetensors")
    assert all(torch.equal(state[f"encoder.{name}"], value) for name, value in encoder.items())
    for received in sorted(run.path.glob("received/round-*/*.safetensors")):
        assert set(load_file(received)) == {name for name in state if name.startswith("partner.")}
    assert run.summary["formal"] and run.summary["guarantees"]["head"]["formal"]
    kept = load_file(run.path / "start.safetensors")
    assert all(torch.equal(state[name], value) for name, value in kept.items())


@pytest.mark.parametrize("masked", [{}, {"protection": "secagg"}])
def test_last_layers_are_averaged_and_the_rest_stays(
    federate: Callable[..., Run], masked: dict[str, str]
) -> None:
    run = federate("run", autoencoder="fc-deep", trains="last", target_epsilon=50.0, **masked)
    config = RunConfig.from_flat(read_json(run.path / "config.json")["config"])
    before = local_model_of(config).encoder.state_dict()
    after = load_file(run.path / "encoder.safetensors")
    assert [name for name in before if not torch.equal(before[name], after[name])] == ["4.weight", "4.bias"]


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize("objective", ["reconstruction", "task"])
def test_a_public_start_is_learned_from_the_public_records_alone(
    small: Callable[..., RunConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objective: str
) -> None:
    monkeypatch.setenv("FL_PPAE_HOME", str(tmp_path / "home"))
    config = small(start="public", objective=objective)
    dataset = resolve(config)
    found = common_start(config, dataset).state_dict()
    random = local_model_of(config).state_dict()
    assert any(not torch.equal(found[name], value) for name, value in random.items())
    monkeypatch.setenv("FL_PPAE_HOME", str(tmp_path / "another home"))
    again = common_start(config, replace(dataset, train=dataset.test)).state_dict()
    assert all(torch.equal(found[name], value) for name, value in again.items())


def test_a_head_behind_a_fixed_encoder_starts_at_0_unless_it_was_trained(
    small: Callable[..., RunConfig], tmp_path: Path
) -> None:
    config = small(**HEAD)
    dataset = resolve(config)
    head = common_start(config, dataset).partner
    assert all(torch.equal(parameter, torch.zeros_like(parameter)) for parameter in head.parameters())
    state = trained(config)
    path = tmp_path / "start.safetensors"
    write_start(path, state)
    started = config.model_copy(update={"start": str(path)})
    assert all(torch.equal(state[k], v) for k, v in common_start(started, dataset).state_dict().items())
    save_file({name: value for name, value in state.items() if name.startswith("encoder.")}, path)
    headless = common_start(started, dataset)
    assert not any(parameter.any() for parameter in headless.partner.parameters())
    assert torch.equal(headless.state_dict()["encoder.2.weight"], state["encoder.2.weight"])


def test_a_head_of_other_classes_is_left_out_and_an_encoder_may_come_alone(
    small: Callable[..., RunConfig], tmp_path: Path
) -> None:
    config = small(objective="task")
    state, path = trained(config), tmp_path / "start.safetensors"
    other = {**state, "partner.2.weight": torch.zeros(7, 16), "partner.2.bias": torch.zeros(7)}
    save_file(other, path)
    model = local_model_of(config)
    assert not load_start(path, model)
    assert torch.equal(model.state_dict()["encoder.2.bias"], state["encoder.2.bias"])
    save_file({name[8:]: value for name, value in state.items() if name.startswith("encoder.")}, path)
    alone = local_model_of(config)
    assert not load_start(path, alone)
    assert torch.equal(alone.encoder.state_dict()["2.bias"], state["encoder.2.bias"])


DAMAGES: dict[str, tuple[Callable[[dict[str, torch.Tensor]], object], str]] = {
    "missing": (lambda state: state.pop("encoder.2.bias"), "it lacks encoder.2.bias; this run's arrays are"),
    "more": (lambda state: state.update({"encoder.9.x": torch.zeros(1)}), "it has also encoder.9.x"),
    "shape": (
        lambda state: state.update({"encoder.2.bias": torch.zeros(3)}),
        r"encoder.2.bias has the shape \(3,\), but this run's has \(16,\)",
    ),
    "type": (lambda state: state.update({"encoder.2.bias": torch.zeros(16, dtype=int)}), "type int64"),
    "not a number": (lambda state: state["encoder.2.bias"].fill_(torch.nan), "not finite or above 1e"),
    "too large": (lambda state: state["partner.2.bias"].fill_(1e7), "not finite or above 1e"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_is_not_of_this_runs_network_is_refused_in_one_line(
    small: Callable[..., RunConfig], tmp_path: Path, damage: str
) -> None:
    config = small(objective="task")
    state, path = trained(config), tmp_path / "start.safetensors"
    change, words = DAMAGES[damage]
    change(state)
    save_file(state, path)
    model = local_model_of(config)
    with pytest.raises(UserError, match=words) as mistake:
        load_start(path, model)
    assert "\n" not in str(mistake.value)
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in local_model_of(config).state_dict().items())


def test_a_file_that_can_not_be_read_is_refused_in_one_line(
    small: Callable[..., RunConfig], tmp_path: Path
) -> None:
    model = local_model_of(small())
    with pytest.raises(UserError, match="nowhere: No such file"):
        load_start(tmp_path / "nowhere", model)
    (tmp_path / "text").write_text("not weights")
    with pytest.raises(UserError, match="text is not a safetensors file"):
        load_start(tmp_path / "text", model)
