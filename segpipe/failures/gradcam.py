"""Class activation maps of a segmentation network: Grad-CAM and HiResCAM of any class over any set of pixels.

The score of a target is a weighted sum of one class's logits, never of probabilities (which mix in the other classes and
saturate). Maps are returned as they are before the ReLU, at the layer's own resolution: nothing is normalised here, so
maps may be added, subtracted and compared. Both kinds are linear in the score: the map of z_a - z_b is map(z_a) - map(z_b).

- Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391; over regions: Vinogradova et al. 2020, arXiv 2002.11434):
  sum_k alpha_k A_k with alpha_k the mean of dy/dA_k over space. The mean forgets where the gradient was, so the map may light up
  anywhere that looks alike.
- HiResCAM (Draelos and Carin 2020, arXiv 2011.08891): sum_k (dy/dA_k) * A_k, which keeps to the places the score depends on.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from segpipe.failures.local_backward import LocalBackward


@dataclass(frozen=True, kw_only=True)
class Target:
    """The score y = sum(weights * logits[image, class_index]).

    `weights` (H, W) lies on the logits' grid: a mask gives the sum over its pixels, a mask divided by its area the mean, which
    makes regions of different sizes comparable.
    """

    class_index: int
    weights: np.ndarray
    image: int = 0


@dataclass(frozen=True, kw_only=True)
class LayerMaps:
    """The maps of T targets on one layer of C channels, in the dtype of the layer, before the ReLU.

    `gradcam` and `hirescam` are (T, h, w); `alpha` (T, C) are the channel weights of Grad-CAM.
    """

    gradcam: np.ndarray
    hirescam: np.ndarray
    alpha: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Activation:
    """`scores` (T,) of the targets, their maps by layer name, and the (height, width) of what the network was given."""

    scores: np.ndarray
    layers: dict[str, LayerMaps]
    given: tuple[int, int]


def class_activation(
    model: nn.Module,
    x: Tensor,
    *,
    layers: Mapping[str, nn.Module],
    targets: Sequence[Target],
    forward: Callable[[nn.Module, Tensor], Tensor] | None = None,
) -> Activation:
    """The maps of all targets on all layers, from one forward pass.

    No graph is kept below the first of the layers, and parameters get no gradients. Targets of different images of the batch
    share backward passes: there are as many as the image with the most targets has.

    Args:
        model: the network; it runs in eval mode, so that images do not depend on their batch mates.
        x: float (N, C, H, W).
        layers: modules of `model` that return (N, C', h, w) and run once per forward pass.
        targets: at least one; their weights have the size of the logits.
        forward: (model, x) -> logits (N, K, H', W'); the network's own "out" by default.

    Raises:
        ValueError: a target does not fit the logits, or a layer has no map (not run, run twice, not (N, C, h, w), or "out" does
            not depend on it).
    """
    if not targets:
        raise ValueError("class_activation needs at least one target")
    seen: dict[str, Tensor] = {}
    given: list[tuple[int, int]] = []

    def keep(name: str) -> Callable[[nn.Module, object, object], Tensor]:
        def hook(module: nn.Module, inputs: object, output: object) -> Tensor:
            if name in seen:
                raise ValueError(f"the layer {name!r} runs more than once per forward pass, so it has no single map")
            if not isinstance(output, Tensor) or output.ndim != 4:
                found = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
                raise ValueError(f"the layer {name!r} returns {found}; a map needs a layer that returns (N, C, h, w)")
            # The graph starts at the first layer; those after it are already part of it.
            seen[name] = output if output.requires_grad else output.detach().requires_grad_()
            # What follows may work in place (ReLU); the kept tensor must stay as the layer returned it.
            return seen[name].clone()

        return hook

    def note_size(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        given.append((inputs[0].shape[-2], inputs[0].shape[-1]))

    handles = [layer.register_forward_hook(keep(name)) for name, layer in layers.items()]
    handles.append(model.register_forward_pre_hook(note_size))
    try:
        with _frozen(model), torch.enable_grad():
            with LocalBackward():
                logits = forward(model, x) if forward else model(x)["out"]
            if missing := [name for name in layers if name not in seen]:
                raise ValueError(f"the layer {missing[0]!r} did not run in the forward pass")
            scores, gradients = _gradients(logits, seen, targets)
    finally:
        for handle in handles:
            handle.remove()
    images = torch.tensor([target.image for target in targets], device=logits.device)
    maps = {}
    for name, gradient in zip(seen, gradients, strict=True):
        activation = seen[name].detach()[images]
        alpha = gradient.mean(dim=(2, 3))
        maps[name] = LayerMaps(
            gradcam=torch.einsum("tc,tchw->thw", alpha, activation).cpu().numpy(),
            hirescam=(gradient * activation).sum(dim=1).cpu().numpy(),
            alpha=alpha.cpu().numpy(),
        )
    return Activation(scores=scores.cpu().numpy(), layers={name: maps[name] for name in layers}, given=given[0])


def _gradients(logits: Tensor, seen: Mapping[str, Tensor], targets: Sequence[Target]) -> tuple[Tensor, list[Tensor]]:
    """Scores (T,), and for each kept layer dy/dA (T, C, h, w) of each target's own image."""
    images, classes, size = logits.shape[0], logits.shape[1], tuple(logits.shape[-2:])
    scores: list[Tensor] = []
    rounds: list[list[int]] = []
    filled: dict[int, int] = {}
    for index, target in enumerate(targets):
        if not (0 <= target.image < images and 0 <= target.class_index < classes and target.weights.shape == size):
            raise ValueError(
                f"target: image {target.image}, class {target.class_index}, weights {target.weights.shape}, but the logits"
                f" are of {images} images, {classes} classes, {size}"
            )
        weights = torch.tensor(target.weights).to(logits)
        scores.append((logits[target.image, target.class_index] * weights).sum())
        number = filled.get(target.image, 0)
        filled[target.image] = number + 1
        if number == len(rounds):
            rounds.append([])
        rounds[number].append(index)
    if not logits.requires_grad:
        raise ValueError(f"the logits depend on none of the layers {', '.join(seen)}")
    gradients = [activation.new_empty((len(targets), *activation.shape[1:])) for activation in seen.values()]
    for number, members in enumerate(rounds):
        # Images of a batch do not touch each other in eval mode, so the gradient of the sum holds each image's own.
        y = torch.stack([scores[i] for i in members]).sum()
        found = torch.autograd.grad(y, list(seen.values()), retain_graph=number + 1 < len(rounds), allow_unused=True)
        for name, gradient, into in zip(seen, found, gradients, strict=True):
            if gradient is None:
                raise ValueError(f"the logits do not depend on the layer {name!r}")
            for i in members:
                into[i] = gradient[targets[i].image]
    return torch.stack(scores).detach(), gradients


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Eval mode and parameters without gradients inside; everything as it was after."""
    modes = [(module, module.training) for module in model.modules()]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval()
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter in trained:
            parameter.requires_grad_(True)
