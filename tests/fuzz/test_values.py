"""Any values of a configuration's keys: a configuration, or one line that names what is wrong."""

import math
from pathlib import Path
from typing import Any, get_args

from fuzz.cases import damaged, junk, refused_in_one_line, tiers, tried
from hypothesis import strategies as st

from fl_ppae import catalogue
from fl_ppae.config import RunConfig, declared_in
from fl_ppae.keys import kebab
from fl_ppae.models.build import encoding_shape_of

FIELDS = {kebab(name): field for name, field in RunConfig.model_fields.items()}
NUMBERS = [-1, 0, 1, 2, 3, 5, 8, 28, 64, 128, 1_000, 10**9, 10**30]
REALS = [-1.0, 0.0, 1e-320, 1e-12, 1e-5, 0.1, 0.5, 1.0, 1.5, 8.0, 1e6, 1e308, math.inf, math.nan]
SHAPES = ["3,28,28", "1,8,8", "3,0,0", "1,1", "x", "1,28,28,1", "-1,28,28", "9" * 400, "1e3,1,1"]
TEXTS = ["", "a", "a,b,c", ",", "a,a", "0,1", "0,0", "999", "0..255", "255..0", "nan..nan", "\n", "ü" * 90]


def values_of(key: str) -> st.SearchStrategy[Any]:
    """Values of a key's own type, within its range and beyond."""
    field = FIELDS[key]
    kind = field.annotation
    if literals := get_args(kind):
        return st.sampled_from(literals)
    if kind is bool:
        return st.booleans()
    if kind is int:
        return st.sampled_from([field.default, *NUMBERS]) | st.integers()
    if kind is float:
        return st.sampled_from([field.default, *REALS]) | st.floats()
    return st.sampled_from([field.default, *SHAPES, *TEXTS]) | st.text(max_size=12)


NEARLY_RIGHT = st.lists(st.sampled_from(sorted(FIELDS)), max_size=6, unique=True).flatmap(
    lambda keys: st.fixed_dictionaries({key: values_of(key) for key in keys})
)
ANYTHING = st.dictionaries(st.sampled_from(sorted(FIELDS)) | st.text(max_size=9), junk(), max_size=4)


@tiers(short=60, long=4000)
def test_any_values_make_a_configuration_or_one_line(cases: int) -> None:
    refused = 0

    def check(values: dict[str, Any]) -> None:
        nonlocal refused
        made: list[RunConfig] = []
        if refused_in_one_line(lambda: made.append(RunConfig.from_flat(values))):
            refused += 1
            return
        (config,) = made
        assert RunConfig.from_flat(config.to_flat()) == config
        refused_in_one_line(lambda: encoding_shape_of(config))
        refused_in_one_line(lambda: declared_in(config))

    tried(cases, NEARLY_RIGHT | ANYTHING, check)
    assert 0 < refused < cases, "control: some of either kind"


@tiers(short=100, long=1500)
def test_any_text_as_an_override_is_a_value_or_one_line(cases: int) -> None:
    pairs = st.tuples(st.sampled_from(sorted(FIELDS)), st.text(max_size=15) | st.sampled_from(TEXTS + SHAPES))

    def check(text: str) -> None:
        refused_in_one_line(lambda: catalogue.find("mnist_iid").config(catalogue.parse_overrides([text])))

    tried(cases, pairs.map("=".join) | st.text(max_size=30), check)


@tiers(short=60, long=1000)
def test_any_pyproject_is_a_simulation_or_one_line(cases: int, tmp_path: Path) -> None:
    file = tmp_path / "pyproject.toml"
    sound = (catalogue.available()["mnist_iid"] / "pyproject.toml").read_bytes()

    def check(content: bytes) -> None:
        file.write_bytes(content)
        refused_in_one_line(lambda: catalogue.find(str(tmp_path)).config({}))

    tried(cases, damaged(sound) | st.binary(max_size=60), check)
