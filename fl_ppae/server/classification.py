"""The classifier of encodings: logistic regression, MLP, ResNet18 or the common head. Fits all but the last,
and scores, saves and restores them.

Functions over arrays; a network computes on its own device. On a CPU the same seed and number of threads
give the same bits.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fl_ppae.errors import UserError
from fl_ppae.hardware import CPU, SKLEARN, limited_threads
from fl_ppae.models.autoencoders import build_head
from fl_ppae.models.classifiers import NAMES, as_image_shape, mlp, resnet18
from fl_ppae.models.objectives import label_losses
from fl_ppae.protection import COMMON_HEAD
from fl_ppae.server.metrics import NEVER, ClassifierScore, score
from fl_ppae.steps import step

Array = NDArray[Any]
_Loss = Callable[[Tensor, Tensor], Tensor]

# Chosen on BloodMNIST, trained on train and tested on validation.
LR_C = 0.02  # for standardised inputs; 0.003 to 0.1 differ by at most 0.05
LR_ITERATIONS = 200
RESNET_STEPS = 450  # fixed, so that the time does not grow with the number of records
RESNET_BATCH = 128
RESNET_RATE = 3e-3
_TOLD_EVERY = 50


@dataclass(frozen=True)
class NetworkTraining:
    """How a network is trained: `steps` of AdamW with `batch` encodings each, at most at `rate`."""

    steps: int = RESNET_STEPS
    batch: int = RESNET_BATCH
    rate: float = RESNET_RATE


_MLP_TRAINING = NetworkTraining(steps=600)


@dataclass(frozen=True)
class FittedClassifier:
    """A trained classifier and its standardisation: `network((x - mean) / scale)`.

    `mean` and `scale` have the shape of an encoding, or one that broadcasts to it.
    """

    network: nn.Module
    mean: Tensor
    scale: Tensor

    def probabilities(self, encodings: Array) -> Array:
        """Class probabilities (N, num_classes), float64, of encodings (N, *encoding)."""
        found: Array = torch.from_numpy(self.scores(encodings)).double().softmax(1).numpy()
        return found

    @torch.inference_mode()
    def scores(self, encodings: Array, batch: int = 1024) -> Array:
        """Class scores (N, num_classes), float32, of encodings (N, *encoding): logits."""
        self.network.eval()
        device = self.mean.device
        scores = [
            self.network((torch.from_numpy(np.ascontiguousarray(part)).to(device) - self.mean) / self.scale)
            for part in (encodings[i : i + batch] for i in range(0, len(encodings), batch))
        ]
        found: Array = torch.cat(scores).cpu().numpy()
        return found

    def to(self, device: torch.device) -> FittedClassifier:
        """The same classifier on `device`."""
        return FittedClassifier(self.network.to(device), self.mean.to(device), self.scale.to(device))


def classifier_state(fitted: FittedClassifier) -> dict[str, Tensor]:
    """Every tensor of a fitted classifier by name, for `safetensors`."""
    state = {f"network.{name}": value for name, value in fitted.network.state_dict().items()}
    state |= {"mean": fitted.mean, "scale": fitted.scale}
    return {name: value.detach().contiguous() for name, value in state.items()}


def score_head(head: nn.Module, x: Array, y: Array) -> tuple[FittedClassifier, ClassifierScore]:
    """A copy of the task `head` as a classifier, which standardises nothing, and its score.

    x (N, *encoding) float32; y (N,) integers, or label sets (N, K).
    """
    encoding = x.shape[1:]
    classifier = FittedClassifier(copy.deepcopy(head).cpu(), torch.zeros(encoding), torch.ones(encoding))
    return classifier, score(np.asarray(y), classifier.scores(x))


def restore_classifier(classifier: str, state: Mapping[str, Tensor], num_classes: int) -> FittedClassifier:
    """The fitted `classifier`, one of `NAMES` or the common head, whose `classifier_state` is `state`.

    Raises:
        RuntimeError, KeyError: the state belongs to a different network.
    """
    mean, scale = state["mean"], state["scale"]
    weights = {name.removeprefix("network."): value for name, value in state.items() if "network." in name}
    network: nn.Module = nn.utils.skip_init(nn.Linear, mean.numel(), num_classes)
    if "weight" in weights:  # of encodings that are vectors
        pass
    elif build := _NETWORKS.get(classifier):
        network = build(tuple(mean.shape), num_classes, 0)
    else:
        network = nn.Sequential(nn.Flatten(), network)
    network.load_state_dict(weights)
    return FittedClassifier(network.eval(), mean, scale)


def fit_and_score(
    classifier: str,
    train_x: Array,
    train_y: Array,
    test_x: Array,
    test_y: Array,
    num_classes: int,
    seed: int,
    threads: int,
    transition: Array | None = None,
    resnet: NetworkTraining = NetworkTraining(),
    device: torch.device = CPU,
) -> tuple[FittedClassifier, ClassifierScore]:
    """Train `classifier` ('lr', 'mlp' or 'resnet18') on encodings and score it on others.

    Returns it on the CPU. x (N, *encoding) float; y (N,) integers below `num_classes`, or label sets
    (N, num_classes), each 0 or 1. 'lr' never predicts a class without train records. `transition` (K, K):
    the probabilities with which true train labels were replaced. The loss is then that of the released labels
    (forward correction, Patrini et al. 2017, arXiv:1609.03683), so that the classifier learns the true ones.
    `resnet` only affects 'resnet18', and `device` the networks.

    Raises:
        UserError: `classifier` is unknown.
    """
    fits: dict[str, Callable[..., FittedClassifier]] = {
        "lr": _fit_logistic,
        "mlp": partial(_fit_network, name="mlp", training=_MLP_TRAINING, device=device),
        "resnet18": partial(_fit_network, name="resnet18", training=resnet, device=device),
    }
    fit = fits.get(classifier)
    if fit is None:
        raise UserError(f"classifier = {classifier!r} is unknown; valid: {', '.join(NAMES)}")
    importlib.import_module(SKLEARN)  # before the limit, so that it applies to its threads too
    # A second thread hardly speeds up the BLAS here, and waiting for it on a busy machine costs tenfold.
    with limited_threads(1 if classifier == "lr" else threads):
        x, y = np.asarray(train_x, np.float32), np.array(train_y, np.int64)
        fitted = fit(x, y, num_classes, seed, transition)
        scores = fitted.scores(np.asarray(test_x, np.float32))
        return fitted.to(CPU), score(np.asarray(test_y), scores)


def _standardisation(inputs: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """Mean and standard deviation over `axes`; the deviation of a constant is 1.

    The mean is computed in float64: in float32, its rounding error would look like a deviation of a
    constant.
    """
    mean = inputs.mean(axes, np.float64, keepdims=True).astype(np.float32)
    deviation = inputs.std(axes, mean=mean)
    return mean.squeeze(axes), np.where(deviation > 1e-6, deviation, 1).astype(np.float32)


def released_label_loss(scores: Tensor, labels: Tensor, transition: Tensor) -> Tensor:
    """Mean cross-entropy in nats of released labels (N,), given scores (N, K) of the true labels."""
    joint = scores.log_softmax(1) + transition.log().T[labels]
    return -joint.logsumexp(1).mean()


def _loss_of(transition: Array | None) -> _Loss:
    """The mean loss of released labels, given how they were randomised; None if they are true."""
    if transition is None:
        return lambda scores, labels: label_losses(scores, labels).mean()
    spread = torch.from_numpy(transition).float()
    return lambda scores, labels: released_label_loss(scores, labels, spread.to(scores.device))


def _fit_logistic(
    inputs: Array, labels: Array, num_classes: int, seed: int, transition: Array | None
) -> FittedClassifier:
    """Multinomial logistic regression; of label sets, one for each label. Draws nothing: `seed` is unused."""
    from sklearn.linear_model import LogisticRegression

    mean, scale = _standardisation(inputs, (0,))
    flat = ((inputs - mean) / scale).reshape(len(inputs), -1)
    linear = nn.utils.skip_init(nn.Linear, flat.shape[1], num_classes)  # draws nothing
    if transition is not None or labels.ndim > 1:
        _minimise(linear, torch.from_numpy(flat), torch.from_numpy(labels), _loss_of(transition))
        return FittedClassifier(
            nn.Sequential(nn.Flatten(), linear), torch.from_numpy(mean), torch.from_numpy(scale)
        )
    with torch.no_grad():
        linear.weight.zero_()
        linear.bias.fill_(NEVER)
        present = np.unique(labels)
        if len(present) == 1:
            linear.bias[present] = 0
        else:
            model = LogisticRegression(C=LR_C, max_iter=LR_ITERATIONS, tol=1e-3).fit(flat, labels)
            # For two classes scikit-learn keeps one row, the difference of the scores.
            both = len(present) == 2
            rows = present[1:] if both else present
            linear.bias[present] = 0
            linear.weight[rows] = torch.from_numpy(model.coef_).float()
            linear.bias[rows] = torch.from_numpy(model.intercept_).float()
    return FittedClassifier(
        nn.Sequential(nn.Flatten(), linear), torch.from_numpy(mean), torch.from_numpy(scale)
    )


def _minimise(linear: nn.Linear, inputs: Tensor, labels: Tensor, loss_of: _Loss) -> None:
    """Minimise scikit-learn's objective, 1 / (2 C) |W|^2 + sum of losses, with this loss."""
    parameters = [nn.init.zeros_(parameter) for parameter in linear.parameters()]
    optimiser = torch.optim.LBFGS(parameters, max_iter=LR_ITERATIONS, line_search_fn="strong_wolfe")
    penalty = 1 / (2 * LR_C * len(inputs))

    def closure() -> float:
        optimiser.zero_grad()
        loss = loss_of(linear(inputs), labels) + penalty * linear.weight.square().sum()
        loss.backward()
        return float(loss.detach())

    optimiser.step(closure)


