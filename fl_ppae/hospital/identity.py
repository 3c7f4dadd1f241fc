"""Who a node is, according to its own configuration."""

from __future__ import annotations

from dataclasses import dataclass

from fl_ppae.hospital.node_keys import NodeKeys


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


def identify(node: NodeKeys) -> Identity:
    """Who a node is, from its own configuration."""
    name = node.hospital or f"hospital-{node.partition_id}"
    return Identity(name, node.partition_id, node.num_partitions, node.deployed)
