"""The common segments: the same for every model, measured against networks whose maps are known."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from segpipe.architectures.blocks.input_rule import InputRule
from segpipe.failures import segments
from segpipe.failures.context import Context
from segpipe.failures.look import Question, Viewer
from segpipe.failures.measures import EVIDENCE, NO_EVIDENCE
from segpipe.failures.occlusion import deletion_score
from segpipe.failures.versus import COLUMNS, read
from segpipe.shards import Sample, Split, SplitWriter, encode_image, encode_mask
from tests.failures.networks import GRIDS, STRIDE, Reader

SIZE = (48, 64)
IMAGES = 40


class Elsewhere(nn.Module):
    """Reads each place's class off the place half an image to the right: its evidence is never where its answer is."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.input_rule = InputRule(multiple=STRIDE, minimum=STRIDE)
        self.pooled = nn.AvgPool2d(STRIDE)
        self.gain = nn.Parameter(torch.linspace(0, 1, classes))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        cells = self.pooled(x[:, :1])
        return {"out": torch.roll(cells, cells.shape[-1] // 2, dims=-1) * self.gain.view(1, -1, 1, 1)}


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """Images whose red channel tells the class: a ground, a square of class 1 and, on every eighth image, one of class 2."""
    folder, rng = tmp_path_factory.mktemp("segments"), np.random.default_rng(3)
    with SplitWriter(folder, "test") as writer:
        for i in range(IMAGES):
            mask = np.zeros(SIZE, np.uint8)
            top, left = rng.integers(2, 30), rng.integers(2, 16)
            mask[top : top + 14, left : left + 14] = 1
            if i % 8 == 0:
                mask[10:26, 40:56] = 2
            mask[40:42, 60:62] = 2  # too small to be taken
            image = np.repeat((40 + mask * 100)[..., None], 3, axis=2).astype(np.uint8)
            encoded: dict[str, Any] = {"image": encode_image(image), "mask": encode_mask(mask), "height": 48, "width": 64}
            writer.write(Sample(id=f"im{i}", group="", source="", **encoded))
    return Split(folder, "test")


def context(split: Split, model: nn.Module, *, seed: int = 0, wrong: bool = False, size: tuple[int, int] | None = None) -> Context:
    predictions = {name: split.arrays(i)[1] * (0 if wrong else 1) for i, name in enumerate(split.ids)}
    viewer = Viewer(model=model.eval(), layers={"pooled": model.pooled}, grids=GRIDS, mean=(0,), std=(1,), size=size, device="cpu")
    names = ("ground", "square", "rare")
    return Context(
        split=split,
        predictions=predictions,
        viewer=viewer,
        class_names=names,
        ignore_index=255,
        units=np.arange(len(split)),
        seed=seed,
    )


@pytest.fixture(scope="module")
def local(split: Split) -> segments.Segments:
    return segments.measure(context(split, Reader(classes=3)))


def test_the_choice_is_the_same_for_every_model(split: Split) -> None:
    chosen = segments.choose(context(split, Reader(classes=3)))
    assert chosen == segments.choose(context(split, Elsewhere(3), wrong=True))
    assert chosen != segments.choose(context(split, Reader(classes=3), seed=1))
    assert len(chosen) == 12 == len({segment.id for segment in chosen}), "one on each image while images last"
    labels = [segment.label for segment in chosen]
    assert labels.count(2) == 5, "the rare class comes as often as it can"
    assert 0 not in labels, "the ground fills more than half of its image"
    for segment in chosen:
        target = split.arrays(split.ids.index(segment.id))[1]
        assert segment.area == {1: 14 * 14, 2: 16 * 16}[segment.label] <= (target == segment.label).sum()


def test_an_image_gives_a_second_segment_only_when_it_must(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "SHARE", 1.1)
    chosen = segments.choose(context(split, Reader(classes=3)))
    assert len(chosen) == 44 and len({(s.id, s.number) for s in chosen}) == 44
    counts = [sum(s.id == name for s in chosen) for name in split.ids]
    assert sorted(counts) == [1] * 36 + [2] * 4


def test_a_local_network_looks_at_the_segment(local: segments.Segments) -> None:
    table = local.table
    kinds = {name for name in COLUMNS} | {name.replace("hirescam", "gradcam") for name in COLUMNS}
    assert set(table.columns) == kinds and len(table) == len(local.pictures) == 12
    assert (table["iou"] == 1).all() and table["found"].all()
    assert (table["hirescam_status"] == EVIDENCE).all() and (table["cell"] == STRIDE).all()
    assert (table["hirescam_inside"] > 0.6).all()
    assert np.allclose(table["area_share"], table["area"] / (SIZE[0] * SIZE[1]))
    assert np.allclose(table["hirescam_concentration"], table["hirescam_inside"] / table["area_share"])
    assert (table["hirescam_entropy"] < table["gradcam_entropy"]).all(), "Grad-CAM forgets where the gradient was"
    assert table["hirescam_entropy"].between(0.5, 0.8).all()
    assert table["deletion"].abs().max() <= 1


def test_a_network_that_looks_elsewhere_is_found_out(split: Split, local: segments.Segments) -> None:
    table = segments.measure(context(split, Elsewhere(3), wrong=True)).table
    assert (table["id"] == local.table["id"]).all() and (table["segment"] == local.table["segment"]).all()
    assert (table["iou"] == 0).all() and not table["found"].any()
    assert (table["hirescam_inside"] < 0.1).all()
    # A part of the image is half as wide as the image, so what lies half an image away is beyond it: the roll wraps inside it.
    assert table["deletion"].notna().all()


class Beside(nn.Module):
    """Each place's answer is the red of the place itself and of the place three cells to its right."""

    def __init__(self) -> None:
        super().__init__()
        self.input_rule = InputRule(multiple=STRIDE, minimum=STRIDE)
        self.pooled = nn.AvgPool2d(STRIDE)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        cells = self.pooled(x[:, :1])
        return {"out": torch.cat([0.1 * cells + torch.roll(cells, -3, dims=-1)] * 3, dim=1)}


def test_hiding_what_the_map_shows_matters_where_the_network_uses_it(split: Split) -> None:
    """The network reads a place beside the segment, and its map lies there: hidden there, its logit falls more than elsewhere."""
    viewer = context(split, Beside()).viewer
    rng = np.random.default_rng(0)
    image = np.full((48, 64, 3), 60, np.uint8)
    image[20:28, 36:52] = 255
    region = np.zeros((48, 64), bool)
    region[20:28, 24:36] = True
    answer = viewer.ask(image, [Question(region=region, true=0, predicted=0)])[0]
    saliency = np.maximum(answer.maps["pooled"]["hirescam"][0], 0)
    scores = [
        deletion_score(viewer, image, region, saliency, answer.axes["pooled"], stride=STRIDE, index=0, rng=rng) for _ in range(5)
    ]
    assert min(scores) > 0.3
    far = np.zeros_like(saliency)
    far[0, 0] = 1
    wrong = [deletion_score(viewer, image, region, far, answer.axes["pooled"], stride=STRIDE, index=0, rng=rng) for _ in range(5)]
    assert np.mean(wrong) < np.mean(scores) / 2


def test_no_evidence_is_a_status(split: Split) -> None:
    model = Reader(classes=3)
    with torch.no_grad():
        model.spread.weight.zero_()
    table = segments.measure(context(split, model)).table
    assert (table["hirescam_status"] == NO_EVIDENCE).all() and (table["gradcam_status"] == NO_EVIDENCE).all()
    assert table[["hirescam_inside", "hirescam_entropy", "deletion", "gradcam_concentration"]].isna().all(axis=None)


def test_the_overlap_of_a_segment() -> None:
    """Two true segments of class 1, one predicted segment over both: what it gets right on the other one counts nowhere."""
    target, prediction = np.zeros((2, 10), np.uint8), np.zeros((2, 10), np.uint8)
    target[:, 0:4] = target[:, 6:10] = 1
    prediction[:, 1:8] = 1
    target[1, 5] = 255
    region = np.zeros((2, 10), bool)
    region[:, 0:4] = True
    # Right on columns 1..3 (6 pixels); wrong on 4, 5 (4 pixels, one of them ignored); missed on column 0 (2 pixels).
    assert segments._overlap(region, 1, target, prediction, ignore_index=255) == pytest.approx(6 / (8 + 3))
    assert segments._overlap(region, 1, target, np.zeros_like(prediction), ignore_index=255) == 0


def test_files_are_read_back_and_equal_each_time(split: Split, local: segments.Segments, tmp_path: Path) -> None:
    again = segments.measure(context(split, Reader(classes=3)))
    for name, found in (("a", local), ("b", again)):
        segments.write(tmp_path / name, found)
    for name in ("segments.parquet", "segments.npz"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    common = read(tmp_path / "a")
    assert common is not None and common.table.equals(local.table)
    assert all(uri.startswith("data:image/webp;base64,") for pair in common.pictures for uri in pair)
    with np.load(tmp_path / "a/segments.npz") as arrays:
        picture = cv2.imdecode(arrays["3/map"], cv2.IMREAD_COLOR_RGB)
    assert picture.shape == local.pictures[3][1].shape == (192, 256, 3)
    assert np.abs(picture.astype(int) - local.pictures[3][1]).mean() < 8
    assert (tmp_path / "a/segments.npz").stat().st_size < 12 * 40_000


def test_the_network_may_see_another_size(split: Split, local: segments.Segments) -> None:
    table = segments.measure(context(split, Reader(classes=3), size=(96, 128))).table
    assert (table["segment"] == local.table["segment"]).all() and (table["cell"] == STRIDE / 2).all()
    assert (table["hirescam_inside"] > 0.8).all(), "finer cells stay nearer to the segment"
