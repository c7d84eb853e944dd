"""The dense CRF of Krahenbuhl & Koltun (NIPS 2011, arXiv 1210.5644): a network's answer, drawn to the edges of its image.

Every pixel is joined to every other by two Gaussian kernels, one of position and colour (the bilateral), one of position alone.
Mean field iterates Q <- softmax(logits + sum over kernels of weight * D^-1/2 K D^-1/2 Q), from Q = softmax(logits), where D holds
the row sums of K and each pixel is among its own neighbours: a Potts model with symmetric normalisation. The filters are exact for
small images, and for the others a permutohedral lattice (bilateral) and a cut-off separable filter (position).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numba import njit

from segpipe.crf_parameters import CrfParameters
from segpipe.permutohedral import Lattice

EXACT_PIXELS = 64 * 64
"""`filter: auto` is exact up to this many pixels; up to as many the exact filter holds its pixels x pixels matrix (128 MiB)."""
MOST_VALUES, MOST_PIXELS = 2**27, 2**22
"""Classes x pixels of an image that mean field takes at most, and pixels: it then needs 3 to 5 GB, and more where all is noise."""
CHANNELS = 32
"""Classes that are filtered together, so that the copies this takes stay small."""
ROWS = 128
"""Rows of the exact bilateral kernel that are computed at a time."""
LEAST_EXPONENT = -60
"""exp(-60) is lost in a float64 sum with the pixel's own 1, and numpy takes six times as long where exp gives 0."""
SHARPENING = 1.05
"""The lattice blurs a little too far. This factor on its features brings it nearest to the exact bilateral filter: measured on
street scenes, for five dimensions, the filter's error falls from 4 to 3.3 %."""
REACH = 5
"""Standard deviations after which the fast position filter is cut off: exp(-12.5) is left."""


@dataclass(frozen=True)
class _Kernel:
    """`weight` * D^-1/2 K D^-1/2; `filter` is K, on values (pixels, channels), up to a factor."""

    filter: Callable[[np.ndarray], np.ndarray]
    scale: np.ndarray
    weight: float

    def add_to(self, message: np.ndarray, q: np.ndarray) -> None:
        for start in range(0, q.shape[1], CHANNELS):
            part = slice(start, start + CHANNELS)
            message[:, part] += (self.weight * self.scale) * self.filter(self.scale * q[:, part])


def mean_field(
    logits: np.ndarray,
    image: np.ndarray,
    *,
    bilateral_weight: float,
    sxy: float,
    srgb: float,
    gaussian_weight: float,
    gaussian_sxy: float,
    iterations: int = 10,
    filter: str = "auto",
) -> np.ndarray:
    """The class probabilities after `iterations` of mean field.

    Args:
        logits: float (K, H, W), the network's answer at the image's size; log probabilities do as well.
        image: uint8 (H, W, 3) RGB.
        bilateral_weight, sxy, srgb: of the kernel exp(-|p - p'|^2 / 2 sxy^2 - |I - I'|^2 / 2 srgb^2); p in pixels, I in 0..255.
        gaussian_weight, gaussian_sxy: of the kernel exp(-|p - p'|^2 / 2 gaussian_sxy^2).
        filter: "exact" (time grows with the square of the pixels), "fast", or "auto": exact up to `EXACT_PIXELS`.

    Returns:
        float32 (K, H, W), or float64 where the logits are.

    Raises:
        ValueError: the shapes do not fit each other, the image is too large, or a number is out of its range.
    """
    CrfParameters(
        bilateral_weight=bilateral_weight,
        sxy=sxy,
        srgb=srgb,
        gaussian_weight=gaussian_weight,
        gaussian_sxy=gaussian_sxy,
        iterations=iterations,
        filter=filter,
    ).checked()
    if logits.ndim != 3 or image.shape != (*logits.shape[1:], 3) or image.dtype != np.uint8:
        raise ValueError(f"logits {logits.shape} need an image uint8 (H, W, 3) of their size, not {image.dtype} {image.shape}")
    classes, height, width = logits.shape
    check_size(classes, height, width)
    exact = filter == "exact" or (filter == "auto" and height * width <= EXACT_PIXELS)
    kind: type = np.float64 if exact else np.float32
    unary: np.ndarray = np.ascontiguousarray(logits.reshape(classes, -1).T, dtype=kind)
    kernels = []
    if bilateral_weight:
        features = bilateral_features(image, sxy=sxy, srgb=srgb)
        kernels.append(
            _kernel(_exact_filter(features) if exact else Lattice(SHARPENING * features).filter, bilateral_weight, unary)
        )
    if gaussian_weight:
        make = _exact_position_filter if exact else _position_filter
        kernels.append(_kernel(make(height, width, gaussian_sxy), gaussian_weight, unary))
    q, message = np.empty_like(unary), np.empty_like(unary)
    _softmax(unary, q)
    for _ in range(iterations):
        np.copyto(message, unary)
        for kernel in kernels:
            kernel.add_to(message, q)
        _softmax(message, q)
    answer = np.float64 if logits.dtype == np.float64 else np.float32
    return q.T.reshape(classes, height, width).astype(answer, copy=False)


