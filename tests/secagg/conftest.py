"""Five hospitals with their keys, and a block that they have begun."""

import pytest
from secagg_parties import Parties, make_block, make_parties, make_terms

from fl_ppae.secagg.server import Block
from fl_ppae.secagg.terms import Terms


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Parties:
    return make_parties(tmp_path_factory.mktemp("five"), 5)


@pytest.fixture
def terms(request: pytest.FixtureRequest) -> Terms:
    """3 of 5 are enough; each test has a run of its own."""
    return make_terms(5, 3, run=request.node.name)


@pytest.fixture
def block(five: Parties, terms: Terms) -> Block:
    return make_block(five, terms)
