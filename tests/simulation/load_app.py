"""The hospitals' app, of whose replies to `train` one in ten fails at random; runs in process and on Ray.

Half of them fail before they have read the request, and half after they have paid and trained. Which ones
follows from round and hospital alone, so a test knows what every ledger has to hold.
"""

import random

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fl_ppae import client_app

SHARE = 0.1
BEFORE, AFTER, ANSWERS = "before", "after", "answers"


def fate(server_round: int, hospital: int) -> str:
    """What becomes of a hospital's reply in a round."""
    drawn = random.Random(f"{server_round}/{hospital}").random()
    return BEFORE if drawn < SHARE / 2 else AFTER if drawn < SHARE else ANSWERS


class Failing(ClientApp):
    def __call__(self, message: Message, context: Context) -> Message:
        if message.metadata.message_type != "train":
            return client_app.app(message, context)
        server_round = int(message.content["config"]["server-round"])
        planned = fate(server_round, int(context.node_config["partition-id"]))
        if planned == BEFORE:
            raise RuntimeError("planned failure before the request was read")
        reply = client_app.app(message, context)
        if planned == AFTER:
            raise RuntimeError("planned failure after training")
        return reply


app = Failing()
