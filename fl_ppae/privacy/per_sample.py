"""Per-sample gradients of small networks, by hooks: one matrix product per layer and record.

No guarantee of its own: `clipping.clipped_sum` takes norms of exactly the numbers that it sums, whatever
their precision. They match Opacus's `GradSampleModule` (arXiv:2109.12298), against which they are tested,
and are several times as fast for the convolutions here: patches are copied in channels-last order, in
which a row of a patch is already contiguous, and multiplied in bfloat16 on request. A linear layer's
gradient is the outer product of two vectors and is never formed; its norm is the product of their norms
(Goodfellow 2015, arXiv:1510.01799). A network that is applied to each record alone (`privacy.alone`) counts
as one layer, with gradients by `torch.func`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fl_ppae.hardware import CPU
from fl_ppae.privacy.alone import Alone, visible_modules

NORM_BLOCK = 128  # squares that are added in float32
_CACHED = 2**17  # float64 numbers that a processor's cache holds


@dataclass(frozen=True, eq=False)
class Dense:
    """One parameter's gradients as `values` (N, *any); `arrange` reshapes a sum to the parameter's shape.

    Sums over records are float64. A norm adds blocks of `NORM_BLOCK` squares in float32 and the blocks in
    float64, so that its relative error is a few float32 roundings however long the gradient is.
    """

    values: Tensor
    arrange: Callable[[Tensor], Tensor] = lambda total: total

    def squared_norms(self) -> Tensor:
        """(N,) float64."""
        rows = self.values.float().flatten(1)
        whole = rows.shape[1] // NORM_BLOCK * NORM_BLOCK
        blocks = torch.linalg.vector_norm(rows[:, :whole].unflatten(1, (-1, NORM_BLOCK)), dim=2)
        return blocks.double().square().sum(1) + rows[:, whole:].double().square().sum(1)

    def weighted_sum(self, factors: Tensor) -> Tensor:
        """Sum over records of their factor, (N,), times their gradient, float64."""
        rows, factors = self.values.flatten(1), factors.double()
        total = rows.new_zeros(rows.shape[1], dtype=torch.float64)
        at_once = len(rows) if rows.is_cuda else max(1, _CACHED // max(1, rows.shape[1]))
        exact = rows.new_empty(rows[:at_once].shape, dtype=torch.float64)
        for some, theirs in zip(rows.split(at_once), factors.split(at_once), strict=True):
            total.addmv_(exact[: len(some)].copy_(some).T, theirs)
        return self.arrange(total.view(self.values.shape[1:]))

    def without(self, finite: Tensor) -> Dense:
        """The same with zeros for records that are not `finite` (N,)."""
        mask = finite.view(-1, *[1] * (self.values.dim() - 1))
        return Dense(self.values.where(mask, torch.zeros_like(self.values)), self.arrange)


@dataclass(frozen=True, eq=False)
class Outer:
    """A linear layer's weight gradients as factors: left (N, p) times right (N, d), float32.

    Arithmetic on them is float64, because one factor may be as large as the other is small.
    """

    left: Tensor
    right: Tensor

    def squared_norms(self) -> Tensor:
        """(N,) float64."""
        return self.left.double().square().sum(1) * self.right.double().square().sum(1)

    def weighted_sum(self, factors: Tensor) -> Tensor:
        """Sum over records of their factor, (N,), times their gradient, (p, d) float64."""
        return (factors.double()[:, None] * self.left.double()).T @ self.right.double()

    def without(self, finite: Tensor) -> Outer:
        """The same with zeros for records that are not `finite` (N,)."""
        kept = finite[:, None]
        return Outer(*(part.where(kept, torch.zeros_like(part)) for part in (self.left, self.right)))


Gradients = Dense | Outer


class PerSampleGradients:
    """Hooks on a module's layers that keep what per-sample gradients are computed from.

    A record is `copies` rows of a batch, one after another, and its gradient is the sum of theirs. The next
    `take` overwrites what `take` returned. The module's parameters stop requiring gradients, so that a
    backward pass computes no others. The loss must be the *sum* over records.

    Raises:
        TypeError: a layer with parameters is neither Conv2d (zero padding, one group, no dilation) nor
            Linear nor GroupNorm nor `Alone`; a parameter is frozen or belongs to two layers. In a forward
            pass: a layer is used twice, or a Linear on other inputs than (N, d).
    """

    def __init__(self, module: nn.Module, *, bfloat16: bool, copies: int = 1) -> None:
        self._layers = [layer for layer in visible_modules(module) if _parameters(layer)]
        for layer in self._layers:
            _check(layer)
        _check_parameters(self._layers)
        self._module = module.requires_grad_(False)
        self._order = [id(parameter) for parameter in module.parameters()]
        self._type = torch.bfloat16 if bfloat16 else torch.float32
        self._copies = copies
        self._used: set[nn.Module] = set()
        self._seen: dict[nn.Module, tuple[Tensor, Tensor]] = {}
        self._scratch = Scratch()
        self._hooks = [layer.register_forward_hook(self._remember) for layer in self._layers]

    def take(self) -> list[Gradients]:
        """The gradients since the last call, in the order of the module's parameters."""
        found: dict[int, Gradients] = {}
        self._used.clear()
        for layer in self._layers:
            inputs, outputs = self._seen.pop(layer)
            for parameter, gradients in _gradients(layer, inputs, outputs, self._type, self._scratch):
                found[id(parameter)] = gradients if self._copies == 1 else _summed(gradients, self._copies)
        return [found[key] for key in self._order]

    def remove(self) -> None:
        """Remove the hooks, so that the module can be trained in other ways."""
        for hook in self._hooks:
            hook.remove()
        self._module.requires_grad_(True)

    def _remember(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if not torch.is_grad_enabled():
            return
        if layer in self._used:
            raise TypeError(f"no per-sample gradients of {layer}, which is used twice")
        if isinstance(layer, nn.Linear) and inputs[0].dim() != 2:
            raise TypeError(f"no per-sample gradients of {layer} on inputs of shape {tuple(inputs[0].shape)}")
        self._used.add(layer)
        if not output.requires_grad:
            output.requires_grad_()  # nothing before it does: the backward pass ends here
        activations = inputs[0].detach()
        output.register_hook(lambda gradient: self._seen.__setitem__(layer, (activations, gradient)))


def _summed(gradients: Gradients, copies: int) -> Dense:
    """The gradients of records that are `copies` rows each, (N / copies, ...) of (N, ...)."""
    if isinstance(gradients, Dense):
        return Dense(gradients.values.unflatten(0, (-1, copies)).sum(1), gradients.arrange)
    left, right = (part.unflatten(0, (-1, copies)) for part in (gradients.left, gradients.right))
    return Dense(torch.bmm(left.mT, right))


@contextmanager
def half_precision(enabled: bool, device: torch.device = CPU) -> Iterator[None]:
    """Run layers on `device` in bfloat16 inside the block."""
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled):
        yield


