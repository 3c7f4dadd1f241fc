"""The server's Adam is Kingma and Ba's, and the aggregation hands it the mean gradient."""

import numpy as np
from scripted_replies import RECORDS, SHAPES, Server, events, reply, update

from strategies.server_optimiser import ServerAdam

RATE = 1e-2


def adam(gradients: list[np.ndarray], rate: float = RATE) -> np.ndarray:
    """Algorithm 1 of arXiv:1412.6980 from 0, with its defaults."""
    first, second, weights = (np.zeros_like(gradients[0], dtype=float) for _ in range(3))
    for step, gradient in enumerate(gradients, start=1):
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        weights = weights - rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    return weights


def test_steps_are_adams_and_remember_earlier_gradients() -> None:
    gradients = [np.random.default_rng(seed).normal(size=(3, 2)).astype(np.float32) for seed in range(4)]
    server, weights = ServerAdam(RATE), {"w": np.zeros((3, 2), np.float32)}
    for gradient in gradients:
        weights = server.step(weights, {"w": gradient})
    np.testing.assert_allclose(weights["w"], adam(gradients), rtol=1e-4)
    assert not np.allclose(weights["w"], sum(adam([gradient]) for gradient in gradients)), "the control"


def test_a_step_starts_from_the_weights_that_were_sent() -> None:
    server, gradient = ServerAdam(RATE), {"w": np.ones(3, np.float32)}
    server.step({"w": np.zeros(3, np.float32)}, gradient)
    moved = server.step({"w": np.full(3, 5.0, np.float32)}, gradient)
    np.testing.assert_allclose(moved["w"], 5 - RATE, rtol=1e-6)


def test_the_server_steps_on_the_mean_gradient_weighted_by_the_enrolled_records() -> None:
    server = Server()
    server.strategy.optimiser = ServerAdam(RATE)
    sent: list[dict[str, np.ndarray]] = []
    for server_round in (1, 2):
        gradients = [update(10 * server_round + index) for index in range(4)]
        sent.append(
            {
                name: sum(n * one[name] for n, one in zip(RECORDS, gradients, strict=True)) / sum(RECORDS)
                for name in SHAPES
            }
        )
        questions = server.ask(server_round)
        claimed = events(*range(1, server_round + 1))
        stepped = server.take(
            [reply(q, one, claimed=claimed) for q, one in zip(questions, gradients, strict=True)],
            server_round,
        )
        assert stepped is not None
        for name in SHAPES:
            means = [one[name] for one in sent]
            before = adam(means[:-1]) if server_round > 1 else 0  # every round starts from START, which is 0
            np.testing.assert_allclose(stepped[name], adam(means) - before, rtol=1e-3, atol=1e-6)
