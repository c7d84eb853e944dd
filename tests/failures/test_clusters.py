"""Groups that are there are found and named; groups that are not there are not; the order of the rows changes nothing."""

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sklearn_metrics

from segpipe.failures.clusters import Clusters, adjusted_rand, cluster, silhouette
from segpipe.failures.features import blocks, pooled
from segpipe.failures.grid import gather, stretched
from segpipe.failures.look import Viewer
from tests.failures.networks import GRIDS, STRIDE, Reader

NAMES = ["sky", "pole", "road", "car"]
KINDS = [
    {"mode": "missed", "true": 1, "predicted": 0, "area": 60, "near": 0.1, "reading": "context"},
    {"mode": "boundary", "true": 2, "predicted": 3, "area": 400, "near": 0.8, "reading": "look-alike"},
    {"mode": "hallucinated", "true": 0, "predicted": 3, "area": 3000, "near": 0.5, "reading": "parts"},
]


def planted(rng: np.random.Generator, *, each: int = 14) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Regions of three kinds, one in ten of another kind's mode, on 12 images; features with a direction for each kind."""
    rows, features, truth = [], [], []
    for number, kind in enumerate(KINDS):
        for _ in range(each):
            mode = kind["mode"] if rng.random() < 0.9 else "other"
            row = {"mode": mode, "true": kind["true"], "predicted": kind["predicted"], "bottleneck/reading": kind["reading"]}
            row["area"] = int(kind["area"] * np.exp(rng.normal(0, 0.4)))
            row["bottleneck/hirescam_predicted_near"] = float(np.clip(kind["near"] + rng.normal(0, 0.1), 0, 1))
            row["margin"] = float(rng.normal(3, 1))
            rows.append(row | {"id": f"im{rng.integers(12)}"})
            features.append(rng.normal(0, 1, 20) + 2.0 * np.eye(20)[number])
            truth.append(number)
    table = pd.DataFrame(rows)
    table["region"] = np.arange(len(table)) + 1
    table.index = pd.Index(100 + 3 * np.arange(len(table)))
    return table, np.array(features), np.array(truth)


def noise(rng: np.random.Generator, n: int = 45) -> tuple[pd.DataFrame, np.ndarray]:
    """Regions whose properties have nothing to do with each other."""
    table = pd.DataFrame(
        {
            "id": [f"im{i % 15}" for i in range(n)],
            "region": np.arange(n) + 1,
            "mode": rng.choice(["missed", "boundary", "other"], n),
            "true": rng.integers(0, 4, n),
            "predicted": rng.integers(0, 4, n),
            "area": np.exp(rng.normal(5, 1, n)).astype(int) + 1,
            "margin": rng.normal(2, 1, n),
            "bottleneck/hirescam_true_near": rng.normal(0.5, 0.1, n),
            "bottleneck/hirescam_predicted_near": rng.normal(0.5, 0.1, n),
        }
    )
    return table, rng.normal(0, 1, (n, 20))


def run(table: pd.DataFrame, features: np.ndarray, *, seed: int = 0) -> Clusters:
    units = pd.factorize(table["id"], sort=True)[0]
    return cluster(table, features, units=units, class_names=NAMES, layer="bottleneck", seed=seed)


@pytest.mark.parametrize("seed", range(3))
def test_planted_groups_are_found_and_named(seed: int) -> None:
    table, features, truth = planted(np.random.default_rng(seed))
    found = run(table, features)
    assert found.labels.dtype == np.int32
    assert sklearn_metrics.adjusted_rand_score(truth, found.labels) > 0.9
    rows = found.document["clusters"]
    assert len(rows) == 3 and found.document["stability"] > 0.8 and all(row["jaccard"] > 0.7 for row in rows)
    assert {row["name"] for row in rows} == {
        "small pole missed, taken for sky, evidence elsewhere",
        "borders between road and car, the classes look alike",
        "large car hallucinated on sky, each class sees another part",
    }
    for row in rows:
        inside = found.labels == row["cluster"]
        assert row["regions"] == inside.sum() and row["pixels"] == table.loc[inside, "area"].sum()
        assert row["share"] == pytest.approx(row["pixels"] / table["area"].sum())
        assert len(row["medoids"]) == 3 and set(row["medoids"]) <= set(table.index[inside])
        assert table.loc[row["medoids"], "id"].nunique() == 3
    pole = next(row for row in rows if "pole" in row["name"])
    assert any("predicted as sky; of the others 0 of 28" in text for text in pole["shared"])
    assert any("lies mostly outside the region" in text for text in pole["shared"])
    assert any("smaller than the others" in text for text in pole["shared"])