def _check(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear | nn.GroupNorm | Alone):
        return
    if isinstance(layer, nn.Conv2d):
        plain = layer.groups == 1 and layer.dilation == (1, 1) and layer.padding_mode == "zeros"
        if plain and not isinstance(layer.padding, str):
            return
    raise TypeError(f"no per-sample gradients of {layer}")


def _check_parameters(layers: list[nn.Module]) -> None:
    owners: dict[int, nn.Module] = {}
    for layer in layers:
        for name, parameter in _parameters(layer).items():
            if not parameter.requires_grad:
                raise TypeError(f"no per-sample gradients of {layer}: its {name} is frozen")
            if id(parameter) in owners:
                raise TypeError(
                    f"no per-sample gradients of {layer}: it shares its {name} with another layer"
                )
            owners[id(parameter)] = layer


def _parameters(layer: nn.Module) -> dict[str, nn.Parameter]:
    return dict(layer.named_parameters(recurse=isinstance(layer, Alone)))


class Scratch:
    """Reused memory: allocating tens of megabytes takes longer than filling them."""

    def __init__(self) -> None:
        self._memory: dict[tuple[object, str], Tensor] = {}

    def of(self, owner: object, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """An uninitialised contiguous tensor of `like`'s type and device; one owner and name share memory."""
        found = self._memory.get((owner, name))
        if found is None or len(found) < shape[0] or found.shape[1:] != shape[1:]:
            found = self._memory[owner, name] = like.new_empty(shape)
        return found[: shape[0]]


def _gradients(
    layer: nn.Module, inputs: Tensor, outputs: Tensor, kind: torch.dtype, scratch: Scratch
) -> list[tuple[Tensor, Gradients]]:
    """Each parameter of `layer` with its gradients, of its inputs and the gradient of its outputs."""
    if isinstance(layer, Alone):
        return [(parameter, Dense(rows)) for parameter, rows in layer.gradients(inputs, outputs)]
    if isinstance(layer, nn.Linear):
        left = outputs.float()
        pairs: list[tuple[Tensor | None, Gradients]] = [(layer.weight, Outer(left, inputs.float()))]
        pairs.append((layer.bias, Dense(left)))
    elif isinstance(layer, nn.GroupNorm):
        normal = F.group_norm(inputs.float(), layer.num_groups, eps=layer.eps)
        outputs = outputs.float()
        over = tuple(range(2, outputs.dim()))
        scaled = outputs * normal
        pairs = [
            (layer.weight, Dense(scaled.sum(over) if over else scaled)),
            (layer.bias, Dense(outputs.sum(over) if over else outputs)),
        ]
    else:
        assert isinstance(layer, nn.Conv2d)
        pairs = [(layer.weight, _convolution(layer, inputs.to(kind), outputs.to(kind), scratch))]
        pairs.append((layer.bias, Dense(outputs.float().sum((2, 3)))))
    return [(parameter, gradients) for parameter, gradients in pairs if parameter is not None]


def _convolution(layer: nn.Conv2d, inputs: Tensor, outputs: Tensor, scratch: Scratch) -> Dense:
    """(N, k, k * c, p): for each record the product of its patches and the gradient of its outputs."""
    n, p, height, width = outputs.shape
    (down, right), (rows, columns), c = layer.stride, layer.kernel_size, layer.in_channels
    above, left = (int(size) for size in layer.padding)
    padded = F.pad(inputs.permute(0, 2, 3, 1), (0, 0, left, left, above, above)).contiguous()
    image, row, pixel, _ = padded.stride()
    window = padded.as_strided(
        (n, height, width, rows, columns * c), (image, row * down, pixel * right, row, 1)
    )
    size = rows * columns * c
    patches = scratch.of(layer, "patches", tuple(window.shape), inputs).copy_(window)
    patches = patches.view(n, height * width, size)
    signal = outputs.permute(0, 2, 3, 1).reshape(n, height * width, p)
    products = scratch.of(layer, "products", (n, size, p), inputs)
    torch.bmm(patches.transpose(1, 2), signal, out=products)
    if products.dtype != torch.float32:
        exact = inputs.new_empty(0, dtype=torch.float32)
        products = scratch.of(layer, "exact", (n, size, p), exact).copy_(products)
    shape = (rows, columns, c, p)
    return Dense(products, lambda total: total.reshape(shape).permute(3, 2, 0, 1).contiguous())
