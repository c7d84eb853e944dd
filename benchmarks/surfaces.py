"""Surface metrics of 19 classes against what other tools do: `python -m benchmarks.surfaces`. Prints time and ratio.

HD95, ASSD, NSD and boundary IoU of every class of one image, 512 x 512 and 1024 x 2048, 255 ignored. The peers are written here
from the structure of the tools, with scipy's exact transform: MedPy's way on the whole image, MONAI's on the box around the class,
and torchmetrics' own `mask_edges` and `distance_transform`. They are spared what the tools do on top: here a class's distances are
computed once for all metrics, there by each function anew. Boundary IoU is that of the reference code. All take turns on one
thread, and their values are asserted to be equal to ours.
"""

import statistics
import time
from collections.abc import Callable, Mapping

import cv2
import numpy as np
import torch
from scipy.ndimage import binary_erosion, distance_transform_edt, generate_binary_structure
from torchmetrics.functional.segmentation.utils import distance_transform, mask_edges

from segpipe import surfaces
from segpipe.metrics import assd, boundary_iou, hd95_pooled, nsd

CLASSES, IGNORED = 19, 255
OURS = {"hd95_pooled": hd95_pooled, "assd": assd, "nsd": nsd}
DISTANCES = ("hd95_pooled", "assd", *nsd.KEYS)
Values = Mapping[str, np.ndarray]
Directed = tuple[np.ndarray, np.ndarray]


def main() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    for size, rounds in (((512, 512), 7), ((1024, 2048), 3)):
        target, prediction = scene(*size)
        name = f"{size[0]} x {size[1]}"
        print(f"{name}, {CLASSES} classes, {100 * np.mean(target != prediction):.1f} % of the pixels differ, one thread")
        compare(
            "distances",
            lambda t=target, p=prediction: ours(t, p, OURS),
            {
                "MedPy's way": lambda t=target, p=prediction: peer(t, p, whole),
                "MONAI's way": lambda t=target, p=prediction: peer(t, p, boxed),
                "torchmetrics' edges and transform": lambda t=target, p=prediction: peer(t, p, torchmetrics_way),
            },
            rounds=rounds,
        )
        compare(
            "boundary",
            lambda t=target, p=prediction: ours(t, p, {"boundary_iou": boundary_iou}),
            {"the reference code of boundary IoU": lambda t=target, p=prediction: reference_boundary_iou(t, p)},
            rounds=rounds,
        )
        start = time.perf_counter()
        surfaces.trimap_counts(target, prediction, num_classes=CLASSES, ignore_index=IGNORED)
        print(f"trimap of {len(surfaces.TRIMAP_RADII)} radii: {1000 * (time.perf_counter() - start):.0f} ms")


def compare(kind: str, mine: Callable[[], Values], peers: Mapping[str, Callable[[], Values]], *, rounds: int) -> None:
    """Time all in turns, assert that they agree, and print milliseconds and ratios."""
    expected = mine()
    seconds: dict[str, list[float]] = {name: [] for name in ("segpipe", *peers)}
    for _ in range(rounds):
        for name, run in (("segpipe", mine), *peers.items()):
            start = time.perf_counter()
            values = run()
            seconds[name].append(time.perf_counter() - start)
            for key in expected:
                np.testing.assert_allclose(values[key], expected[key], rtol=1e-12, err_msg=f"{name}, {key}")
    median = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in median.items():
        print(f"{kind:9} {name:36} {1000 * value:8.1f} ms   {value / median['segpipe']:5.1f} x   equal: {', '.join(expected)}")


def scene(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A drawn scene, uint8 (H, W): blobs of all classes in all sizes, an ignored frame, and a prediction with shaken contours."""
    rng = np.random.default_rng(0)

    def field(scale: float) -> np.ndarray:
        small = rng.normal(size=(CLASSES, max(2, round(height / scale)), max(2, round(width / scale)))).astype(np.float32)
        return np.stack([cv2.resize(layer, (width, height), interpolation=cv2.INTER_CUBIC) for layer in small])

    large, fine = field(height / 6), field(height / 24)
    # Some classes are everywhere and some are rare, as in street scenes.
    logits = 2 * large + fine - np.linspace(0, 2, CLASSES, dtype=np.float32)[:, None, None]
    target = logits.argmax(axis=0).astype(np.uint8)
    prediction = (logits + 0.35 * field(height / 64)).argmax(axis=0).astype(np.uint8)
    target[:, : width // 50] = IGNORED
    return target, prediction


def ours(target: np.ndarray, prediction: np.ndarray, metrics: Mapping) -> Values:
    return surfaces.measure(target, prediction, num_classes=CLASSES, ignore_index=IGNORED, metrics=metrics)


def peer(target: np.ndarray, prediction: np.ndarray, way: Callable[[np.ndarray, np.ndarray], Directed]) -> Values:
    """The metrics of every class from the distances that `way` gives for two masks."""
    values = {key: np.full(CLASSES, np.nan) for key in DISTANCES}
    valid = target != IGNORED
    for k in range(CLASSES):
        truth, guess = (target == k) & valid, (prediction == k) & valid
        if truth.any() != guess.any():
            for key in nsd.KEYS:
                values[key][k] = 0
        if not (truth.any() and guess.any()):
            continue
        distances = np.hstack(way(truth, guess))
        values["hd95_pooled"][k] = np.percentile(distances, 95)
        values["assd"][k] = distances.mean()
        for key, tolerance in zip(nsd.KEYS, nsd.TOLERANCES, strict=True):
            values[key][k] = np.mean(distances <= tolerance)
    return values


def whole(truth: np.ndarray, guess: np.ndarray) -> Directed:
    """Distances from the border pixels of each mask to the other's, by a distance transform of the whole array (MedPy)."""
    cross = generate_binary_structure(2, 1)
    a, b = (mask ^ binary_erosion(mask, structure=cross) for mask in (truth, guess))
    return distance_transform_edt(~b)[a], distance_transform_edt(~a)[b]


def boxed(truth: np.ndarray, guess: np.ndarray) -> Directed:
    """`whole` on the box around the two masks (MONAI)."""
    rows, columns = ((truth | guess).any(axis=axis).nonzero()[0] for axis in (1, 0))
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return whole(truth[box], guess[box])


def torchmetrics_way(truth: np.ndarray, guess: np.ndarray) -> Directed:
    """`whole` with torchmetrics' functions, on scipy's engine: the default one takes memory in the square of the pixels."""
    guess_edges, truth_edges = mask_edges(torch.from_numpy(guess), torch.from_numpy(truth), crop=False)
    a, b = truth_edges.bool().numpy(), guess_edges.bool().numpy()
    to_b, to_a = (np.asarray(distance_transform(torch.from_numpy(~edges), engine="scipy")) for edges in (b, a))
    return to_b[a], to_a[b]


def reference_boundary_iou(target: np.ndarray, prediction: np.ndarray) -> Values:
    """Boundary IoU as in the paper's code: pad by one, erode as often as the band is wide, subtract."""
    width = boundary_iou.band_width((target.shape[0], target.shape[1]))
    values = np.full(CLASSES, np.nan)
    valid = target != IGNORED
    for k in range(CLASSES):
        bands = []
        for labels in (target, prediction):
            mask = ((labels == k) & valid).astype(np.uint8)
            padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
            bands.append(mask - cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=width)[1:-1, 1:-1])
        union = np.count_nonzero(bands[0] | bands[1])
        values[k] = np.count_nonzero(bands[0] & bands[1]) / union if union else np.nan
    return {"boundary_iou": values}


if __name__ == "__main__":
    main()
