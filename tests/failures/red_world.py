"""Images whose red channel tells the class, a network that reads it, and predictions with a wrong block in five of them."""

from pathlib import Path

import numpy as np

from segpipe.failures.explain import Explanation, explain
from segpipe.shards import Sample, Split, SplitWriter, encode_image, encode_mask
from tests.failures.networks import GRIDS, Reader, blobs

CLASSES = ["sky", "<script>alert(1)</script>", "road & kerb"]
COLOURS = [(70, 130, 180), (220, 20, 60), (128, 64, 128)]
SIZE = (48, 64)
World = tuple[Split, dict[str, np.ndarray], Reader]


def red_world(folder: Path, *, images: int = 6) -> World:
    rng = np.random.default_rng(5)
    predictions = {}
    with SplitWriter(folder, "test") as writer:
        for i in range(images):
            mask = blobs(rng, size=SIZE, classes=3, cell=16)
            image = np.repeat((mask * 127)[..., None], 3, axis=2).astype(np.uint8)
            predicted = mask.copy()
            if i < 5:
                predicted[8:24, 8:40] = (mask[8:24, 8:40] + 1 + i % 2) % 3
                # The image looks like the wrong class there, so that the network agrees with the prediction.
                image[8:24, 8:40] = (predicted[8:24, 8:40] * 127)[..., None]
            mask[:2] = 255
            writer.write(
                Sample(id=f"im<{i}>", image=encode_image(image), mask=encode_mask(mask), height=48, width=64, group="", source="")
            )
            predictions[f"im<{i}>"] = predicted
    return Split(folder, "test"), predictions, Reader(classes=3).eval()


def run(world: World, **changes: object) -> Explanation:
    split, predictions, model = world
    arguments = {
        "layers": {"pooled": model.pooled, "spread": model.spread},
        "grids": GRIDS,
        "class_names": CLASSES,
        "ignore_index": 255,
        "mean": (0, 0, 0),
        "std": (1, 1, 1),
        "regions": 7,
    }
    return explain(model, split, predictions, **(arguments | changes))
