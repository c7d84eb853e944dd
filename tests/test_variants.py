"""Which variants a list of names stands for."""

import pytest

from segpipe import corruptions
from segpipe.variants import MODES, declared


def test_modes_come_first_and_every_corruption_has_three_severities() -> None:
    found = declared(["tiles", "flip"], ["fog", "blur"], tta="scales", tile=[64, 96])
    assert [(v.name, v.kind, v.tta, v.tile) for v in found[:3]] == [
        ("tiles", "mode", "none", "parts"),
        ("flip", "mode", "flip", [64, 96]),
        ("fog-1", "corruption", "scales", [64, 96]),
    ]
    assert [(v.corruption, v.severity) for v in found[2:]] == [(n, s) for n in ("fog", "blur") for s in (1, 3, 5)]
    assert len(declared(MODES, corruptions.NAMES, tta="none", tile="auto")) == len(MODES) + 18
    assert declared([], [], tta="none", tile="auto") == []


@pytest.mark.parametrize(
    ("modes", "damages", "message"),
    [
        (["flop"], [], "unknown mode 'flop'. Choices: none, flip, scales, flip_scales, tiles"),
        ([], ["rain"], "unknown corruption 'rain'. Choices: noise, blur"),
        ([], ["fog", "fog"], "a corruption is named twice: fog, fog"),
    ],
)
def test_wrong_names_are_refused(modes: list[str], damages: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        declared(modes, damages, tta="none", tile="auto")
