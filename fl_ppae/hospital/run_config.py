"""The run's configuration as a hospital reads it, from whoever submitted the run."""

from __future__ import annotations

from flwr.app import Context

from fl_ppae.config import RunConfig
from fl_ppae.errors import PublicMistake, UserError
from fl_ppae.hospital.node_keys import read_node


def run_config(context: Context) -> RunConfig:
    """The configuration, checked. A deployed hospital imports no code that its operator has not named.

    Raises:
        PublicMistake: a key or value is wrong, or `encoder` is not in the node's `allowed-encoders`.
    """
    try:
        config = RunConfig.from_flat(context.run_config)
    except UserError as mistake:  # in what the server sent
        raise PublicMistake(str(mistake)) from None
    node = read_node(context.node_config)
    if config.encoder and node.deployed and config.encoder not in node.allowed_encoders:
        raise PublicMistake(
            f"the run asks for encoder = {config.encoder!r}, code that this hospital's operator has not "
            "named in allowed-encoders"
        )
    return config
