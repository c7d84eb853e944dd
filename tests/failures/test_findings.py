"""What is said first about a model, and in which order."""

from typing import Any

import pytest

from segpipe.failures.findings import MOST, findings


def document(**steps: Any) -> dict[str, Any]:
    row = {"regions": 3, "pixels": 90, "share": 0.6, "cost": 0.021, "cost_low": 0.008, "cost_high": 0.0331, "meaning": "thin"}
    suspects = {"modifier": "suspect", "regions": 2, "share": 0.2}
    return {
        "pixels": 1000,
        "wrong_pixels": 150,
        "wrong_share": 0.15,
        "miou": 0.7,
        "images": 4,
        "regions": 6,
        "chosen": 5,
        "min_area": 32,
        "main_layer": "deep",
        "images_with_errors": 3,
        "pairs": [{**row, "true_name": "pole", "predicted_name": "sky"}],
        "modes": [{**row, "mode": "boundary"}, {**row, "mode": "missed", "cost": 0.03, "cost_low": None, "cost_high": None}],
        "modifiers": [suspects],
    } | steps


def test_costs_come_with_their_intervals() -> None:
    found = findings(document())
    assert [one["claim"] for one in found] == [
        "pole predicted as sky costs most: 2.10 points of mIoU (95 % 0.80 to 3.31).",
        "The costliest kind of error is “missed”: 3.00 points of mIoU.",
        "20.0 % of the wrong pixels may be wrong labels.",
    ]
    assert all(one["text"].endswith(".") for one in found)


def test_what_comes_before_what() -> None:
    bias = {"findings": [{"sentence": "Discs on grass are missed.", "intervention": {"sentence": "Swapped, they are found."}}] * 2}
    sanity = {"passed": False, "sentence": "Random weights give the same maps."}
    found = findings(document(bias=bias, sanity=sanity))
    assert len(found) == MOST
    assert found[0]["claim"].startswith("A bias was found, and confirmed")
    assert found[0]["text"] == "Discs on grass are missed. Swapped, they are found. 1 more was confirmed."
    assert found[1]["claim"].startswith("pole predicted as sky")
    assert found[2] == {"claim": "The maps on this page are not evidence for this model.", "text": sanity["sentence"]}
    assert findings(document(chosen=0))[2] == {
        "claim": "No region was explained:",
        "text": "the largest of 6 error regions is smaller than 32 pixels.",
    }
    for unclear in ({"passed": True, "sentence": ""}, {"passed": False, "status": "unknown", "sentence": ""}):
        claims = [one["claim"] for one in findings(document(bias={"findings": []}, sanity=unclear))]
        assert not any("bias" in claim or "evidence" in claim for claim in claims)


def test_where_the_evidence_lies_is_said_only_of_maps_that_did_not_fail() -> None:
    near = {"errors": {"median": 0.25, "n": 5}, "controls": {"median": 0.5, "n": 4}}
    plain = {"modifiers": [{"modifier": "suspect", "regions": 0, "share": 0.0}]}
    steps = plain | {"measures": {"deep": {"hirescam": {"predicted_near": near}}}}
    last = findings(document(**steps))[-1]
    assert last["claim"] == "Where the network errs, 25.0 % of the predicted class's evidence lies on the error."
    assert "on 4 matched correct regions it is 50.0 %" in last["text"]
    failed = findings(document(**steps, sanity={"passed": False, "status": "failed", "sentence": "Noise."}))
    assert not any("lies on the error" in one["claim"] for one in failed)
    near["errors"]["median"] = None
    assert len(findings(document(**steps))) == 2


@pytest.mark.parametrize(
    ("pixels", "words"), [(0, "no pixel of the test split has a class"), (10, "all 10 pixels of 4 test images")]
)
def test_a_model_without_errors(pixels: int, words: str) -> None:
    found = findings(document(pixels=pixels, wrong_pixels=0, wrong_share=None, pairs=[]))
    assert len(found) == 1 and found[0]["text"].startswith(words)
