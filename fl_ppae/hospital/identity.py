"""Who a node is, according to its own configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fl_ppae.errors import UserError

NodeConfig = Mapping[str, bool | int | float | str]


@dataclass(frozen=True)
class Identity:
    """Who a node is.

    Attributes:
        index: its position among the hospitals, from 0; sums and randomness depend on it.
        hospitals: number of hospitals in the federation.
        deployed: True if it has its own data file.
    """

    name: str
    index: int
    hospitals: int
    deployed: bool


def identify(node: NodeConfig) -> Identity:
    """Who a node is, from its own configuration.

    Raises:
        UserError: it has no partition-id or num-partitions.
    """
    try:
        index, hospitals = int(node["partition-id"]), int(node["num-partitions"])
    except KeyError as error:
        raise UserError(
            f"the node config has no {error.args[0]}; start the SuperNode with "
            '--node-config "partition-id=0 num-partitions=2"'
        ) from None
    return Identity(str(node.get("hospital", f"hospital-{index}")), index, hospitals, "data-file" in node)
