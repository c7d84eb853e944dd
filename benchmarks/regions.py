"""Region analysis against one pass per class pair with OpenCV and SciPy: `python -m benchmarks.regions`. The target is 100 ms.

A 1024 x 2048 image with 19 classes, on one core: every error region with its box, centroid, thickness and nearness to the boundary,
the true and the predicted segment around it, and its mode. The peer masks each class pair in turn and measures the same things with
connectedComponentsWithStats and exact distance transforms, but neither touches nor bridges, so it stops short of a mode. Times are
the processor's (a busy machine shares its cores out by the clock on the wall), the least of the repeats, in turns.
"""

import time

import cv2
import numpy as np

from segpipe.failures import modes
from segpipe.failures.regions import boundary_radius, error_regions

HEIGHT, WIDTH, CLASSES, IGNORE = 1024, 2048, 19, 255
REPEATS = 3
COMPARED = ("area", "top", "left", "bottom", "right", "thickness", "boundary_share", "segment_area", "predicted_area")


def scene(*, cells: int, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Smooth patches as ground truth, and what is left of them under noise of `cells` times finer grain as prediction."""
    rng = np.random.default_rng(seed)
    best = np.full((2, HEIGHT, WIDTH), -np.inf, np.float32)
    labels = np.zeros((2, HEIGHT, WIDTH), np.uint8)
    for k in range(CLASSES):
        smooth, fine = (
            cv2.resize(rng.standard_normal((8 * c, 16 * c), dtype=np.float32), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
            for c in (1, cells)
        )
        for i, field in enumerate((smooth, smooth + noise * fine)):
            labels[i][field > best[i]] = k
            best[i] = np.maximum(best[i], field)
    labels[0, -60:] = IGNORE
    return labels[0], labels[1]


def ours(target: np.ndarray, prediction: np.ndarray) -> dict[str, np.ndarray]:
    _, table = error_regions(target, prediction=prediction, num_classes=CLASSES, ignore_index=IGNORE)
    radius = boundary_radius(HEIGHT, WIDTH)
    table["mode"] = modes.assign(table, radius=radius)
    return table | modes.modifiers(table, radius=radius, below=modes.small_below(HEIGHT, WIDTH))


def theirs(target: np.ndarray, prediction: np.ndarray) -> dict[str, np.ndarray]:
    """Rows by class pair; the columns COMPARED, and first, the flat position of a region's first pixel."""
    valid, radius = target != IGNORE, boundary_radius(HEIGHT, WIDTH)
    truths, guesses = segments(target, valid), segments(prediction, valid)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in (*COMPARED, "first")}
    for predicted in range(CLASSES):
        near: np.ndarray | None = None
        for true in range(CLASSES):
            mask = (target == true) & (prediction == predicted)
            if true == predicted or not mask.any():
                continue
            if near is None:
                away = cv2.distanceTransform((target != predicted).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
                near = away <= radius
            count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
            x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
            box = slice(y, y + h), slice(x, x + w)
            padded = cv2.copyMakeBorder(mask[box].astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT)
            depth = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
            of, flat = labels[mask] - 1, np.flatnonzero(mask)
            deepest = np.zeros(count - 1, np.float32)
            np.maximum.at(deepest, of, depth[mask[box]])
            first = np.full(count - 1, mask.size)
            np.minimum.at(first, of, flat)
            left, top, width, height, area = stats[1:].T
            found = {"area": area, "top": top, "left": left, "bottom": top + height, "right": left + width}
            found |= {"thickness": np.ceil(2 * deepest - 1), "boundary_share": np.bincount(of, near[mask]) / area, "first": first}
            found |= {"segment_area": truths[true].ravel()[first], "predicted_area": guesses[predicted].ravel()[first]}
            for name, values in found.items():
                parts[name].append(values)
    return {name: np.concatenate(values) for name, values in parts.items()}


def segments(labels: np.ndarray, valid: np.ndarray) -> list[np.ndarray]:
    """For each class the area of the segment that each pixel lies in (H, W)."""
    areas = []
    for k in range(CLASSES):
        _, numbers, stats, _ = cv2.connectedComponentsWithStats(((labels == k) & valid).astype(np.uint8), connectivity=8)
        areas.append(stats[:, 4][numbers])
    return areas


def main() -> None:
    cv2.setNumThreads(1)
    for words, options in (("many regions", {"cells": 16, "noise": 0.22}), ("few large ones", {"cells": 2, "noise": 0.35})):
        target, prediction = scene(seed=0, **options)
        seconds: dict[str, list[float]] = {"ours": [], "theirs": []}
        for repeat in range(REPEATS + 1):
            tables = {}
            for name, method in (("ours", ours), ("theirs", theirs)):
                start = time.process_time()
                tables[name] = method(target, prediction)
                if repeat:  # the first compiles
                    seconds[name].append(time.process_time() - start)
        order = np.argsort(tables["theirs"]["first"])
        for name in COMPARED:
            np.testing.assert_allclose(tables["ours"][name], tables["theirs"][name][order], rtol=1e-5, err_msg=name)
        own, peer = (1000 * float(min(seconds[name])) for name in ("ours", "theirs"))
        wrong = ((target != prediction) & (target != IGNORE)).mean()
        counts = {mode: int((tables["ours"]["mode"] == mode).sum()) for mode in modes.MODES}
        print(f"{words}: {len(order)} in {HEIGHT} x {WIDTH}, {CLASSES} classes, {100 * wrong:.1f} % wrong; {counts}")
        print(f"segpipe {own:7.1f} ms (target 100)    class pair by class pair {peer:7.1f} ms    ratio {peer / own:.1f}")


if __name__ == "__main__":
    main()
