"""Corruptions: their formulas by hand, repeatable to the bit, stronger with severity, and no mean moved that should stay."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segpipe import corruptions
from segpipe.corruptions import NAMES, SEVERITIES, corrupt


def photograph(height: int = 90, width: int = 120) -> np.ndarray:
    """Smooth colours, sharp edges and some grain, from dark to bright, far enough from 0 and 255 that little is cut off."""
    y, x = np.mgrid[:height, :width]
    smooth = np.stack([90 + 50 * np.sin(x / 17), 110 + 40 * np.cos(y / 11), 100 + 30 * np.sin((x + y) / 23)], axis=2)
    smooth[height // 3 : height // 2, width // 4 : width // 2] += (50, -30, 20)
    return (smooth + np.random.default_rng(0).normal(0, 3, smooth.shape)).clip(0, 255).astype(np.uint8)


def apply(image: np.ndarray, name: str, severity: int, **changes: object) -> np.ndarray:
    return corrupt(image, name=name, severity=severity, **({"seed": 0, "image_id": "a"} | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_it_is_repeatable_and_keeps_shape_and_type(name: str) -> None:
    image = photograph()
    before = image.copy()
    for severity in SEVERITIES:
        out = apply(image, name, severity)
        assert out.shape == image.shape and out.dtype == np.uint8 and not np.shares_memory(out, image)
        np.testing.assert_array_equal(apply(image, name, severity), out)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("name", ["noise", "fog"])
def test_what_is_random_differs_between_images_and_seeds(name: str) -> None:
    image = photograph()
    out = apply(image, name, 3)
    assert (apply(image, name, 3, image_id="b") != out).any() and (apply(image, name, 3, seed=1) != out).any()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(90, 120), (300, 200)], ids=str)
def test_each_severity_changes_more_than_the_one_before(name: str, size: tuple[int, int]) -> None:
    image = photograph(*size)
    changes = [float(np.abs(apply(image, name, s).astype(int) - image).mean()) for s in SEVERITIES]
    assert 0.5 < changes[0] < 0.9 * changes[1] < 0.81 * changes[2]


@pytest.mark.parametrize("name", ["noise", "blur", "contrast", "jpeg"])
@pytest.mark.parametrize("severity", [1, 3])
def test_the_mean_stays(name: str, severity: int) -> None:
    image = photograph(200, 260)
    assert apply(image, name, severity).mean() == pytest.approx(image.mean(), abs=1.0)


def test_noise_has_the_stated_deviation() -> None:
    grey = np.full((200, 200, 3), 128, np.uint8)
    for severity in (1, 3):  # at 5 a third of the values is cut off
        added = apply(grey, "noise", severity).astype(float) - 128
        assert added.std() == pytest.approx(255 * corruptions.NOISE[severity], rel=0.02)
        assert abs(np.corrcoef(added[..., 0].ravel(), added[..., 1].ravel())[0, 1]) < 0.02


def test_brightness_by_hand() -> None:
    """.1 of 255 is 25.5: (200, 100, 0) grows by 225.5 / 200; a white pixel stays, a black one turns grey."""
    image = np.array([[[200, 100, 0], [255, 255, 255], [0, 0, 0], [250, 125, 50]]], np.uint8)
    expected = [[[226, 113, 0], [255, 255, 255], [26, 26, 26], [255, 128, 51]]]
    # 225.5, 112.75 and 25.5 are rounded to even where they are halves
    assert np.abs(apply(image, "brightness", 1).astype(int) - expected).max() <= 1
    hue = [cv2.cvtColor(i, cv2.COLOR_RGB2HSV)[..., :2].astype(int) for i in (photograph(), apply(photograph(), "brightness", 3))]
    assert np.abs(hue[0] - hue[1]).mean() < 1.5


def test_contrast_by_hand() -> None:
    """Means 60, 100, 20: 100 -> 60 + .75 * 40, 20 -> 60 - .75 * 40; a channel of one value stays."""
    image = np.array([[[100, 100, 0], [20, 100, 40]]], np.uint8)
    assert apply(image, "contrast", 1).tolist() == [[[90, 100, 5], [30, 100, 35]]]
    assert apply(image, "contrast", 5).tolist() == [[[66, 100, 17], [54, 100, 23]]]


def test_jpeg_is_what_the_encoder_makes_of_it() -> None:
    image = photograph()
    data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 7])[1]
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None
    np.testing.assert_array_equal(apply(image, "jpeg", 5), decoded[..., ::-1])
    assert len(data) < image.size / 20


def test_blur_is_a_gaussian_relative_to_the_diagonal() -> None:
    """A bright line is 255 / (sqrt(2 pi) sigma) high after the blur; in a picture of twice the size the blur is twice as wide."""
    heights = []
    for scale in (1, 2):
        image = np.zeros((360 * scale, 480 * scale, 3), np.uint8)
        image[:, 200] = 255
        heights.append(int(apply(image, "blur", 3)[180, 200, 0]))
    assert heights[0] == pytest.approx(255 / (np.sqrt(2 * np.pi) * 3), rel=0.03)
    assert heights[1] == pytest.approx(heights[0] / 2, abs=1.5)


def test_fog_lifts_the_dark_keeps_the_brightest_and_looks_alike_at_every_size() -> None:
    image = photograph()
    out = apply(image, "fog", 3)
    assert out.max() <= image.max() and out.std() < image.std()
    dark = [apply(np.full((*size, 3), [[[5, 5, 200]]], np.uint8), "fog", 3)[..., 0] for size in ((90, 120), (180, 240))]
    assert dark[0].mean() > 40
    shrunk = cv2.resize(dark[1], (120, 90), interpolation=cv2.INTER_AREA)
    assert np.abs(shrunk.astype(int) - dark[0]).mean() < 2.5


@given(
    name=st.sampled_from(NAMES),
    severity=st.sampled_from(SEVERITIES),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    value=st.integers(0, 255),
)
def test_any_small_image_passes(name: str, severity: int, height: int, width: int, value: int) -> None:
    image = np.full((height, width, 3), value, np.uint8)
    assert apply(image, name, severity).shape == image.shape


def test_what_does_not_exist_is_named() -> None:
    with pytest.raises(ValueError, match="unknown corruption 'rain'. Choices: noise, blur"):
        apply(photograph(), "rain", 1)
    with pytest.raises(ValueError, match="unknown severity 2 of fog. Choices: 1, 3, 5"):
        apply(photograph(), "fog", 2)
