"""Panoptic quality: reference numbers, torchmetrics on random scenes, and what void and crowds forgive."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.detection import panoptic_quality

from segpipe.panoptic_quality import PanopticQuality, Segments

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden/instances.json").read_text())["panoptic_quality"]


def test_golden_panoptic_quality() -> None:
    inputs, expected = GOLDEN["inputs"], GOLDEN["expected"]

    def segments(kind: str) -> Segments:
        numbers, table = np.array(inputs[f"{kind}_segment_ids"]), inputs[f"{kind}_segments"]
        renumbered = np.zeros(numbers.shape, np.int32)
        for i, name in enumerate(table, start=1):
            renumbered[numbers == int(name)] = i
        return Segments(numbers=renumbered, categories=np.array(list(table.values())) - 1, crowds=np.zeros(len(table), bool))

    quality = PanopticQuality(["1", "2", "3"], things=[False, True, True])
    quality.add(segments("gt"), segments("pred"))
    document = quality.document()
    for ours, theirs in ((document, "All"), (document["things"], "Things"), (document["stuff"], "Stuff")):
        for key in ("pq", "sq", "rq"):
            assert ours[key] == pytest.approx(expected["groups"][theirs][key], rel=1e-12)
        assert ours["classes"] == expected["groups"][theirs]["n"]
    for name, counts in expected["counts"].items():
        row = document["by_class"][name]
        assert [row[key] for key in ("tp", "fp", "fn")] == [counts[key] for key in ("tp", "fp", "fn")]
        assert row["pq"] == (pytest.approx(expected["per_class"][name]["pq"]) if name != "3" else None)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_panoptic_quality_equals_torchmetrics(seed: int) -> None:
    """Random patches; class 0 is stuff, 1 and 2 are things, and what truth calls 3 is void."""
    rng = np.random.default_rng(seed)
    quality = PanopticQuality(["stuff", "thing", "other"], things=[False, True, True])
    maps: dict[str, list[np.ndarray]] = {"truth": [], "predicted": []}
    for _ in range(2):
        truth = np.kron(rng.integers(0, [[[4, 3]]], (4, 4, 2)), np.ones((3, 3, 1), int))
        predicted = np.where(rng.random((12, 12, 1)) < 0.75, truth, np.roll(truth, 3, axis=1))
        predicted[..., 0] %= 3
        for kind, array in (("truth", truth), ("predicted", predicted)):
            array[..., 1][array[..., 0] == 0] = 0  # stuff has no instances
            maps[kind].append(array)
        quality.add(*(_segments_of(array) for array in (truth, predicted)))
    ours, theirs = (
        quality.document(),
        panoptic_quality(
            torch.tensor(np.stack(maps["predicted"])),
            torch.tensor(np.stack(maps["truth"])),
            things={1, 2},
            stuffs={0},
            return_per_class=True,
        ),
    )
    order = {1: 0, 2: 1, 0: 2}  # it puts things first
    for k, row in enumerate(ours["by_class"].values()):
        assert (row["pq"] or 0) == pytest.approx(float(theirs[0, order[k]]), abs=1e-6)


def _segments_of(array: np.ndarray) -> Segments:
    """(H, W, 2) of class and instance number as segments; class 3 is void."""
    pairs, numbers = np.unique(array.reshape(-1, 2), axis=0, return_inverse=True)
    void = pairs[:, 0] == 3
    table = np.where(void, 0, np.cumsum(~void))
    return Segments(
        numbers=table[numbers.reshape(array.shape[:2])].astype(np.int32),
        categories=pairs[~void, 0],
        crowds=np.zeros(int((~void).sum()), bool),
    )


def test_void_and_crowds_forgive_what_lies_on_them() -> None:
    """Ten columns: four of void, three of a crowd, three of ground. What lies there by more than half is not wrong."""
    truth = np.repeat([[0] * 4 + [1] * 3 + [2] * 3], 4, axis=0).astype(np.int32)
    sides = Segments(numbers=truth, categories=np.array([1, 0]), crowds=np.array([True, False]))

    def wrong(columns: slice, category: int) -> tuple[int, int]:
        numbers = np.zeros((4, 10), np.int32)
        numbers[:, columns] = 1
        quality = PanopticQuality(["ground", "disc", "star"], things=[False, True, True])
        quality.add(sides, Segments(numbers=numbers, categories=np.array([category]), crowds=np.zeros(1, bool)))
        return int(quality.fp.sum()), int(quality.fn.sum())

    assert wrong(slice(2, 9), 1) == (0, 1)  # five of seven columns on void or the crowd; only the ground is missed
    assert wrong(slice(2, 9), 2) == (1, 1)  # a crowd of another class forgives nothing
    assert wrong(slice(2, 6), 2) == (1, 1)  # exactly half on void is not more than half
    assert wrong(slice(1, 6), 2) == (0, 1)
