"""The explain stage on an untrained network, from the files that the stages before it leave."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from segpipe import components, results
from segpipe.model_io import KEYS, save_model
from segpipe.shards import ClassInfo, DatasetInfo, Sample, SplitWriter, encode_image, encode_mask, write_info
from stages import explain as stage
from tests.failures.networks import blobs
from tests.imports import ROOT

NAMES = ("ground", "disc", "pole")


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    options = {"padding": "same", "norm": "batch", "width": 4}
    params["experiments"] = {"toy": {"dataset": "scenes", "architecture": "unet", "loss": "cross_entropy", "options": options}}
    params["explain"] = {"regions": 5, "layers": "all"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    data, rng = tmp_path / "data/converted/scenes", np.random.default_rng(0)
    data.mkdir(parents=True)
    with SplitWriter(data, "test") as writer, results.PredictionWriter(tmp_path / "evaluations/toy") as predictions:
        for i in range(3):
            image = rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)
            mask, predicted = blobs(rng, size=(40, 56), classes=3), blobs(rng, size=(40, 56), classes=3)
            encoded = {"image": encode_image(image), "mask": encode_mask(mask), "height": 40, "width": 56}
            writer.write(Sample(id=f"s{i}", group="", source="", **encoded))
            predictions.write(f"s{i}", predicted)
    info = DatasetInfo(
        name="scenes",
        classes=tuple(ClassInfo(name=name, colour=(40 * k, 90, 200 - 40 * k)) for k, name in enumerate(NAMES)),
        ignore_index=255,
        task="semantic",
        dimensions=2,
        splits={"test": 3},
        pixels={"test": [1, 1, 1]},
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        provenance={},
        digest="of the data",
    )
    write_info(data, info)
    torch.manual_seed(0)
    model = components.load("architectures", "unet").build(num_classes=3, **options)
    config = dict.fromkeys(KEYS) | {"architecture": "unet", "options": options, "num_classes": 3, "in_channels": 3}
    config |= {"mean": [0.5] * 3, "std": [0.25] * 3, "size": None, "dataset": "scenes", "dataset_digest": "of the data"}
    save_model(tmp_path / "models/toy", model, config)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_stage_writes_its_outs(workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["explain", "toy"])
    stage.main()
    said = capsys.readouterr().out.splitlines()
    assert "5 explained on bottleneck, encoder4" in said[0] and len(said) == 4
    assert "costs most" in "".join(said)
    written = sorted(p.name for p in (workspace / "failures/toy").iterdir())
    assert written == ["controls.parquet", "maps.npz", "regions.parquet", "segments.npz", "segments.parquet", "summary.json"]
    table = pd.read_parquet(workspace / "failures/toy/regions.parquet")
    assert table["chosen"].sum() == 5
    assert {"bottleneck/gradcam_true_inside", "decoder1/hirescam_cosine"} <= set(table.columns)
    assert "Where toy fails on scenes" in (workspace / "reports/toy/failures/index.html").read_text()


def test_an_unknown_experiment_is_refused(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["explain", "tow"])
    with pytest.raises(SystemExit, match="one of: toy"):
        stage.main()
