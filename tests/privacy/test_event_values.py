"""Events take only values that mean something, and their JSON form is read as strictly."""

import json
import math
from dataclasses import replace

import pytest
from privacy.oracles import UPLOAD

from fl_ppae.privacy.events import Declared, Event, PoissonGaussian, as_dict, from_dict


@pytest.mark.parametrize(
    "wrong",
    [
        {"noise_multiplier": 0.0},
        {"noise_multiplier": -1.0},
        {"noise_multiplier": math.nan},
        {"noise_multiplier": math.inf},
        {"sample_rate": 0.0},
        {"sample_rate": 1.0001},
        {"sample_rate": math.nan},
        {"steps": 0},
        {"round": 0},
    ],
)
def test_an_event_refuses_values_out_of_range(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(PoissonGaussian(1.0, 0.1, 5, 1), **wrong)


def test_an_event_comes_back_from_its_json_form() -> None:
    event = PoissonGaussian(1.25, 0.1, 5, 3)
    assert from_dict(as_dict(event)) == event


@pytest.mark.parametrize(
    "wrong",
    [{"steps": 1.5}, {"steps": True}, {"noise_multiplier": "1"}, {"sample_rate": None}, {"extra": 1}],
)
def test_an_event_of_wrong_types_or_keys_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="an event"):
        from_dict({**as_dict(PoissonGaussian(1.0, 0.1, 5, 1)), **wrong})


def test_a_noise_multiplier_too_large_for_a_float_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="noise_multiplier"):
        from_dict({**as_dict(PoissonGaussian(1.0, 0.1, 5, 1)), "noise_multiplier": 10**400})


@pytest.mark.parametrize(
    ("event", "wrong"),
    [
        (UPLOAD[0], {"noise_multiplier": 0.0}),
        (UPLOAD[0], {"part": "val"}),
        (UPLOAD[0], {"round": 0}),
        (UPLOAD[1], {"epsilon": -1.0}),
        (UPLOAD[1], {"epsilon": math.inf}),
        (UPLOAD[1], {"classes": 1}),
    ],
)
def test_an_uploads_event_refuses_values_out_of_range(event: Event, wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(event, **wrong)
    with pytest.raises(ValueError, match=next(iter(wrong))):
        from_dict({**as_dict(event), **wrong})


@pytest.mark.parametrize("event", UPLOAD)
def test_an_uploads_event_comes_back_from_its_json_form(event: Event) -> None:
    assert from_dict(json.loads(json.dumps(as_dict(event)))) == event


@pytest.mark.parametrize(
    ("spent", "delta"), [(0.0, 1e-6), (-1.0, 1e-6), (math.inf, 1e-6), (8.0, 0.0), (8.0, 1.0)]
)
def test_nothing_is_declared_for_free(spent: float, delta: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        Declared(spent, delta)
    assert from_dict(as_dict(Declared(8.0, 1e-6))) == Declared(8.0, 1e-6)


@pytest.mark.parametrize("mechanism", ["none", "", None, 3, ["gaussian"]])
def test_an_unknown_mechanism_is_refused_by_its_name(mechanism: object) -> None:
    with pytest.raises(ValueError, match="is unknown; valid: poisson-gaussian, joint-gaussian, gaussian"):
        from_dict({**as_dict(UPLOAD[0]), "mechanism": mechanism})
