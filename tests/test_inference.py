"""Padding, tiling, blending and flipping around toy networks whose right answer is known."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segpipe import evaluate_row, inference, tiles, variants
from segpipe.architectures.blocks.input_rule import InputRule
from segpipe.inference import forward_at_size, normalise, predict, predict_labels

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


class Toy(nn.Module):
    """Convolutions with a receptive field of 7 x 7 pixels; refuses sizes that its input rule does not allow."""

    def __init__(self, rule: InputRule, *, valid: bool = False, stride: int = 1, classes: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.input_rule, self.stride = rule, stride
        self.first = nn.Conv2d(3, 8, 3, padding=0 if valid else 1)
        self.second = nn.Conv2d(8, 8, 3, padding=0 if valid else 1)
        self.third = nn.Conv2d(8, classes, 3, padding=0 if valid else 1)
        self.seen: list[tuple[int, int]] = []
        self.eval()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        height, width = x.shape[-2:]
        self.input_rule.check(height, width)
        self.seen.append((height, width))
        hidden = torch.relu(self.second(torch.relu(self.first(x))))
        outputs = {"out": self.third(hidden)}
        if self.stride > 1:
            outputs["out"] = F.avg_pool2d(outputs["out"], self.stride)
        return {**outputs, "aux": outputs["out"] * 2}


class Pixelwise(nn.Module):
    """The same function of every pixel, which flips and tiles with the image; the left half of each input is told apart."""

    def __init__(self, rule: InputRule, *, sided: bool = False) -> None:
        super().__init__()
        self.input_rule, self.sided = rule, sided
        self.eval()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        out = torch.stack([x[:, 0], x[:, 1] - x[:, 2], x.sum(dim=1).sin()], dim=1)
        if self.sided:
            out = out * (1 + (torch.arange(x.shape[-1]) < x.shape[-1] // 2))
        return {"out": out}


def image_of(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def plain(model: nn.Module, image: np.ndarray, **options: object) -> np.ndarray:
    return predict(model, image, mean=MEAN, std=STD, **options)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


RULES = {
    "any size": InputRule(),
    "multiple of 32": InputRule(multiple=32, minimum=32),
    "8k + 1": InputRule(multiple=8, offset=1, minimum=17),
    "valid, 16k + 12": InputRule(multiple=16, offset=12, minimum=12, margin=3),
    "fixed": InputRule(fixed=(24, 28)),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("size", [(1, 1), (5, 3), (24, 28), (33, 50), (64, 32)], ids=str)
def test_answers_at_the_size_of_any_image(rule: InputRule, size: tuple[int, int]) -> None:
    model = Toy(rule, valid=rule.margin > 0)
    outputs = forward_at_size(model, torch.randn(2, 3, *size))
    assert {name: tuple(out.shape) for name, out in outputs.items()} == {"out": (2, 4, *size), "aux": (2, 4, *size)}
    assert all(torch.isfinite(out).all() for out in outputs.values())


def test_a_size_that_fits_is_left_alone() -> None:
    x = torch.randn(1, 3, 64, 32)
    model = Toy(RULES["multiple of 32"])
    torch.testing.assert_close(forward_at_size(model, x)["out"], model(x)["out"], rtol=0, atol=0)


def test_the_border_is_a_mirror_image_in_the_middle_of_the_input() -> None:
    x = torch.randn(1, 3, 40, 50)
    model = Toy(RULES["multiple of 32"])
    expected = model(F.pad(x, (7, 7, 12, 12), mode="reflect"))["out"][:, :, 12:52, 7:57]
    torch.testing.assert_close(forward_at_size(model, x)["out"], expected, rtol=0, atol=0)


def test_valid_convolutions_see_the_mirrored_context() -> None:
    x = torch.randn(1, 3, 22, 22)
    model = Toy(RULES["valid, 16k + 12"], valid=True)  # 22 + 2 * 3 = 28 = 16 + 12
    torch.testing.assert_close(forward_at_size(model, x)["out"], model(F.pad(x, (3, 3, 3, 3), mode="reflect"))["out"])
    assert model.seen[0] == (28, 28)


def test_a_border_wider_than_the_image_is_reflected_again_and_again() -> None:
    row = torch.tensor([0.0, 1.0, 2.0]).expand(1, 3, 3, 3)
    mirrored = inference._mirrored(row, 3, -5, 12)
    assert mirrored[0, 0, 0].tolist() == [1, 0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2]
    np.testing.assert_array_equal(mirrored[0, 0, 0], np.pad([0.0, 1, 2], (5, 4), mode="reflect"))
    assert inference._mirrored(row[..., :1], 3, -2, 4)[0, 0, 0].tolist() == [0, 0, 0, 0]


def test_coarse_answers_are_upsampled_to_the_padded_input_and_cut() -> None:
    x = torch.randn(1, 3, 40, 64)
    model = Toy(RULES["multiple of 32"], stride=8)
    padded = F.pad(x, (0, 0, 12, 12), mode="reflect")
    expected = F.interpolate(model(padded)["out"], size=(64, 64), mode="bilinear", align_corners=False)[:, :, 12:52]
    torch.testing.assert_close(forward_at_size(model, x)["out"], expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["multiple of 32", "fixed"])
def test_gradients_pass(name: str) -> None:
    model = Toy(RULES[name])
    x = torch.randn(1, 3, 30, 41, requires_grad=True)
    forward_at_size(model, x)["out"].square().sum().backward()
    assert x.grad is not None and (x.grad.abs().sum(dim=1) > 0).all()
    assert model.first.weight.grad is not None and model.first.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "rule", [RULES["any size"], InputRule(multiple=4, minimum=4), RULES["valid, 16k + 12"], InputRule(fixed=(64, 72))], ids=str
)
def test_tiles_equal_the_whole_for_a_local_network(rule: InputRule) -> None:
    # The outer quarter of an overlap, 4 pixels here, is not used: more than the 3 that a 7 x 7 receptive field reaches.
    image = image_of(150, 203)
    valid = rule.margin > 0
    whole = plain(Toy(InputRule(margin=3 * valid), valid=valid), image, tile="none")
    model = Toy(rule, valid=valid)
    tiled = plain(model, image, tile=(64, 72))
    assert len(model.seen) == 12
    if valid:  # the whole has mirrored context where a network that pads sees zeros
        np.testing.assert_allclose(tiled, whole, atol=1e-5)
    inner = np.s_[:, 3:-3, 3:-3]
    np.testing.assert_allclose(tiled[inner], whole[inner], atol=1e-5)
    if rule == RULES["any size"]:
        np.testing.assert_allclose(tiled, whole, atol=1e-5)


@pytest.mark.parametrize(("side", "tile"), [(10, 10), (11, 10), (100, 10), (97, 13), (5, 4), (3, 1), (2000, 1024), (7, 20)])
def test_tiles_cover_every_pixel_with_weights_that_sum_to_one(side: int, tile: int) -> None:
    found = tiles.tiles(side, tile)
    total = torch.zeros(side)
    for start, weights in found:
        assert start >= 0 and start + len(weights) <= side and len(weights) == min(tile, side)
        total[start : start + len(weights)] += weights
    torch.testing.assert_close(total, torch.ones(side))
    assert found[0][0] == 0 and found[-1][0] + len(found[-1][1]) == side


def test_auto_tiles_only_large_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "WHOLE_PIXELS", 40 * 40)
    monkeypatch.setattr(tiles, "AUTO_SIDE", 40)
    monkeypatch.setattr(tiles, "AUTO_OVERLAP", 10)
    model = Toy(InputRule())
    plain(model, image_of(20, 80))
    assert model.seen == [(20, 80)]
    plain(model, image_of(20, 100))
    # Three tiles of at most 40 that share at least 10: two would not reach, and 40 pixels would be more than needed.
    assert model.seen[1:] == [(20, 40)] * 3
    model.seen.clear()
    plain(model, image_of(60, 85))
    assert model.seen == [(35, 35)] * 6
    model.seen.clear()
    plain(model, image_of(60, 70), tile="none")
    assert model.seen == [(60, 70)]


def test_a_network_of_fixed_size_is_always_tiled() -> None:
    model = Pixelwise(RULES["fixed"])
    image = image_of(60, 45)
    expected = plain(Pixelwise(InputRule()), image)
    for tile in ("auto", "none", (8, 8)):
        np.testing.assert_allclose(plain(model, image, tile=tile), expected, atol=1e-5)
    x = normalise(image, mean=MEAN, std=STD)
    np.testing.assert_allclose(forward_at_size(model, x)["out"][0], expected, atol=1e-5)


@pytest.mark.parametrize("tile", ["none", (16, 20)])
def test_flips_change_nothing_for_a_network_that_flips_with_its_input(tile: object) -> None:
    model, image = Pixelwise(InputRule()), image_of(37, 50)
    np.testing.assert_allclose(plain(model, image, tta="flip", tile=tile), plain(model, image, tile="none"), atol=1e-6)


def test_flips_average_the_two_views() -> None:
    image = image_of(20, 30)
    once = plain(Pixelwise(InputRule()), image)
    sided = Pixelwise(InputRule(), sided=True)
    np.testing.assert_allclose(plain(sided, image)[:, :, :15], 2 * once[:, :, :15], atol=1e-6)
    np.testing.assert_allclose(plain(sided, image, tta="flip"), 1.5 * once, atol=1e-6)


@pytest.mark.parametrize("tta", ["scales", "flip_scales"])
@pytest.mark.parametrize("tile", ["none", (16, 20)])
@pytest.mark.parametrize("size", [None, (30, 44)])
def test_scales_change_nothing_for_a_network_that_scales_with_its_input(tta: str, tile: object, size: object) -> None:
    """A picture of slow waves, whose pixels a resize there and back hardly moves, through a function of the pixel alone."""
    i, j = np.mgrid[:60, :88]
    waves = np.stack([127 + 90 * np.sin(i / 60 * 3), 127 + 90 * np.cos(j / 88 * 3), 127 + 0 * i], axis=2)
    image = waves.round().astype(np.uint8)
    once = plain(Pixelwise(InputRule()), image, size=size)
    averaged = plain(Pixelwise(InputRule()), image, size=size, tta=tta, tile=tile)
    assert averaged.shape == once.shape and averaged.dtype == np.float32
    # The image is rounded to 8 bits at each scale: half a grey level here is 0.01 at most in a channel, 0.05 in the sum's sine.
    np.testing.assert_allclose(averaged, once, atol=0.06)
    flat = np.full((21, 34, 3), 90, np.uint8)
    np.testing.assert_allclose(
        plain(Pixelwise(InputRule()), flat, tta=tta, tile=tile, size=size), plain(Pixelwise(InputRule()), flat), atol=1e-6
    )


def test_scales_average_the_resized_answers() -> None:
    """Against the same made by hand; the coarser view and the finer one are cut from the image, not from what the network sees."""
    image, model = image_of(40, 52), Toy(InputRule())
    expected = torch.zeros(4, 20, 26)
    for height, width in ((15, 20), (20, 26), (25, 32)):
        x = normalise(inference.resize_image(image, (height, width)), mean=MEAN, std=STD)
        for view, back in ((x, lambda out: out), (x.flip(-1), lambda out: out.flip(-1))):
            with torch.no_grad():
                out = back(model(view)["out"])
            expected += F.interpolate(out, size=(20, 26), mode="bilinear", align_corners=False)[0] / 6
    expected = F.interpolate(expected[None], size=(40, 52), mode="bilinear", align_corners=False)[0]
    found = plain(model, image, size=(20, 26), tta="flip_scales")
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert sorted(set(model.seen)) == [(15, 20), (20, 26), (25, 32)]


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("size", [(1, 1), (21, 33)], ids=str)
def test_every_mode_answers_any_network_at_any_size(rule: InputRule, size: tuple[int, int]) -> None:
    model = Toy(rule, valid=rule.margin > 0)
    for options in ({"tta": "flip_scales"}, {"tile": "parts"}, {"tta": "scales", "tile": "parts"}):
        logits = plain(model, image_of(*size), **options)
        assert logits.shape == (4, *size) and np.isfinite(logits).all()


def test_parts_are_two_by_two_tiles_of_any_image() -> None:
    model, image = Toy(InputRule()), image_of(150, 203)
    whole = plain(model, image)
    model.seen.clear()
    np.testing.assert_allclose(plain(model, image, tile="parts"), whole, atol=1e-5)  # it sees 7 x 7 pixels: tiled equals whole
    assert model.seen == [(90, 122)] * 4
    model.seen.clear()
    plain(model, image_of(1, 2), tile="parts")
    assert model.seen == [(1, 2)]


def test_the_names_that_params_takes_are_those_of_inference() -> None:
    assert variants.TTA == tuple(inference.TTA) and evaluate_row.TILES == tiles.NAMED


@pytest.mark.parametrize("size", [(24, 40), (90, 61)])
def test_resized_images_are_answered_at_their_own_size(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "STRIP_VALUES", 4 * 71 * 10)  # strips of 10 rows
    model, image = Toy(InputRule()), image_of(53, 71)
    x = normalise(inference.resize_image(image, size), mean=MEAN, std=STD)
    with torch.no_grad():
        expected = F.interpolate(model(x)["out"], size=(53, 71), mode="bilinear", align_corners=False)[0].numpy()
    logits = plain(model, image, size=size)
    assert logits.shape == (4, 53, 71) and logits.dtype == np.float32
    assert set(model.seen) == {size}
    np.testing.assert_allclose(logits, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("classes", "dtype", "tta"),
    [(4, np.uint8, "flip"), (4, np.uint8, "scales"), (254, np.uint8, "flip"), (255, np.uint16, "flip")],
)
@pytest.mark.parametrize("size", [None, (20, 30)])
def test_labels_are_the_argmax_of_the_logits(classes: int, dtype: type, tta: str, size: tuple[int, int] | None) -> None:
    model, image = Toy(InputRule(multiple=8), classes=classes), image_of(33, 44)
    options = {"mean": MEAN, "std": STD, "size": size, "tta": tta, "tile": (16, 16)}
    labels = predict_labels(model, image, **options)  # type: ignore[arg-type]
    assert labels.dtype == dtype and labels.shape == (33, 44)
    np.testing.assert_array_equal(labels, predict(model, image, **options).argmax(axis=0))  # type: ignore[arg-type]


def test_normalise() -> None:
    image = image_of(4, 5)
    x = normalise(image, mean=MEAN, std=STD)
    expected = (image / 255 - np.array(MEAN)) / np.array(STD)
    assert x.dtype == torch.float32
    np.testing.assert_allclose(x[0].permute(1, 2, 0), expected, atol=1e-6)


def test_wrong_options_are_named() -> None:
    model, image = Pixelwise(InputRule()), image_of(8, 8)
    with pytest.raises(ValueError, match="tta: 'flips'. Choices: none, flip, scales, flip_scales"):
        plain(model, image, tta="flips")
    for tile in ("big", (8,), (0, 8), 8):
        with pytest.raises(ValueError, match="tile: .*Choices: auto, none, parts, or"):
            plain(model, image, tile=tile)


def test_predicting_leaves_no_graph_and_the_model_in_eval_mode() -> None:
    model = Toy(InputRule())
    with pytest.raises(AssertionError, match="eval mode"):
        plain(model.train(), image_of(8, 8))
    plain(model.eval(), image_of(8, 8))
    assert not model.training and all(p.grad is None for p in model.parameters())
