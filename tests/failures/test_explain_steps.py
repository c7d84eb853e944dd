"""What the steps of the engine leave for each other and for the reader, and models and splits at the edge of what there is."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from segpipe.failures.explain import STEPS, Explanation, write_explanation
from segpipe.failures.modes import MODES, MODIFIERS
from segpipe.shards import Sample, Split, SplitWriter, encode_image, encode_mask
from tests.failures.networks import Reader
from tests.failures.red_world import CLASSES, SIZE, World, red_world, run


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return red_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def explanation(world: World) -> Explanation:
    return run(world, layers={"pooled": world[2].pooled})


def test_the_files_fit_together(world: World, explanation: Explanation, tmp_path: Path) -> None:
    split, predictions, _ = world
    write_explanation(tmp_path, explanation)
    regions, controls = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("regions", "controls"))
    assert {"unit", "confidence", "cluster", "mode", *MODIFIERS} <= set(regions.columns)
    assert (regions["cluster"] == -1).all(), "seven regions are too few for groups"
    assert (regions["unit"] == regions["id"].map({name: row for row, name in enumerate(split.ids)})).all()
    chosen = regions[regions["chosen"]]
    assert len(controls) >= 4 and set(controls["matched"]) <= set(chosen.index)
    measures = [name for name in regions.columns if name.startswith("pooled/")]
    assert set(measures) <= set(controls.columns) and "margin" in controls
    for _, control in controls.iterrows():
        error = regions.loc[control["matched"]]
        assert (control["label"], control["predicted"]) == (error["true"], error["predicted"])
        assert 0.5 * error["area"] <= control["area"] <= error["area"]
        # The network reads the class off each pixel: where it is right, it prefers the true class.
        assert error["margin"] > 0 > control["margin"]
    document = json.loads((tmp_path / "summary.json").read_text())
    assert {"measures", "sanity", "clusters", "bias", "modifiers", "findings"} <= set(document)
    near = document["measures"]["pooled"]["hirescam"]["predicted_near"]
    assert near["errors"]["n"] <= document["chosen"] and set(near) == {"errors", "controls", "difference"}
    assert [row["mode"] for row in document["modes"]] == list(MODES)
    assert all(row["cost_low"] <= row["cost_high"] for row in [*document["modes"], *document["pairs"]])
    assert document["units"] == 6 and 1 <= len(document["findings"]) <= 3


def test_every_step_is_announced_once_and_in_order(world: World) -> None:
    said: list[str] = []
    run(world, regions=2, on_step=said.append)
    assert tuple(said) == STEPS


def test_a_model_that_never_predicts_a_class(world: World, tmp_path: Path) -> None:
    split, predictions, model = world
    blind = {name: np.where(mask == 2, 0, mask).astype(np.uint8) for name, mask in predictions.items()}
    found = run((split, blind, model), layers={"pooled": model.pooled})
    assert not (found.regions["predicted"] == 2).any()
    assert (found.controls["label"] != 2).all(), "what is right nowhere has no control"
    assert found.summary["pairs"][0]["true_name"] == CLASSES[2]
    write_explanation(tmp_path, found)


def test_one_image_alone_has_costs_without_intervals(tmp_path: Path) -> None:
    world = red_world(tmp_path, images=1)
    found = run(world, layers={"pooled": world[2].pooled})
    assert found.summary["images"] == found.summary["units"] == 1
    assert all(row["cost_low"] is None and row["cost"] is not None for row in found.summary["modes"])
    assert found.summary["chosen"] > 0
    write_explanation(tmp_path / "out", found)


def test_an_image_without_a_label_changes_nothing(world: World, explanation: Explanation, tmp_path: Path) -> None:
    split, predictions, _ = world
    with SplitWriter(tmp_path, "test") as writer:
        for sample in split:
            writer.write(sample)
        nothing = np.full(SIZE, 255, np.uint8)
        image = encode_image(np.zeros((*SIZE, 3), np.uint8))
        writer.write(Sample(id="none", image=image, mask=encode_mask(nothing), height=48, width=64, group="", source=""))
    model = Reader(classes=3).eval()
    more = run((Split(tmp_path, "test"), {**predictions, "none": np.zeros(SIZE, np.uint8)}, model), layers={"pooled": model.pooled})
    columns = [name for name in explanation.regions.columns if not name.endswith("classes")]
    pd.testing.assert_frame_equal(more.regions[columns], explanation.regions[columns])
    assert more.summary["images"] == 7 and more.summary["miou"] == explanation.summary["miou"]
