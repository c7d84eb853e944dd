"""Optimisers, with the learning rate and weight decay that each parameter gets."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn, optim

NAMES = ("adamw", "sgd", "rmsprop")


def build(
    model: nn.Module,
    *,
    name: str,
    lr: float,
    weight_decay: float,
    momentum: float = 0.9,
    groups: Iterable[Mapping[str, Any]] | None = None,
) -> optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019), SGD with momentum (no Nesterov) or RMSprop over the model's trainable parameters.

    RMSprop (Tieleman and Hinton 2012) is Lasagne's, with which FC-DenseNet was trained: squared gradients averaged with 0.9, and a
    root of at least 1e-3 to divide by (Lasagne adds 1e-6 under the root, which bounds it alike); no momentum.

    Vectors and scalars, which are biases and the weights of normalisations, get no weight decay. Each group of the result keeps
    its `base_lr`, which schedules multiply.

    Args:
        model: the network.
        name: "adamw", "sgd" or "rmsprop".
        lr: base learning rate, above 0.
        weight_decay: of all parameters with two or more dimensions; a part of the gradient, but in "adamw" a step of its own.
        momentum: of "sgd" alone.
        groups: what an architecture's `param_groups(model)` answers: {"params": ..., "lr_scale": float}; None is one group.

    Raises:
        ValueError: the name is unknown, or the groups do not hold every trainable parameter exactly once.
    """
    if name not in NAMES:
        raise ValueError(f"optimizer {name!r}: unknown. Choices: {', '.join(NAMES)}.")
    rows: list[dict[str, Any]] = []
    seen: list[int] = []
    whole: list[Mapping[str, Any]] = [{"params": model.parameters()}]
    for group in whole if groups is None else groups:
        params = [p for p in group["params"] if p.requires_grad]
        seen += [id(p) for p in params]
        rate = lr * float(group.get("lr_scale", 1.0))
        for decay, members in (
            (weight_decay, [p for p in params if p.ndim > 1]),
            (0.0, [p for p in params if p.ndim <= 1]),
        ):
            if members:
                rows.append({"params": members, "lr": rate, "base_lr": rate, "weight_decay": decay})
    names = {id(p): n for n, p in model.named_parameters() if p.requires_grad}
    missing = [n for key, n in names.items() if key not in set(seen)]
    if missing or len(seen) != len(set(seen)) or len(seen) != len(names):
        raise ValueError(
            f"param_groups of {type(model).__name__} must hold every trainable parameter exactly once;"
            f" missing: {', '.join(missing[:5]) or 'none'}, given: {len(seen)} of {len(names)}"
        )
    if name == "adamw":
        return optim.AdamW(rows, lr=lr)
    if name == "rmsprop":
        return optim.RMSprop(rows, lr=lr, alpha=0.9, eps=1e-3)
    return optim.SGD(rows, lr=lr, momentum=momentum)


def set_lr(optimizer: optim.Optimizer, factor: float) -> None:
    """Set each group's learning rate to its `base_lr` times `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
