"""Cells in the image: against torch's interpolation, and against where a network really looks."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from segpipe.architectures.blocks.input_rule import InputRule
from segpipe.failures.grid import gather, spread, stretched
from segpipe.failures.look import WINDOW, Question, Viewer
from tests.failures.networks import GRIDS, Reader


@pytest.mark.parametrize("cells, size", [((3, 5), (12, 20)), ((4, 4), (9, 31)), ((1, 1), (5, 5)), ((7, 6), (3, 2))])
def test_spreading_is_torchs_interpolation_and_gathering_its_transpose(cells: tuple[int, int], size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    values, weights = rng.random((2, *cells)), rng.random(size)
    rows, columns = (stretched(s, cells=c) for s, c in zip(size, cells, strict=True))
    large = spread(values, rows=rows, columns=columns, size=size)
    theirs = F.interpolate(torch.tensor(values)[None], size=size, mode="bilinear", align_corners=False)[0]
    np.testing.assert_allclose(large, theirs.numpy(), atol=1e-12)
    for axis in (rows, columns):
        np.testing.assert_allclose(axis.centres() * axis.scale, np.arange(axis.cells) + 0.5, err_msg="cells lie evenly")
    assert (weights * large[0]).sum() == pytest.approx((gather(weights, rows=rows, columns=columns) * values[0]).sum())


def viewer(model: Reader, size: tuple[int, int] | None = None) -> Viewer:
    layers = {"pooled": model.pooled}
    return Viewer(model=model, layers=layers, grids=GRIDS, mean=(0, 0, 0), std=(1, 1, 1), size=size, device="cpu")


@pytest.mark.parametrize("rule", [InputRule(multiple=16, minimum=64), InputRule(multiple=4), InputRule(fixed=(96, 96))])
@pytest.mark.parametrize("size", [None, (45, 60)])
def test_a_map_lies_where_its_evidence_is(rule: InputRule, size: tuple[int, int] | None) -> None:
    """One bright spot in a dark image of an awkward size: its class's map has its centre there, whatever the padding."""
    image = np.zeros((70, 90, 3), np.uint8)
    image[48:56, 20:28] = 255
    region = image[..., 0] > 0
    model = Reader(classes=2, rule=rule)
    (answer,) = viewer(model, size).ask(image, [Question(region=region, true=0, predicted=1)])
    rows, columns = answer.axes["pooled"]
    energy = spread(np.maximum(answer.maps["pooled"]["hirescam"][1], 0), rows=rows, columns=columns, size=(70, 90))
    y, x = np.indices(energy.shape)
    cell = 1 / rows.scale
    assert abs((energy * y).sum() / energy.sum() - 51.5) < 0.3 * cell
    assert abs((energy * x).sum() / energy.sum() - 23.5) < 0.3 * cell
    assert answer.window == (slice(0, 70), slice(0, 90))


def test_the_logits_are_means_over_the_region_at_the_images_own_size() -> None:
    """Also where the network sees a smaller image: the same as upsampling its logits and averaging."""
    image = np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    region = np.zeros((40, 60), bool)
    region[5:19, 7:33] = True
    model = Reader(classes=3)
    (answer,) = viewer(model, (20, 30)).ask(image, [Question(region=region, true=1, predicted=2)])
    from segpipe import inference

    logits = inference.predict(model.eval(), image, mean=(0, 0, 0), std=(1, 1, 1), size=(20, 30))
    assert answer.logits == pytest.approx((logits[1][region].mean(), logits[2][region].mean()), abs=1e-5)


def test_a_large_image_is_shown_in_windows_around_its_regions() -> None:
    image = np.zeros((1100, 1300, 3), np.uint8)
    image[1050:1090, 1200:1290] = 255
    image[4:30, 5:40] = 255
    masks = [np.zeros((1100, 1300), bool) for _ in range(2)]
    masks[0][1050:1090, 1200:1290] = True
    masks[1][4:30, 5:40] = True
    answers = viewer(Reader(classes=2)).ask(image, [Question(region=mask, true=0, predicted=1) for mask in masks])
    assert [answer.window for answer in answers] == [
        (slice(1100 - WINDOW[0], 1100), slice(1300 - WINDOW[1], 1300)),
        (slice(0, WINDOW[0]), slice(0, WINDOW[1])),
    ]
    for answer, mask in zip(answers, masks, strict=True):
        rows, columns = answer.axes["pooled"]
        energy = spread(np.maximum(answer.maps["pooled"]["hirescam"][1], 0), rows=rows, columns=columns, size=mask.shape)
        assert energy[mask].sum() > 0.8 * energy.sum()
