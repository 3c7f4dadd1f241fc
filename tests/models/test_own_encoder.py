"""A user's own encoder is isolated by construction or has no guarantee, and a wrong one is one line."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fl_ppae.config import RunConfig
from fl_ppae.errors import UserError
from fl_ppae.models.build import autoencoder_of, encoding_shape_of, own_identity
from fl_ppae.models.own_encoder import own_network
from fl_ppae.privacy.alone import Alone
from fl_ppae.privacy.per_sample import PerSampleGradients

IMAGE = (1, 8, 8)
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Callable[[Any], str]:
    """`importable(build)` is the name under which the key `encoder` finds it."""

    def name(build: Any) -> str:
        module = "own_" + "".join(filter(str.isalnum, request.node.name))
        monkeypatch.setitem(sys.modules, module, SimpleNamespace(build=build))  # type: ignore[arg-type]
        return f"{module}:build"

    return name


class Network(nn.Module):
    """Weights of its own, and one step that a test chooses."""

    def __init__(self, then: Callable[[Tensor], Tensor] = lambda rows: rows) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 64) / 8)
        self.then = then

    def forward(self, images: Tensor) -> Tensor:
        return self.then(images.flatten(1) @ self.weight.T)


def known_layers() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Tanh())


def test_known_layers_stay_and_others_see_one_record_at_a_time(importable: Callable[[Any], str]) -> None:
    known = own_network(importable(lambda image, size: known_layers()), 0, IMAGE, 1)
    assert isinstance(known.autoencoder.encoder, nn.Sequential)
    assert (known.shape, known.problem) == ((4,), "")
    other = own_network(importable(lambda image, size: Network(torch.tanh)), 0, IMAGE, 2)
    assert isinstance(other.autoencoder.encoder, Alone)
    assert (other.shape, other.problem) == ((4,), "")


def test_per_sample_gradients_are_those_of_each_record_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    model = own_network("own_encoder:build", 0, (3, 28, 28), 1).autoencoder
    by_hooks = own_network("own_encoder:build", 0, (3, 28, 28), 1).autoencoder
    assert isinstance(model.encoder, Alone)
    images = torch.rand(5, 3, 28, 28)
    gradients = PerSampleGradients(by_hooks, bfloat16=False)
    (by_hooks(images) - images).square().sum().backward()
    found = gradients.take()
    for number, image in enumerate(images):
        model.zero_grad()
        (model(image[None]) - image[None]).square().sum().backward()
        alone = torch.eye(5)[number]
        for parameter, rows in zip(model.parameters(), found, strict=True):
            expected, mine = parameter.grad, rows.weighted_sum(alone).float()
            assert torch.allclose(mine, expected, rtol=1e-3, atol=1e-4)
            other = rows.weighted_sum(alone.roll(1)).float()
            assert not torch.allclose(other, expected, rtol=1e-3, atol=1e-4), "control: another record's"


MIXING: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "mean over records": (lambda rows: rows - rows.mean(0), "other results than on two together"),
    "dropout": (lambda rows: nn.functional.dropout(rows, 0.5), "random"),
    "depends on values": (lambda rows: rows if float(rows.sum()) > 0 else -rows, "on single records"),
}


@pytest.mark.parametrize("how", MIXING)
def test_what_is_not_isolated_by_construction_runs_without_dp_alone(
    how: str, importable: Callable[[Any], str]
) -> None:
    then, reason = MIXING[how]
    name = importable(lambda image, size: Network(then))
    for scope in ("autoencoder", "frozen-decoder", "encoder"):
        with pytest.raises(UserError, match=f'only run with dp-scope = "none".*Network.*{reason}') as told:
            encoding_shape_of(mnist(encoder=name, **{"dp-scope": scope}))
        assert "\n" not in str(told.value)
    assert encoding_shape_of(mnist(encoder=name, **{"dp-scope": "none"})) == (4,)


def test_a_network_that_remembers_other_records_is_not_isolated(importable: Callable[[Any], str]) -> None:
    kept = [torch.zeros(2, 4)]

    def remember(rows: Tensor) -> Tensor:
        kept.append(rows.detach())
        return rows + kept[-2].mean()

    found = own_network(importable(lambda image, size: Network(remember)), 0, IMAGE, 1)
    assert "Network is not known to act on each record alone" in found.problem


def mnist(**keys: Any) -> RunConfig:
    source = {"dataset": "custom", "data-file": "x", "image-shape": "1,8,8", "class-names": "a,b"}
    return RunConfig.from_flat({**source, **keys})


def frozen() -> nn.Module:
    network = Network()
    network.weight.requires_grad_(False)
    return network


def twice() -> nn.Module:
    network = Network()
    network.again = network.weight
    return network


counter = iter(range(1000))
WRONG: dict[str, tuple[Callable[..., Any], str]] = {
    "no module": (lambda image, size: 3, "int is neither an nn.Module nor a pair"),
    "a buffer": (lambda image, size: nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)), "use GroupNorm"),
    "no weights": (lambda image, size: nn.Flatten(), "no weights"),
    "frozen": (lambda image, size: frozen(), "must be finite float32 and learn"),
    "double": (lambda image, size: Network().double(), "must be finite float32 and learn"),
    "two names": (lambda image, size: twice(), "a weight with two names"),
    "another size": (
        lambda image, size: nn.Sequential(nn.Flatten(), nn.Linear(65, 4)),
        "it fails on rows of",
    ),
    "a scalar": (lambda image, size: Network(lambda rows: rows.sum(1)), r"two images became \(2,\)"),
    "too large": (lambda image, size: nn.Linear(2**13, 2**12), "at most 16,777,216 weights"),
    "decoder": (lambda image, size: (Network(), nn.Linear(4, 4)), "decoder does not return images"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_network_that_does_not_fit_is_one_line(what: str, importable: Callable[[Any], str]) -> None:
    build, line = WRONG[what]
    with pytest.raises(UserError, match=line) as told:
        own_network(importable(build), 0, IMAGE, 1)
    assert str(told.value).startswith("encoder = 'own_")
    assert "\n" not in str(told.value)


def test_builds_must_repeat_under_one_seed_and_sizes_be_those_asked_for(
    importable: Callable[[Any], str],
) -> None:
    def unseeded(image: object, size: object) -> nn.Module:
        network = Network()
        nn.init.constant_(network.weight, next(counter))
        return network

    with pytest.raises(UserError, match="two builds with one seed differ"):
        own_network(importable(unseeded), 0, IMAGE, 1)
    with pytest.raises(UserError, match="an encoding has 4 numbers, but encoding-size = 5"):
        own_network(importable(lambda image, size: Network()), 5, IMAGE, 1)


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"encoder": "nowhere.at_all:build"}, "No module named 'nowhere'.*PYTHONPATH"),
        ({"encoder": "json:nothing"}, "json has no function nothing"),
        ({"encoder": "json"}, "encoder = 'json': must be package.module:function"),
        ({"encoder": "json;import os:x"}, "must be package.module:function"),
        ({"encoder": "json:loads", "autoencoder": "fc"}, 'takes the place of autoencoder = "fc"'),
        ({"encoder": "json:loads", "trains": "last"}, "which layer is its last is not known"),
    ],
)
def test_a_wrong_key_is_one_line(keys: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line) as told:
        encoding_shape_of(mnist(**keys))
    assert "\n" not in str(told.value)


def test_a_decoder_of_ones_own_is_used_and_code_that_changes_is_another_network(
    importable: Callable[[Any], str],
) -> None:
    def pair(image: object, size: object) -> tuple[nn.Module, nn.Module]:
        return Network(), nn.Sequential(nn.Linear(4, 64), nn.Sigmoid(), nn.Unflatten(1, IMAGE))

    own = mnist(encoder=importable(pair), seed=3)
    assert isinstance(autoencoder_of(own).decoder[0], nn.Linear)
    before = own_identity(own)
    assert own_identity(own) == before
    assert own_identity(own.model_copy(update={"seed": 4})) != before
    assert own_identity(mnist()) == ()
