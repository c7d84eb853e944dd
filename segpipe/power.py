"""How many test images it takes to see a difference: what "no evidence" is worth."""

import math
from dataclasses import dataclass

from scipy import special

POWER = 0.8
DIFFERENCE = 0.01
"""The difference that a reader is assumed to care about: 1 point of mIoU."""


@dataclass(frozen=True, kw_only=True)
class More:
    """How many more independent units ("image", "group" or "run"), and images in them, it takes to see 1 mIoU point."""

    units: int
    unit: str
    images: int


def units_needed(
    sd: float, swap_sd: float, units: int, *, alpha: float, difference: float = DIFFERENCE, power: float = POWER
) -> int:
    """Images (or groups) with which the label-swap test at `alpha` would see a true `difference` with probability `power`.

    `sd` is the bootstrap standard deviation of the paired difference over `units` of them, widened here by sqrt(n / (n - 1)) as
    draws from n units spread too little; `swap_sd` is that of the difference when labels are swapped, which the test compares
    with: the two are alike for models that err alike, and swaps spread wider where each has classes of its own to be good at.
    Both shrink with the root of the number of images, so n = units * ((z_(1 - alpha / 2) swap_sd + z_power sd) / difference)^2.
    It is never fewer than the swaps need to reach `alpha` at all, 2^(1 - n) < alpha. Where many pairs are tested, give the
    corrected alpha.
    """
    fewest = math.floor(1 - math.log2(alpha)) + 1
    if units < 2:
        return fewest
    reach = float(special.ndtri(1 - alpha / 2)) * swap_sd + float(special.ndtri(power)) * sd * math.sqrt(units / (units - 1))
    return max(fewest, math.ceil(units * (reach / difference) ** 2 - 1e-9))


def rounded_up(number: float) -> int:
    """`number` to two digits, upwards: 7, 38, 140, 2,600. An estimate of an estimate holds no more."""
    if number <= 0:
        return 0
    step = 10 ** max(0, math.floor(math.log10(number)) - 1)
    return math.ceil(number / step - 1e-9) * step


def more_words(more: More) -> str:
    """What else it would take: "at least 140 more images would be needed to see 1 mIoU point", or that these were enough."""
    size = f"{100 * DIFFERENCE:g} mIoU point"
    if more.units <= 0:
        return f"these images would probably have shown a difference of {size}"
    if more.unit == "image":
        what = f"at least {rounded_up(more.units):,} more image{'s' if more.units > 1 else ''}"
    else:
        kind = {"group": "group", "run": "run of images"}[more.unit]
        plural = kind if more.units == 1 else kind.replace("group", "groups").replace("run", "runs")
        what = f"at least {rounded_up(more.units):,} more {plural} ({rounded_up(more.images):,} images)"
    return f"{what} would be needed to see {size}"
