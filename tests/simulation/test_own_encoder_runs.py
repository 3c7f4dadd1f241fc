"""Runs with a user's encoder: formal where records are isolated, otherwise never called so."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from support import Run
from torch import Tensor, nn

from fl_ppae.errors import UserError

EXAMPLES = Path(__file__).parents[2] / "examples"
OWN = {"autoencoder": "conv", "encoding_size": 0}


@pytest.mark.parametrize(
    "keys",
    [
        {"objective": "task"},
        pytest.param(
            {"local_steps": 1, "dp_scope": "frozen-decoder", "protection": "secagg"}, marks=pytest.mark.slow
        ),
        pytest.param(
            {"share": "encodings", "encoding_noise_epsilon": 4.0, "label_epsilon": 2.0},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["task", "one step, masked", "encodings"],
)
def test_the_example_runs_federated_with_a_formal_guarantee(
    keys: dict, federate: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    run = federate("own", encoder="own_encoder:build", num_server_rounds=1, **OWN, **keys)
    assert (run.summary["status"], run.summary["formal"]) == ("completed", True)
    card = (run.path / "privacy_card.md").read_text()
    assert "`own_encoder:build`" in card
    assert "trusted" in card


class Mixing(nn.Sequential):
    """A known container's subclass, which subtracts the mean over records."""

    def forward(self, images: Tensor) -> Tensor:
        rows: Tensor = super().forward(images)
        return rows - rows.mean(0)


def test_what_mixes_records_runs_without_dp_alone_and_is_never_called_formal(
    federate: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = SimpleNamespace(build=lambda image, size: Mixing(nn.Flatten(), nn.Linear(784, 8)))
    monkeypatch.setitem(sys.modules, "own_mixing", made)  # type: ignore[arg-type]
    own = {"encoder": "own_mixing:build", "num_server_rounds": 1, **OWN}
    with pytest.raises(UserError, match=r'only run with dp-scope = "none".*Mixing'):
        federate("formal", **own)
    assert not federate("plain", dp_scope="none", **own).summary["formal"]