def test_noise_has_no_groups() -> None:
    """A few percent of false alarms are agreed to, so not every draw need be empty."""
    found = [run(*noise(np.random.default_rng(seed)), seed=seed).document for seed in range(6)]
    empty = [document for document in found if not document["clusters"]]
    assert len(empty) >= 5
    assert all("form no groups" in document["sentence"] or "no group is stable" in document["sentence"] for document in empty)


def test_the_order_of_the_rows_changes_nothing() -> None:
    table, features, _ = planted(np.random.default_rng(4))
    first = run(table, features)
    order = np.random.default_rng(1).permutation(len(table))
    second = run(table.iloc[order], features[order])
    assert (second.labels == first.labels[order]).all()
    assert second.document == first.document == run(table, features).document


def test_a_group_of_one_image_is_no_group() -> None:
    table, features, truth = planted(np.random.default_rng(0))
    table["id"] = np.where(truth == 0, "im0", [f"im{1 + i % 11}" for i in range(len(table))])
    found = run(table, features)
    assert set(found.labels[truth == 0]) == {-1}
    assert len(found.document["clusters"]) == 2 and "1 more was not stable or too small" in found.document["sentence"]


def test_few_regions_are_not_grouped() -> None:
    table, features, _ = planted(np.random.default_rng(0), each=3)
    found = run(table, features)
    assert (found.labels == -1).all() and found.document["clusters"] == [] and found.document["stability"] is None
    assert "9 regions were explained: too few" in found.document["sentence"]


def test_equal_regions_and_unknown_features_do_no_harm() -> None:
    table, _, _ = planted(np.random.default_rng(0))
    same = table.assign(mode="missed", true=1, predicted=0, area=50, margin=1.0)
    same["bottleneck/hirescam_predicted_near"] = np.nan
    assert run(same, np.full((len(same), 5), np.nan)).document["clusters"] == []
    assert run(same, np.zeros((len(same), 0))).document["clusters"] == []
    known = run(table, np.full((len(table), 5), np.nan)).document
    assert len(known["clusters"]) == 3, "the other properties are enough"


def test_no_block_outweighs_the_others() -> None:
    """The mean squared distance of two regions is at most 2 in each block, however many columns it has."""
    table, features, _ = planted(np.random.default_rng(2))
    found = blocks(table, np.hstack([features, features]), layer="bottleneck")
    assert [block.name for block in found] == ["mode", "classes", "size", "evidence", "features"]
    for block in found:
        assert 2 * float((block.values**2).sum(axis=1).mean()) <= 2 + 1e-9, block.name
        assert np.allclose(block.values.mean(axis=0), 0)


def test_indices_equal_the_reference() -> None:
    rng = np.random.default_rng(0)
    points, a, b = rng.normal(0, 1, (40, 3)), rng.integers(0, 4, 40), rng.integers(0, 3, 40)
    apart = np.linalg.norm(points[:, None] - points, axis=2)
    assert silhouette(apart, a) == pytest.approx(sklearn_metrics.silhouette_score(points, a))
    assert adjusted_rand(a, b) == pytest.approx(sklearn_metrics.adjusted_rand_score(a, b))
    assert adjusted_rand(a, a) == 1


@pytest.mark.parametrize("size", [None, (40, 48)])
def test_pooled_features_are_the_mean_over_the_region(size: tuple[int, int] | None) -> None:
    """The layer `pooled` averages the red channel over 4x4 pixels, so its mean over whole cells is the region's mean red."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
    model = Reader(classes=3).eval()
    layers = {"pooled": model.pooled, "spread": model.spread}
    viewer = Viewer(model=model, layers=layers, grids=GRIDS, mean=(0,), std=(1,), size=size, device="cpu")
    cells, both = np.zeros((20, 24), bool), np.zeros((20, 24), bool)
    cells[4:12, 8:16], both[5:19, 3:20] = True, True
    found = pooled(viewer, image, [cells, both])
    assert found.shape == (2, 1) and found.dtype == np.float32
    red = image[..., 0] / 255
    if size is None:
        coarse = red.reshape(5, STRIDE, 6, STRIDE).mean(axis=(1, 3))
        for value, region in zip(found[:, 0], (cells, both), strict=True):
            weights = gather(region.astype(float), rows=stretched(20, cells=5), columns=stretched(24, cells=6))
            assert value == pytest.approx((coarse * weights).sum() / weights.sum(), rel=1e-5)
    else:
        assert found[0, 0] == pytest.approx(red[cells].mean(), abs=0.05)
    assert pooled(viewer, image, [cells], layer="spread").shape == (1, 3)
    assert not model.pooled._forward_hooks and not model._forward_pre_hooks
