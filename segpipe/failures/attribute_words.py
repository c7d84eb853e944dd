"""Attributes in plain words, and what can be done about each of them: which ones an intervention can change.

A name is `<scope>/<what>`: `object` (the segment itself), `around` (its surroundings), `image`, `with` (a class in the image),
`beside` (a class in the surroundings); or `group`, `folder` (where the image came from).
"""

from collections.abc import Sequence

WORDS = {
    "around/brightness": ("brightness of the surroundings", "in darker surroundings", "in brighter surroundings"),
    "around/saturation": ("saturation of the surroundings", "in paler surroundings", "in more colourful surroundings"),
    "around/red_green": ("red less green of the surroundings", "in greener surroundings", "in redder surroundings"),
    "around/yellow_blue": ("yellow less blue of the surroundings", "in bluer surroundings", "in yellower surroundings"),
    "around/texture": ("texture of the surroundings", "in smoother surroundings", "in more finely textured surroundings"),
    "image/brightness": ("brightness of the image", "in darker images", "in brighter images"),
    "image/saturation": ("saturation of the image", "in paler images", "in more colourful images"),
    "image/red_green": ("red less green of the image", "in greener images", "in redder images"),
    "image/yellow_blue": ("yellow less blue of the image", "in bluer images", "in yellower images"),
    "image/texture": ("texture of the image", "in smoother images", "in more finely textured images"),
    "image/contrast": ("contrast of the image", "in images of low contrast", "in images of high contrast"),
    "image/sharpness": ("sharpness of the image", "in blurred images", "in sharp images"),
    "image/classes": ("number of classes in the image", "in images of few classes", "in images of many classes"),
    "object/brightness": ("brightness of the object", "where it is dark", "where it is bright"),
    "object/saturation": ("saturation of the object", "where it is pale", "where it is colourful"),
    "object/red_green": ("red less green of the object", "where it is greener", "where it is redder"),
    "object/yellow_blue": ("yellow less blue of the object", "where it is bluer", "where it is yellower"),
    "object/texture": ("texture of the object", "where it is smooth", "where it is finely textured"),
    "object/contrast": ("contrast to the surroundings", "where it is about as bright as its surroundings", "where it stands out"),
    "object/size": ("size", "where it is small", "where it is large"),
    "object/shape": ("height by width", "where it is wide", "where it is tall"),
    "object/row": ("height in the image", "high up in the image", "low down in the image"),
    "object/column": ("place from left to right", "towards the left", "towards the right"),
    "object/border": ("contact with the image's border", "inside the image", "at the image's border"),
    "object/others": ("others of its class", "where few others of its class are there", "where many others of its class are there"),
}
"""What is measured, and where it is low and where it is high."""
SWAPPED = ("around/", "image/", "group", "folder")
"""What moving an object into other images changes."""
KEPT = ("image/classes",)


def words(name: str, side: str, class_names: Sequence[str], level: str | None = None) -> tuple[str, str]:
    """What an attribute is, and where it has this `side` (low, high, or is: the `level` of a group or folder), for people."""
    scope, _, what = name.partition("/")
    if name in WORDS:
        return WORDS[name][0], WORDS[name][1 if side == "low" else 2]
    if scope in ("with", "beside"):
        c = class_names[int(what)]
        if scope == "with":
            return f"{c} in the image", f"in images {'without' if side == 'low' else 'with'} {c}"
        return f"{c} beside it", f"{'without' if side == 'low' else 'with'} {c} beside it"
    assert scope in ("group", "folder"), name
    return f"{scope} of the image", f"in the {scope} {level or '(none)'}"


def remedy(name: str, side: str, predicted: int) -> str | None:
    """How the suspected cause can be taken away: swap the surroundings, fill the other class's pixels, or None: it cannot.

    The presence of the `predicted` class itself is none: its evidence spills over to its neighbours, bias or not.
    """
    if name.startswith(SWAPPED) and name not in KEPT:
        return "swap"
    scope, _, what = name.partition("/")
    return "fill" if scope in ("with", "beside") and side == "high" and int(what) != predicted else None
