"""Learning-rate schedules over the planned steps of a run.

They follow the planned epochs alone, also where `minutes` may end a run earlier: a schedule that followed the clock would give
another result on every run. A preset with a time budget therefore plans as many epochs as the budget holds.
"""

import math

POWER = 0.9
NAMES = ("poly", "cosine", "constant", "exponential")


def factor(name: str, *, step: int, steps: int, epochs: int = 1, gamma: float | None = None) -> float:
    """What the base learning rate is multiplied by at `step` (0-based) of `steps`, which are `epochs` alike; in (0, 1].

    - `poly`: (1 - step/steps)^0.9, as in DeepLab (Chen et al. 2017, arXiv 1606.00915).
    - `cosine`: (1 + cos(pi * step/steps)) / 2 (Loshchilov and Hutter 2017, arXiv 1608.03983, without restarts).
    - `constant`: 1.
    - `exponential`: gamma^e in epoch e from 0, as in FC-DenseNet (Jegou et al. 2017, arXiv 1611.09326), whose gamma is 0.995.

    Raises:
        ValueError: there is no such schedule, or `exponential` has no gamma.
    """
    assert 0 <= step < steps and steps % epochs == 0, (step, steps, epochs)
    progress = step / steps
    if name == "poly":
        return float((1.0 - progress) ** POWER)
    if name == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    if name == "constant":
        return 1.0
    if name == "exponential":
        if gamma is None:
            raise ValueError("schedule 'exponential' needs gamma, by which the learning rate is multiplied after each epoch")
        return float(gamma ** (step * epochs // steps))
    raise ValueError(f"schedule {name!r}: unknown. Choices: {', '.join(NAMES)}.")
