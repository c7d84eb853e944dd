"""Other ways to predict the same test split: other inference modes, and images gone bad. Declared here, without torch.

A mode is the network asked more often, or piece by piece; its labels are compared with those of the main mode, on the same images.
A corruption is the main mode on damaged images (`corruptions.py`). Both are of the network alone, also where a CRF follows it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from segpipe import corruptions

TTA = ("none", "flip", "scales", "flip_scales")
"""The keys of `inference.TTA`."""
MODES = (*TTA, "tiles")
"""What `evaluate.modes` may name: a test-time augmentation on the main mode's tiles, or `tiles`, four overlapping parts of the
image blended with Gaussian weights, without augmentation."""
KIND_MODE, KIND_CORRUPTION = "mode", "corruption"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One more way: `tta` and `tile` are as `inference.predict` takes them; a corruption has a name and a severity."""

    name: str
    tta: str
    tile: str | Sequence[int]
    corruption: str | None = None
    severity: int = 0

    @property
    def kind(self) -> str:
        """ "mode" or "corruption"."""
        return KIND_MODE if self.corruption is None else KIND_CORRUPTION


def declared(modes: Sequence[str], damages: Sequence[str], *, tta: str, tile: str | Sequence[int]) -> list[Variant]:
    """The variants that params.yaml asks for: `modes` of `MODES` in their order, then each of the corruptions `damages` in all
    severities, named `noise-1`, `noise-3`, ...; `tta` and `tile` are those of the main mode.

    Raises:
        ValueError: a name is unknown, or is there twice.
    """
    for kind, names, choices in (("mode", modes, MODES), ("corruption", damages, corruptions.NAMES)):
        for name in names:
            if name not in choices:
                raise ValueError(f"unknown {kind} {name!r}. Choices: {', '.join(choices)}.")
        if len(set(names)) < len(names):
            raise ValueError(f"a {kind} is named twice: {', '.join(names)}")
    found = [
        Variant(name=name, tta="none", tile="parts") if name == "tiles" else Variant(name=name, tta=name, tile=tile)
        for name in modes
    ]
    return found + [
        Variant(name=f"{name}-{severity}", tta=tta, tile=tile, corruption=name, severity=severity)
        for name in damages
        for severity in corruptions.SEVERITIES
    ]