def _resnet18_network(encoding: tuple[int, ...], num_classes: int, seed: int) -> nn.Sequential:
    channels, height, width = as_image_shape(encoding)
    view = nn.Unflatten(1, (channels, height, width)) if len(encoding) == 1 else nn.Identity()
    return nn.Sequential(view, resnet18(channels, max(height, width), num_classes, seed))


_NETWORKS: Mapping[str, Callable[[tuple[int, ...], int, int], nn.Module]] = {
    "mlp": mlp,
    "resnet18": _resnet18_network,
    COMMON_HEAD: build_head,
}


def _fit_network(
    inputs: Array,
    labels: Array,
    num_classes: int,
    seed: int,
    transition: Array | None,
    name: str,
    training: NetworkTraining,
    device: torch.device,
) -> FittedClassifier:
    network = _NETWORKS[name](inputs.shape[1:], num_classes, seed)
    mean, scale = _standardisation(inputs, (0,))
    fitted = FittedClassifier(network, torch.from_numpy(mean), torch.from_numpy(scale)).to(device)
    x = (torch.from_numpy(inputs).to(device) - fitted.mean) / fitted.scale
    y = torch.from_numpy(labels).to(device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=training.rate, weight_decay=0.05, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, training.rate, total_steps=training.steps)
    generator, loss_of = torch.Generator().manual_seed(seed), _loss_of(transition)
    network.train()
    for done in range(training.steps):
        if done % _TOLD_EVERY == 0:
            step(f"training the classifier {name}, step {done}/{training.steps}")
        rows = torch.randint(len(x), (training.batch,), generator=generator)
        optimiser.zero_grad()
        loss_of(network(x[rows]), y[rows]).backward()
        optimiser.step()
        schedule.step()
    return fitted
