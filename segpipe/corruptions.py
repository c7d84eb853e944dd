"""Six ways a photograph goes bad, in three severities: what robustness is measured on. Labels never move.

The corruptions are those of ImageNet-C and CIFAR-10-C (Hendrycks & Dietterich 2019, arXiv 1903.12261; code hendrycks/robustness)
at their severities 1, 3 and 5, which Kamann & Rother (2020, arXiv 1908.05005) put in front of segmentation networks. Strengths are
ImageNet-C's, but for contrast and fog CIFAR-10-C's: ImageNet-C's are strong at severity 1 already, and of a street in shadow its
contrast leaves nothing at 5 that a person could label. Two things differ, as images here have any size: the width of the blur is
relative to the image's diagonal, and fog is drawn on a grid of fixed size and stretched, so that both look alike at every
resolution.
"""

import hashlib
from collections.abc import Callable

import cv2
import numpy as np

NAMES = ("noise", "blur", "brightness", "contrast", "jpeg", "fog")
SEVERITIES = (1, 3, 5)
"""Light, medium and strong; numbered as in ImageNet-C."""
NOISE = {1: 0.08, 3: 0.18, 5: 0.38}
"""Standard deviation of independent Gaussian noise, in a range of 0..1."""
BLUR = {1: 1.0, 3: 3.0, 5: 6.0}
"""Standard deviation of a Gaussian in pixels, in an image with a diagonal of `DIAGONAL`."""
DIAGONAL = 600
"""The diagonal of a 480 x 360 image in pixels."""
BRIGHTNESS = {1: 0.1, 3: 0.3, 5: 0.5}
"""Added to the largest of a pixel's three values (its V in HSV), in a range of 0..1; hue and saturation stay."""
CONTRAST = {1: 0.75, 3: 0.4, 5: 0.15}
"""What is left of each value's distance from its channel's mean."""
JPEG = {1: 25, 3: 15, 5: 7}
"""Quality of the compression."""
FOG = {1: (0.2, 3.0), 3: (0.75, 2.5), 5: (1.5, 1.75)}
"""Thickness of the fog relative to the brightest value, and the decay of `_plasma`: the larger, the smoother."""
FOG_SIDE = 256
"""Sides of the grid that fog is drawn on, a power of 2."""


def corrupt(image: np.ndarray, *, name: str, severity: int, seed: int, image_id: str) -> np.ndarray:
    """The image uint8 (H, W, 3) RGB as corruption `name` of `severity` leaves it: a new array of the same shape and type.

    What is random in it, the noise and the clouds, follows from `seed`, `image_id` and `name`; at a higher severity the same noise
    is stronger, and the same clouds are thicker.

    Raises:
        ValueError: the corruption or the severity is unknown.
    """
    check(name, severity)
    assert image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8, f"{image.dtype} {image.shape} is no RGB image"
    digest = hashlib.sha256(f"corruption/{seed}/{image_id}/{name}".encode()).digest()
    rng = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:8], "big")))
    return APPLY[name](image, severity, rng)


def check(name: str, severity: int) -> None:
    """Raise ValueError if there is no such corruption or severity; the message says which there are."""
    if name not in NAMES:
        raise ValueError(f"unknown corruption {name!r}. Choices: {', '.join(NAMES)}.")
    if severity not in SEVERITIES:
        raise ValueError(f"unknown severity {severity!r} of {name}. Choices: {', '.join(str(s) for s in SEVERITIES)}.")


def noise(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Independent Gaussian noise on every value."""
    drawn = rng.standard_normal(image.shape, dtype=np.float32)
    drawn *= np.float32(255 * NOISE[severity])
    drawn += image
    return _bytes(drawn)


def blur(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """A Gaussian blur of `BLUR` pixels times diagonal / DIAGONAL; beyond the border is the mirror image.

    The factor is 1/2 at least: in small images a narrower Gaussian would change nothing.
    """
    sigma = BLUR[severity] * max(0.5, float(np.hypot(*image.shape[:2])) / DIAGONAL)
    blurred: np.ndarray = cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)
    return blurred


def brightness(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """V + c in HSV: a pixel's values all times min(V + c, 1) / V; black, which has no hue, turns grey."""
    top = np.arange(256, dtype=np.float32)
    raised = np.minimum(top + np.float32(255 * BRIGHTNESS[severity]), 255)
    largest = image.max(axis=2)
    brighter = image * (raised / np.maximum(top, 1))[largest][..., None]
    brighter[largest == 0] = raised[0]
    return _bytes(brighter)


def contrast(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Every value is moved towards the mean of its channel over the image, which stays."""
    left = np.float32(CONTRAST[severity])
    means = np.array(cv2.mean(image)[:3], np.float32)
    return _bytes(image * left + means * (1 - left))


def jpeg(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Compressed as JPEG and decoded again."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG[severity]])
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
    assert done and decoded is not None
    return decoded


def fog(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Clouds are added and the whole is scaled back to the image's own brightest value m: (x + t clouds) m / (m + t)."""
    thickness, decay = FOG[severity]
    height, width = image.shape[:2]
    rows, columns = (max(2, round(FOG_SIDE * side / max(height, width))) for side in (height, width))
    clouds = cv2.resize(_plasma(rng, decay)[:rows, :columns], (width, height), interpolation=cv2.INTER_LINEAR)
    brightest = image.max() / 255
    clouds *= np.float32(255 * thickness)
    return _bytes((image + clouds[..., None]) * np.float32(brightest / (brightest + thickness)))


APPLY: dict[str, Callable[[np.ndarray, int, np.random.Generator], np.ndarray]] = {
    "noise": noise,
    "blur": blur,
    "brightness": brightness,
    "contrast": contrast,
    "jpeg": jpeg,
    "fog": fog,
}


def _plasma(rng: np.random.Generator, decay: float) -> np.ndarray:
    """Clouds float32 (FOG_SIDE, FOG_SIDE) with mean 1/2 by the diamond-square algorithm, on a grid whose opposite edges meet.

    Each round halves the distance of the known points: first the centre of every square becomes the mean of its corners, then
    the middle of every edge the mean of its four neighbours, both with noise. ImageNet-C multiplies noise uniform in -w..w by w
    again, so its size falls by decay squared per round; so it does here. The range is 1 as there, but where it lies is not: there
    it is 0..1, which leaves to chance how much fog there is.
    """
    clouds = np.zeros((FOG_SIDE, FOG_SIDE))
    step, size = FOG_SIDE, 1.0
    while step > 1:
        half = step // 2
        corners = clouds[::step, ::step]
        across = corners + np.roll(corners, -1, axis=1)
        centres = (across + np.roll(across, -1, axis=0)) / 4 + rng.uniform(-size, size, corners.shape)
        above = centres + np.roll(centres, 1, axis=0)
        beside = centres + np.roll(centres, 1, axis=1)
        clouds[half::step, half::step] = centres
        clouds[::step, half::step] = (above + across) / 4 + rng.uniform(-size, size, corners.shape)
        down = corners + np.roll(corners, -1, axis=0)
        clouds[half::step, ::step] = (beside + down) / 4 + rng.uniform(-size, size, corners.shape)
        step, size = half, size / decay**2
    return (0.5 + (clouds - clouds.mean()) / np.ptp(clouds)).astype(np.float32)


def _bytes(values: np.ndarray) -> np.ndarray:
    """uint8: rounded and cut off at 0 and 255."""
    return np.clip(np.rint(values, out=values), 0, 255, out=values).astype(np.uint8)
