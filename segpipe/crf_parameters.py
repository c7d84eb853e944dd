"""The numbers of a dense CRF, checked, and the published sets by name: what `evaluate.crf` of params.yaml may be.

Apart from `segpipe/crf.py`, so that reading params.yaml compiles nothing.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from segpipe import components
from segpipe.strict import make

FILTERS = ("auto", "exact", "fast")
SMALLEST_SPREAD = 0.01


@dataclass(frozen=True, kw_only=True)
class CrfParameters:
    """The arguments of `segpipe.crf.mean_field`, without the images. Spreads are standard deviations."""

    bilateral_weight: float
    sxy: float
    """Pixels over which the bilateral kernel reaches."""
    srgb: float
    """Grey levels, of 0..255, over which it does."""
    gaussian_weight: float
    gaussian_sxy: float
    """Pixels over which the kernel reaches that does not look at colours."""
    iterations: int = 10
    filter: str = "auto"

    def checked(self, where: str = "") -> "CrfParameters":
        """These numbers, if they make sense.

        Raises:
            ValueError: a number is out of its range; the message starts with `where` and its name.
        """
        for names, least in ((("bilateral_weight", "gaussian_weight"), 0), (("sxy", "srgb", "gaussian_sxy"), SMALLEST_SPREAD)):
            for name in names:
                value = getattr(self, name)
                if not (math.isfinite(value) and value >= least):
                    raise ValueError(f"{where}{name}: {value!r} must be {least} or more")
        if self.iterations < 1:
            raise ValueError(f"{where}iterations: {self.iterations!r} must be 1 or more")
        if self.filter not in FILTERS:
            raise ValueError(f"{where}filter: {self.filter!r}. Choices: {', '.join(FILTERS)}.")
        return self

    def __str__(self) -> str:
        return (
            f"bilateral {self.bilateral_weight:g} sxy {self.sxy:g} srgb {self.srgb:g}, gaussian {self.gaussian_weight:g}"
            f" sxy {self.gaussian_sxy:g}, {self.iterations} iterations, filter {self.filter}"
        )


def _published(bilateral_weight: float, sxy: float, srgb: float, gaussian_weight: float, gaussian_sxy: float) -> CrfParameters:
    return CrfParameters(
        bilateral_weight=bilateral_weight, sxy=sxy, srgb=srgb, gaussian_weight=gaussian_weight, gaussian_sxy=gaussian_sxy
    )


# All with ten iterations and, but for the first, made for VOC 2012 at about 500 x 375 pixels.
PARAMETERS: dict[str, CrfParameters] = {
    # The demo of Krahenbuhl & Koltun, whose numbers DeepLab's program has as its defaults (refine_pascal/dense_inference.cpp).
    "densecrf": _published(10, 60, 20, 3, 3),
    # The authors' run_densecrf.sh for VOC 2012 test (mirror TheLegendAli/DeepLab-Context@20484a5b). The paper searched the first
    # three on 100 images (5..10; 50..100; 3..10), with the last two held.
    "deeplabv1": _published(5, 50, 3, 3, 3),
    # kazuto1011/deeplab-pytorch@4219467f, configs/voc12.yaml: the numbers that were released with the model.
    "deeplabv2-resnet101": _published(4, 67, 3, 3, 1),
    # Those of the VGG16 model, as several re-implementations quote them; the authors' own page was not at hand.
    "deeplabv2-vgg16": _published(4, 65, 3, 2, 2),
    # run_densecrf.sh for vgg16 in mirrors of deeplab-public-ver2.
    "deeplabv2-vgg16-script": _published(4, 49, 5, 3, 3),
    # HyeonwooNoh/DeconvNet, inference/generate_EDeconvNet_CRF_results.m.
    "deconvnet": _published(5, 20, 3, 3, 3),
}


def read_crf(value: Any, where: str) -> CrfParameters | None:
    """What `value` of params.yaml asks for: none, a published set by its name, or a mapping of the numbers.

    Raises:
        ValueError: neither of these; the message starts with `where` and names the choices.
    """
    if isinstance(value, Mapping):
        row: CrfParameters = make(CrfParameters, value, where, choices={"filter": FILTERS})
        return row.checked(f"{where}.")
    if value == "none":
        return None
    if not isinstance(value, str) or value not in PARAMETERS:
        names = ", ".join(("none", *PARAMETERS))
        numbers = ", ".join(f.name for f in fields(CrfParameters))
        hint = components.suggestion(str(value), ("none", *PARAMETERS))
        raise ValueError(f"{where}: {value!r}.{hint} Choices: {names}, or a mapping with {numbers}.")
    return PARAMETERS[value]
