"""`evaluate` of params.yaml: how the test split is predicted, and in which other ways beside that."""

from dataclasses import dataclass
from typing import Any

from segpipe import components, corruptions
from segpipe.crf_parameters import CrfParameters, read_crf
from segpipe.strict import make, mapping
from segpipe.variants import MODES, TTA

TILES = ("auto", "none", "parts")


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """How the test split is predicted. `tile` is `auto`, `none`, `parts` or (height, width); `crf` none, a set's name or its
    numbers. Beside that it is predicted in each of the `modes`, and with each of the `corruptions` in all severities."""

    tta: str = "none"
    tile: Any = "auto"
    crf: CrfParameters | None = None
    modes: tuple[str, ...] = ()
    corruptions: tuple[str, ...] = ()


def read_evaluate(row: Any) -> Evaluate:
    """The section `evaluate`, checked.

    Raises:
        ValueError: a key, a value or a name is wrong; the message names the choices.
    """
    row = mapping(row, "evaluate")
    read: dict[str, Any] = {
        "crf": read_crf(row.get("crf", "none"), "evaluate.crf"),
        "modes": _names(row.get("modes"), MODES, "evaluate.modes"),
        "corruptions": _names(row.get("corruptions"), corruptions.NAMES, "evaluate.corruptions"),
    }
    if row.get("modes") == "all":
        read["modes"] = tuple(mode for mode in MODES if mode != row.get("tta", "none"))
    evaluate: Evaluate = make(Evaluate, {**row, **read}, "evaluate", choices={"tta": TTA})
    tile = evaluate.tile
    sides = isinstance(tile, list | tuple) and len(tile) == 2 and all(isinstance(v, int) and v > 0 for v in tile)
    if tile not in TILES and not sides:
        raise ValueError(f"evaluate.tile: {tile!r} must be {', '.join(TILES)} or [height, width]")
    if evaluate.tta in evaluate.modes:
        raise ValueError(f"evaluate.modes: {evaluate.tta!r} is what `evaluate.tta` has already; name other modes, or leave it out")
    return evaluate


def _names(value: Any, choices: tuple[str, ...], where: str) -> tuple[str, ...]:
    """What stands for several of `choices`: `none` or null, `all`, or a list of them, each once."""
    if value is None or value == "none":
        return ()
    if value == "all":
        return choices
    if not isinstance(value, list | tuple):
        raise ValueError(f"{where}: {value!r} must be none, all, or a list of: {', '.join(choices)}")
    for name in value:
        if name not in choices:
            hint = components.suggestion(str(name), choices)
            raise ValueError(f"{where}: {name!r}.{hint} Choices: {', '.join(choices)}.")
    if len(set(value)) < len(value):
        raise ValueError(f"{where}: {list(value)!r} names one twice")
    return tuple(value)
