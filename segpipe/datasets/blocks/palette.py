"""Colours for classes whose source gives them none."""

import colorsys
from collections.abc import Sequence

GOLDEN = 0.618033988749895
"""Of the circle of hues: the step that keeps the hues farthest apart however many there are."""
RINGS = ((0.65, 0.95), (0.90, 0.65), (0.40, 0.80), (0.75, 0.45))
"""(saturation, value), taken in turns of seven hues."""
BACKGROUND = (96, 96, 96)
"""Grey is none of the distinct colours, and lets the objects stand out."""


def of_names(names: Sequence[str]) -> list[tuple[int, int, int]]:
    """A colour for each class, all different: grey for the one called background, if there is one."""
    left = iter(distinct(len(names)))
    return [BACKGROUND if name.strip("_").lower() == "background" else next(left) for name in names]


def distinct(count: int) -> list[tuple[int, int, int]]:
    """`count` colours (r, g, b in 0..255), at most 2000, all different and the same ones every time; neighbours differ most."""
    assert count <= 2000, f"{count} colours are more than can be told apart"
    colours: dict[tuple[int, int, int], None] = {}
    step = 0
    while len(colours) < count:
        saturation, value = RINGS[step // 7 % len(RINGS)]
        red, green, blue = colorsys.hsv_to_rgb(step * GOLDEN % 1.0, saturation, value)
        colours[round(255 * red), round(255 * green), round(255 * blue)] = None
        step += 1
    return list(colours)
