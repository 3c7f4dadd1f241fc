"""A scope says of every module of a hospital's model how it learns, and of its epsilon what it is."""

from __future__ import annotations

import pytest

from fl_ppae.config import RunConfig
from fl_ppae.models.build import local_model_of
from fl_ppae.privacy.scopes import MODULES, SCOPES


def test_the_modules_are_those_of_a_hospitals_model() -> None:
    assert [name for name, _ in local_model_of(RunConfig()).named_children()] == list(MODULES)


@pytest.mark.parametrize("name", list(SCOPES))
def test_a_scope_says_of_every_module_how_it_learns_and_says_it_once(name: str) -> None:
    scope = SCOPES[name]
    assert sorted((*scope.noised, *scope.plain, *scope.frozen)) == sorted(MODULES)


@pytest.mark.parametrize(
    ("name", "formal"), [("none", False), ("encoder", False), ("frozen-decoder", True), ("autoencoder", True)]
)
def test_a_scope_is_formal_only_if_nothing_learns_without_noise(name: str, formal: bool) -> None:
    assert SCOPES[name].formal == formal
