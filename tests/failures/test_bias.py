"""The whole way from errors to findings, on networks that are known to be biased or not."""

import json

import numpy as np
import pandas as pd
import pytest

from segpipe.failures import bias
from segpipe.failures.associations import associate, least_cell, suspicions
from segpipe.failures.attributes import collect
from segpipe.failures.interventions import Effect
from segpipe.shards import Sample, Split, SplitWriter, encode_image, encode_mask
from tests.failures.toy_scenes import CHEST, CRATE, GROUND, Judge, context_of, write_split

ENTRY = {
    "sentence", "true_name", "predicted_name", "attribute", "value", "rate", "rate_else", "lift", "low", "high", "p", "q",
    "regions", "images", "intervention",
}  # fmt: skip
INTERVENTION = {"kind", "change", "low", "high", "placebo", "p", "n", "sentence"}


def regions_of(context) -> pd.DataFrame:
    """One row per confused box, as `find_regions` would give."""
    table = collect(context).segments
    wrong = table[table["confused"] >= 0]
    middle = {"row": (wrong["top"] + wrong["bottom"]) / 2, "column": (wrong["left"] + wrong["right"]) / 2}
    columns = {"id": wrong["id"], "true": wrong["class"], "predicted": wrong["confused"], "area": wrong["area"], **middle}
    return pd.DataFrame(columns).reset_index(drop=True)


def analyse(context) -> dict:
    return bias.analyse(context, regions_of(context), collect(context))


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory):
    return write_split(tmp_path_factory.mktemp("toy"), images=76, clear=0.7)


def test_a_network_that_reads_the_ground_is_found_out(split) -> None:
    model = Judge("ground")
    context = context_of(split, model)
    before = model.passes
    document = analyse(context)
    assert model.passes - before <= bias.PASSES * len(split)
    found = {(entry["true_name"], entry["predicted_name"]): entry for entry in document["findings"]}
    assert set(found) == {("chest", "crate"), ("crate", "chest")}, "one finding per class pair, however many attributes go with it"
    one = found["chest", "crate"]
    assert one["key"].startswith(("around/", "image/")) and one["rate"] > 0.9 and one["rate_else"] < 0.1
    assert one["low"] > 1.5 and one["low"] <= one["lift"] <= one["high"] and one["q"] < 0.01
    assert one["intervention"]["change"] < -5 and one["intervention"]["p"] < 0.05
    assert set(one) >= ENTRY and set(one["intervention"]) >= INTERVENTION
    assert "chest is called crate" in one["sentence"] and one["intervention"]["sentence"].endswith("): confirmed.")
    assert any(f"{e['sentence']} {e['intervention']['sentence']}" in document["sentence"] for e in document["findings"])
    regions = regions_of(context)
    shown = regions.loc[one["rows"]]
    assert (
        len(shown)
        and (shown["true"] == CHEST).all()
        and (shown["predicted"] == CRATE).all()
        and set(shown["id"]) <= set(one["ids"])
    )
    assert document == analyse(context) and json.dumps(document, allow_nan=False)


def test_a_network_that_reads_the_box_has_no_bias(split) -> None:
    """It errs on boxes whose own colour is ambiguous: an association, for which nothing in the surroundings is blamed."""
    document = analyse(context_of(split, Judge("object")))
    assert document["findings"] == [] and document["tested"] > 20
    causes = {(entry["true_name"], entry["predicted_name"]): entry for entry in document["associations"]}
    assert causes["chest", "crate"]["key"] in ("object/brightness", "object/red_green", "object/yellow_blue")
    assert causes["chest", "crate"]["intervention"] is None
    assert document["sentence"].startswith("No bias was found")
    assert json.dumps(document, allow_nan=False)


def test_a_suspicion_that_the_network_does_not_bear_out_is_dropped(split) -> None:
    """The errors are those of a network that reads the ground, but the network that is asked reads the box."""
    guilty = context_of(split, Judge("ground"))
    document = analyse(context_of(split, Judge("object"), predictions=dict(guilty.predictions)))
    assert document["findings"] == [] and len(document["dropped"]) == 2
    assert all("not confirmed" in entry["intervention"]["sentence"] for entry in document["dropped"])


