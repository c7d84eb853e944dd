"""Do maps depend on what the network learned? Weights are randomised stage by stage, from the head to the trunk.

Cascading randomisation of Adebayo et al. 2018 (arXiv 1810.03292): a map that stays the same when the weights behind it are noise
draws the image's edges, not what the network computes. It runs on copies; the network itself is never touched.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import nn

from segpipe.failures.look import KINDS, Answer, Question, Viewer
from segpipe.failures.measures import rank_correlation

STAGES = 4
SIDE = 7
"""Cells of a side of the windows that SSIM compares; less where a map is smaller."""
SUPPORT = 1e-6
"""Cells where both maps are below this share of their greatest absolute value are not compared: there is nothing in either."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """`modules` of a network, by name, that are randomised together, and words for them."""

    modules: tuple[str, ...]
    words: str


def stages_of(model: nn.Module, run: Callable[[], object], *, count: int = STAGES) -> list[Stage]:
    """The modules with weights of their own in up to `count` equal parts, those that run last first.

    `run` sends something through `model`, which tells the order; what it does not call (weights used without their module)
    goes into the last part.
    """
    with_weights = {
        name: module for name, module in model.named_modules() if next(module.parameters(recurse=False), None) is not None
    }
    called: list[str] = []
    handles = [module.register_forward_hook(lambda *_, name=name: called.append(name)) for name, module in with_weights.items()]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    first = list(dict.fromkeys(called))
    order = [name for name in with_weights if name not in set(first)] + first
    parts = [part for part in np.array_split(np.array(order[::-1], dtype=object), count) if len(part)]
    return [Stage(modules=tuple(part), words=part[0] if len(part) == 1 else f"{part[0]} to {part[-1]}") for part in parts]


def randomise(module: nn.Module, generator: torch.Generator) -> None:
    """Set the module's own weights as if it had never been trained, in place.

    Matrices and kernels are drawn from N(0, 2 / fan in) (He et al. 2015), vectors named `weight` become 1 and `bias` 0, other
    vectors are drawn with their own deviation; running statistics become mean 0 and variance 1.
    """
    with torch.no_grad():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim >= 2:
                drawn = torch.randn(parameter.shape, generator=generator)
                transposed = isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d)
                fan_in = parameter.shape[0] if transposed else parameter[0].numel()
                parameter.copy_(drawn * (2 / fan_in) ** 0.5)
            elif name.endswith(("weight", "bias")):
                parameter.fill_(1.0 if name.endswith("weight") else 0.0)
            else:
                spread = float(parameter.std()) if parameter.numel() > 1 else 1.0
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
        for name, buffer in module.named_buffers(recurse=False):
            if name in ("running_mean", "running_var"):
                buffer.fill_(1.0 if name == "running_var" else 0.0)


def cascade(
    viewer: Viewer, image: np.ndarray, question: Question, original: Answer, *, layer: str, stages: Sequence[Stage], seed: int
) -> list[dict[str, tuple[float, float]]]:
    """How alike the maps of one region stay as stage after stage is randomised, all earlier ones included.

    Args:
        original: what the network itself answers to `question`.

    Returns:
        For each stage, by kind of map, the |Spearman| correlation and the SSIM with the original on `layer`, each the mean over
        the maps of the two classes.
    """
    model = copy.deepcopy(viewer.model)
    names = {id(module): name for name, module in viewer.model.named_modules()}
    mine = replace(viewer, model=model, layers={layer: model.get_submodule(names[id(viewer.layers[layer])])})
    generator = torch.Generator().manual_seed(seed)
    found = []
    for stage in stages:
        for name in stage.modules:
            randomise(model.get_submodule(name), generator)
        (answer,) = mine.ask(image, [question])
        found.append({kind: alike(original.maps[layer][kind], answer.maps[layer][kind]) for kind in KINDS})
    return found


def alike(original: np.ndarray, changed: np.ndarray) -> tuple[float, float]:
    """Mean |Spearman| and mean SSIM of pairs of raw maps (n, h, w), over the cells where either has a value.

    A pair in which one map is constant or not finite has nothing in common: 0.
    """
    correlations, structures = [], []
    for a, b in zip(original.astype(np.float64), changed.astype(np.float64), strict=True):
        if not (np.isfinite(a).all() and np.isfinite(b).all() and a.any() and b.any()):
            correlations.append(0.0)
            structures.append(0.0)
            continue
        a, b = a / np.abs(a).max(), b / np.abs(b).max()
        support = (np.abs(a) > SUPPORT) | (np.abs(b) > SUPPORT)
        correlations.append(abs(float(np.nan_to_num(rank_correlation(a[support], b[support])))))
        # Zeros all around are alike in any two local maps: only the box that holds the values is looked at.
        box = tuple(slice(at.min(), at.max() + 1) for at in np.nonzero(support))
        structures.append(float(structure(a[box], b[box])[support[box]].mean()))
    return float(np.mean(correlations)), float(np.mean(structures))


def structure(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The SSIM index (Wang et al. 2004) around every cell of two maps (h, w) of values in -1..1: float64 (h, w).

    Means, variances and covariances are those of windows of SIDE cells (uniform weights, unbiased), mirrored at the border.
    """
    side = min(SIDE, *a.shape)
    side -= 1 - side % 2
    unbiased = side * side / max(side * side - 1, 1)

    def mean(values: np.ndarray) -> np.ndarray:
        averaged: np.ndarray = cv2.blur(values, (side, side), borderType=cv2.BORDER_REFLECT)
        return averaged

    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b = unbiased * (mean(a * a) - mean_a**2), unbiased * (mean(b * b) - mean_b**2)
    cov = unbiased * (mean(a * b) - mean_a * mean_b)
    index: np.ndarray = (2 * mean_a * mean_b + c1) * (2 * cov + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return index