def check_size(classes: int, height: int, width: int) -> None:
    """Raise ValueError for an image that is too large for `mean_field`, which needs the logits of all its pixels at once."""
    if classes * height * width > MOST_VALUES or height * width > MOST_PIXELS:
        raise ValueError(
            f"{classes} classes at {height} x {width} pixels are too much for the CRF, which holds the whole image at once: it"
            f" takes {MOST_VALUES // classes} pixels of {classes} classes, and {MOST_PIXELS} of any number"
        )


def bilateral_features(image: np.ndarray, *, sxy: float, srgb: float) -> np.ndarray:
    """float64 (H * W, 5): row, column and colour of each pixel of an image (H, W, 3) in units of the standard deviations."""
    height, width = image.shape[:2]
    features = np.empty((height, width, 5))
    features[..., 0] = (np.arange(height) / sxy)[:, None]
    features[..., 1] = np.arange(width) / sxy
    features[..., 2:] = image / srgb
    return features.reshape(-1, 5)


def _kernel(filter: Callable[[np.ndarray], np.ndarray], weight: float, unary: np.ndarray) -> _Kernel:
    row_sums = filter(np.ones((len(unary), 1), unary.dtype))
    # A pixel is its own neighbour, so no sum is 0.
    scale = (1 / np.sqrt(row_sums)).astype(unary.dtype)
    return _Kernel(filter, scale, weight)


def _exact_filter(features: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """exp(-|f - f'|^2 / 2) as a dense matrix; for many pixels its rows are made anew each time, and memory stays bounded."""
    features = features - features.mean(axis=0)
    squares, ones = (features**2).sum(axis=1, keepdims=True), np.ones((len(features), 1))
    # One product gives f f' - |f|^2 / 2 - |f'|^2 / 2.
    left, right = np.hstack([features, -squares / 2, ones]), np.hstack([features, ones, -squares / 2]).T

    def rows(start: int) -> np.ndarray:
        exponent: np.ndarray = left[start : start + ROWS] @ right
        np.maximum(exponent, LEAST_EXPONENT, out=exponent)
        return np.exp(exponent, out=exponent)

    starts = range(0, len(features), ROWS)
    if len(features) > EXACT_PIXELS:
        return lambda values: np.concatenate([rows(start) @ values for start in starts])
    matrix = np.empty((len(features), len(features)))
    for start in starts:
        matrix[start : start + ROWS] = rows(start)
    return lambda values: matrix @ values


def _exact_position_filter(height: int, width: int, spread: float) -> Callable[[np.ndarray], np.ndarray]:
    """The position kernel is a product of one of rows and one of columns."""
    down, across = (np.exp(-(((np.arange(n)[:, None] - np.arange(n)) / spread) ** 2) / 2) for n in (height, width))

    def filter(values: np.ndarray) -> np.ndarray:
        columns = across @ values.reshape(height, width, -1)
        return (down @ columns.reshape(height, -1)).reshape(values.shape)

    return filter


def _position_filter(height: int, width: int, spread: float) -> Callable[[np.ndarray], np.ndarray]:
    """The same in float32, cut off where nothing is left; beyond the image there is nothing."""

    def bell(side: int) -> np.ndarray:
        radius = min(math.ceil(REACH * spread), max(side - 1, 1))
        return np.exp(-((np.arange(-radius, radius + 1) / spread) ** 2) / 2).astype(np.float32)

    across, down = bell(width), bell(height)

    def filter(values: np.ndarray) -> np.ndarray:
        planes = np.ascontiguousarray(values).reshape(height, width, -1)
        return cv2.sepFilter2D(planes, -1, across, down, borderType=cv2.BORDER_CONSTANT).reshape(values.shape)

    return filter


def _softmax(x: np.ndarray, out: np.ndarray) -> None:
    """Softmax over the rows of x (N, K); numba does the short rows, numpy the exponentials, each what it is fast at."""
    _subtract_maximum(x, out)
    np.exp(out, out=out)
    _divide_by_sum(out)


@njit(cache=True, nogil=True)
def _subtract_maximum(x: np.ndarray, out: np.ndarray) -> None:
    for p in range(x.shape[0]):
        most = x[p, 0]
        for c in range(1, x.shape[1]):
            most = max(most, x[p, c])
        for c in range(x.shape[1]):
            out[p, c] = x[p, c] - most


@njit(cache=True, nogil=True)
def _divide_by_sum(x: np.ndarray) -> None:
    for p in range(x.shape[0]):
        total = x[p, 0]
        for c in range(1, x.shape[1]):
            total += x[p, c]
        for c in range(x.shape[1]):
            x[p, c] /= total
