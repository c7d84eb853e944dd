"""Where a layer's cells lie in the image: the arithmetic behind laying a coarse map over a picture and a mask under a network."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One direction of a grid: the image position u (pixel edges, so pixel i spans i..i+1) is at scale * u + shift, in cells."""

    cells: int
    scale: float
    shift: float

    def centres(self) -> np.ndarray:
        """float64 (cells,): where the middle of each cell lies in the image; may be outside it."""
        middles: np.ndarray = (np.arange(self.cells) + 0.5 - self.shift) / self.scale
        return middles

    def weights(self, size: int) -> np.ndarray:
        """float64 (size, cells): bilinear weights of the cells at each of `size` pixels.

        Beyond the middle of the outermost cells their value holds.

        With scale = cells / size and shift = 0 this is torch's bilinear interpolation with align_corners=False.
        """
        at = np.clip((np.arange(size) + 0.5) * self.scale + self.shift - 0.5, 0, self.cells - 1)
        low = np.minimum(at.astype(np.int64), max(self.cells - 2, 0))
        result = np.zeros((size, self.cells))
        np.add.at(result, (np.arange(size), low), 1 - (at - low))
        np.add.at(result, (np.arange(size), np.minimum(low + 1, self.cells - 1)), at - low)
        return result


def stretched(size: int, *, cells: int) -> Axis:
    """The axis of `cells` cells that cover `size` pixels exactly."""
    return Axis(cells=cells, scale=cells / size, shift=0.0)


def spread(values: np.ndarray, *, rows: Axis, columns: Axis, size: tuple[int, int]) -> np.ndarray:
    """Bilinear values (..., H, W) at `size` = (H, W) pixels of values (..., h, w) on the cells."""
    return rows.weights(size[0]) @ values @ columns.weights(size[1]).T


def gather(weights: np.ndarray, *, rows: Axis, columns: Axis) -> np.ndarray:
    """The transpose of `spread`: weights (H, W) on pixels become weights (h, w) on cells with the same weighted sums.

    sum(weights * spread(v)) = sum(gather(weights) * v) for all v.
    """
    return rows.weights(weights.shape[0]).T @ weights @ columns.weights(weights.shape[1])
