"""Two models on the same segments: pairing, units, tests, and what is said of them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segpipe.failures.versus import MEASURES, pair_rows, read, sign_flip_p, versus
from segpipe.resampling import holm
from tests.imports import ROOT

FACTS = json.loads((ROOT / "tests/golden/statistics.json").read_text())


def table(inside: np.ndarray, **others: object) -> pd.DataFrame:
    """One segment on each of n images."""
    n = len(inside)
    columns = {
        "id": [f"im{i}" for i in range(n)],
        "segment": np.arange(n) % 3 + 1,
        "label": 1,
        "iou": 0.5,
        "cell": 8.0,
        "hirescam_inside": inside,
        "gradcam_inside": inside / 2,
        "hirescam_entropy": 0.6,
        "deletion": 0.1,
    }
    return pd.DataFrame(columns | others)


def compare(
    a: pd.DataFrame, b: pd.DataFrame, *, units: dict[str, int] | None = None, names: tuple[str, str] = ("unet", "fcn")
) -> dict:
    units = units or {name: i for i, name in enumerate(a["id"])}
    found = versus(dict(zip(names, (a, b), strict=True)), [names], units=units, resamples=500, alpha=0.05, seed=0)
    assert len(found) == 1
    return found[0]


def by_name(document: dict) -> dict[str, dict]:
    return {row["measure"]: row for row in document["measures"]}


def test_a_clear_difference_is_said() -> None:
    rng = np.random.default_rng(0)
    b = np.clip(rng.normal(0.48, 0.08, 30), 0, 1)
    document = compare(table(b + 0.14 + rng.normal(0, 0.05, 30)), table(b))
    row = by_name(document)["hirescam_inside"]
    assert set(by_name(document)) == set(MEASURES)
    assert row["difference"] == pytest.approx(row["a"] - row["b"]) == pytest.approx(0.14, abs=0.03)
    assert 0 < row["low"] < row["difference"] < row["high"] and row["n"] == 30 and row["win_rate"] > 0.9
    assert row["p_holm"] < 0.02
    text = document["sentence"]
    assert text.startswith("On 30 common segments unet's evidence lies inside the object more than fcn's (6")
    assert "evidence inside the segment (Grad-CAM)" in text and "sharp" not in text
    swapped = compare(table(b), table(b + 0.14), names=("fcn", "unet"))
    assert "unet's evidence lies inside the object more than fcn's" in swapped["sentence"]
    assert "it does on 100 %" in swapped["sentence"]


def test_no_difference_is_said_too() -> None:
    rng = np.random.default_rng(1)
    document = compare(table(rng.uniform(0.3, 0.7, 30)), table(rng.uniform(0.3, 0.7, 30)))
    assert "there is no evidence that unet or fcn looks more at the object itself" in document["sentence"]
    row = by_name(document)["iou"]
    assert (row["difference"], row["p"], row["win_rate"]) == (0, 1, 0.5)


def test_missing_evidence_is_left_out_and_counted() -> None:
    a = np.full(20, 0.6)
    b = np.where(np.arange(20) < 4, np.nan, 0.5)
    document = compare(table(a), table(b, cell=32.0))
    rows = by_name(document)
    assert rows["hirescam_inside"]["n"] == 16 and rows["evidence"]["n"] == 20
    assert (rows["evidence"]["a"], rows["evidence"]["b"]) == (1.0, 0.8)
    assert "fcn shows no evidence for the true class on 4 of them." in document["sentence"]
    assert "a cell is 8 pixels wide in unet, 32 in fcn" in document["sentence"]
    nothing = compare(table(np.full(5, np.nan)), table(np.full(5, 0.5)))
    assert "cannot be compared" in nothing["sentence"] and by_name(nothing)["hirescam_inside"]["p"] is None
    assert json.dumps(nothing, allow_nan=False)


def test_only_shared_segments_are_paired() -> None:
    a, b = table(np.linspace(0.2, 0.8, 6)), table(np.linspace(0.2, 0.8, 6))
    other = b.iloc[[4, 1, 5]].assign(segment=lambda t: np.where(t["id"] == "im5", 99, t["segment"]))
    assert pair_rows(a, other) == [(1, 1), (4, 0)]
    assert compare(a, other)["segments"] == 2
    assert versus({"x": a, "y": b.iloc[:0]}, [("x", "y")], units={}, resamples=10, alpha=0.05, seed=0) == []


def test_segments_of_a_unit_count_once() -> None:
    """Nine segments of one sequence and one of another: the means are over the two sequences, and so is the test."""
    difference = np.array([0.1] * 9 + [0.3])
    units = {f"im{i}": int(i == 9) for i in range(10)}
    row = by_name(compare(table(0.4 + difference), table(np.full(10, 0.4)), units=units))["hirescam_inside"]
    assert row["difference"] == pytest.approx(0.2)
    assert row["p"] == 0.5, "two units have two flips up to sign"
    alone = by_name(compare(table(0.4 + difference), table(np.full(10, 0.4)), units=dict.fromkeys(units, 0)))["hirescam_inside"]
    assert alone["low"] is None and alone["p"] is None and alone["difference"] == pytest.approx(0.12)


def test_the_sign_flip_test_equals_the_reference() -> None:
    differences = np.array(FACTS["paired"]["a"]) - np.array(FACTS["paired"]["b"])
    assert sign_flip_p(differences, resamples=1, seed=0) == FACTS["expected"]["paired_signflip_exact_two_sided_p"]
    drawn = sign_flip_p(np.tile(differences, 2), resamples=20_000, seed=0)
    assert drawn < 0.001


@settings(max_examples=10, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=2, max_size=12), st.integers(0, 5))
def test_the_two_sides_mirror_each_other(values: list[float], seed: int) -> None:
    a = 0.5 + np.array(values) / 4
    b = np.full(len(a), 0.5)
    one, other = (by_name(compare(table(x), table(y)))["hirescam_inside"] for x, y in ((a, b), (b, a)))
    assert one["p"] == other["p"] and one["difference"] == pytest.approx(-other["difference"])
    assert one["win_rate"] == pytest.approx(1 - other["win_rate"])
    assert (one["low"], one["high"]) == pytest.approx((-other["high"], -other["low"]), abs=0.05)
    tested = [row for row in compare(table(a), table(b))["measures"] if row["p"] is not None]
    assert [row["p_holm"] for row in tested] == holm([row["p"] for row in tested])


def test_unmeasured_segments_are_none(tmp_path: Path) -> None:
    assert read(tmp_path) is None