def test_few_objects_few_claims(tmp_path) -> None:
    model = Judge("ground")
    context = context_of(write_split(tmp_path, images=8), model)
    before = model.passes
    document = analyse(context)
    assert [document[key] for key in ("findings", "dropped", "hypotheses", "associations")] == [[]] * 4
    assert document["tested"] == 0 and document["sentence"].startswith("No bias could be looked for")
    assert model.passes == before
    assert [least_cell(n) for n in (20, 100, 150, 1000)] == [10, 20, 30, 30]


def test_a_split_without_a_label_has_nothing_to_say(tmp_path) -> None:
    with SplitWriter(tmp_path, "test") as writer:
        for name in "ab":
            picture, mask = encode_image(np.zeros((16, 16, 3), np.uint8)), encode_mask(np.full((16, 16), 255, np.uint8))
            writer.write(Sample(id=name, image=picture, mask=mask, height=16, width=16, group="", source=""))
    document = analyse(context_of(Split(tmp_path, "test"), Judge("object")))
    assert document["tested"] == 0 and document["findings"] == document["associations"] == []


def test_objects_lost_in_what_surrounds_them_are_no_bias(split) -> None:
    """Boxes missed on green ground: the swap could not tell camouflage from bias, so nothing is headlined."""
    honest = context_of(split, Judge("object"))
    predictions = {}
    for i, name in enumerate(split.ids):
        image, target = split.arrays(i)
        green = image[..., 1].mean() > image[..., 0].mean()
        predictions[name] = np.where(np.isin(target, (CRATE, CHEST)) & green, GROUND, target).astype(np.uint8)
    document = analyse(context_of(split, honest.viewer.model, predictions=predictions))
    assert document["findings"] == document["dropped"] == document["hypotheses"] == []
    assert {(e["true_name"], e["predicted_name"]) for e in document["associations"]} >= {("crate", "ground"), ("chest", "ground")}


def test_errors_that_have_nothing_to_do_with_anything_are_rarely_suspected(split) -> None:
    """Random errors, more of them in some images: at a false discovery rate of 5 % at most about 1 draw in 20 holds anything."""
    attributes = collect(context_of(split, Judge("object")))
    rng = np.random.default_rng(0)
    alarms, draws = 0, 40
    for draw in range(draws):
        table = attributes.segments.copy()
        own = table["class"].to_numpy()
        wrong = rng.random(len(table)) < rng.choice([0.1, 0.5], len(split))[table["image"]]
        other = np.array([0, CHEST, CRATE, 0])[own]
        table["confused"] = np.where(wrong & np.isin(own, (CRATE, CHEST)), other, -1)
        table["wrong"] = np.where(wrong, 0.9, 0.02)
        found, tested = associate(table, attributes.names, num_classes=4, seed=draw)
        assert tested > 40
        alarms += bool(found)
    assert alarms <= 6, "7 of 40 or more: p = .003 at a rate of 5 %"


def test_what_adds_nothing_goes_with_the_leader(split) -> None:
    attributes = collect(context_of(split, Judge("ground")))
    found, _ = associate(attributes.segments, attributes.names, num_classes=4, seed=0)
    pair = [one for one in found if (one.true, one.predicted) == (CHEST, CRATE)]
    assert len(pair) >= 4, "many attributes tell green ground from red"
    grouped = [s for s in suspicions(found, attributes.segments, seed=0) if (s.lead.true, s.lead.predicted) == (CHEST, CRATE)]
    assert [len(s.also) for s in grouped] == [len(pair) - 1]
    assert grouped[0].lead.strength == max(one.strength for one in pair)


@pytest.mark.parametrize(
    ("change", "half", "placebo", "p", "confirmed"),
    [
        (-3.0, 1.0, 0.2, 0.01, True),
        (-3.0, 1.0, 0.2, 0.06, False),
        (-3.0, 3.5, 0.2, 0.01, False),
        (3.0, 1.0, 0.2, 0.01, False),
        (-0.9, 0.1, 0.0, 0.001, False),
        (-3.0, 1.0, -4.0, 0.01, True),
        (-3.0, 1.0, -7.0, 0.01, False),
    ],
)
def test_what_confirms(change: float, half: float, placebo: float, p: float, confirmed: bool) -> None:
    """Certain, in the expected direction, not trivial, and not lost in what the move alone does."""
    effect = Effect(
        kind="swap", change=change, low=change - half, high=change + half, placebo=placebo, p=p, n=9, images=9, called=(1, 1, 0)
    )
    assert bias.is_confirmed(effect, p=p) is confirmed
