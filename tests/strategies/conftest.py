"""What one round of unmasked updates gives, with and without one hospital, to compare masked rounds with."""

import numpy as np
import pytest
from masked_federation import LATE, plain_round


@pytest.fixture(scope="module")
def of_all(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    return plain_round(tmp_path_factory.mktemp("all") / "plain")


@pytest.fixture(scope="module")
def of_the_others(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """Without `LATE`."""
    return plain_round(tmp_path_factory.mktemp("others") / "plain", LATE)
