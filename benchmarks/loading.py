"""Reading training batches from shards against an image folder with PIL: `python -m benchmarks.loading`.

Both deliver the same batches (JPEG images and PNG masks from the same bytes, same order, same flips) ready for the network:
normalised float32 images and int64 labels. In turns, with the same number of loader processes. Prints the ratio of the median
rates; above 1 the shards are faster.
"""

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from segpipe import shards
from segpipe.augmentation import policy
from segpipe.augmentation.policy import sample_seed
from segpipe.training import data

CLASSES, BATCH, EPOCHS = 6, 8, 2
MEAN, STD = (0.4, 0.45, 0.5), (0.2, 0.21, 0.22)
Pair = tuple[Tensor, Tensor]


def generate(folder: Path, *, images: int, size: tuple[int, int]) -> None:
    """Blobs of six classes: `folder`/shards, and `folder`/images/*.jpg with `folder`/masks/*.png of the same bytes."""
    for name in ("shards", "images", "masks"):
        (folder / name).mkdir()
    with shards.SplitWriter(folder / "shards", "train") as writer, shards.SplitWriter(folder / "shards", "val") as val:
        for number in range(images):
            rng = np.random.default_rng(number)
            noise = rng.normal(size=(size[0] // 32 + 2, size[1] // 32 + 2, CLASSES)).astype(np.float32)
            mask = cv2.resize(noise, size[::-1], interpolation=cv2.INTER_CUBIC).argmax(2).astype(np.uint8)
            texture = cv2.GaussianBlur(rng.normal(0, 60, (*size, 3)).astype(np.float32), (0, 0), 1.5)
            image = np.clip(rng.integers(40, 216, (CLASSES, 3))[mask] + texture, 0, 255).astype(np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "JPEG", quality=92)
            encoded, labels, name = buffer.getvalue(), shards.encode_mask(mask), f"{number:05d}"
            (folder / "images" / f"{name}.jpg").write_bytes(encoded)
            (folder / "masks" / f"{name}.png").write_bytes(labels)
            sample = shards.Sample(
                id=name, image=encoded, mask=labels, height=size[0], width=size[1], group="", source=f"{name}.jpg"
            )
            writer.write(sample)
            if number == 0:
                val.write(sample)


class Folder(Dataset[Pair]):
    """The usual dataset over an image folder: PIL decodes, torch normalises. `index` counts on through the epochs."""

    def __init__(self, folder: Path) -> None:
        self.images = sorted((folder / "images").iterdir())
        self.masks = sorted((folder / "masks").iterdir())
        self.flip = policy.build("flip")

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Pair:
        epoch, index = divmod(index, len(self.images))
        with Image.open(self.images[index]) as file:
            image = np.asarray(file.convert("RGB"))
        with Image.open(self.masks[index]) as file:
            mask = np.asarray(file)
        image, mask = self.flip.apply(image, mask, seed=sample_seed(0, epoch, self.images[index].stem))
        x = torch.from_numpy(image).permute(2, 0, 1).float() / 255
        x = (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
        return x, torch.from_numpy(mask).long()


def from_shards(samples: data.Samples, plan: data.Plan, workers: int) -> Iterator[Pair]:
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    for batch in data.stream(samples, plan, workers=workers):
        if batch.train:
            yield data.normalise(batch.images, mean=mean, std=std, channels_last=True), batch.target.long()


def from_folder(folder: Folder, order: list[list[int]], workers: int) -> Iterator[Pair]:
    yield from DataLoader(folder, batch_sampler=order, num_workers=workers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=160)
    parser.add_argument("--size", type=int, nargs=2, default=(360, 480), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate(folder, images=options.images, size=tuple(options.size))
        split, val = (shards.Split(folder / "shards", s) for s in ("train", "val"))
        samples = data.Samples([split], val, policy=policy.build("flip"), seed=0, ignore_index=255)
        plan = data.Plan(samples, batch_size=BATCH, epochs=EPOCHS, seed=0)
        order = [(batch + epoch * len(samples)).tolist() for epoch in range(EPOCHS) for batch in plan.train_batches(epoch)]
        plain = Folder(folder)
        for (x, target), (y, labels) in zip(from_shards(samples, plan, 0), from_folder(plain, order, 0), strict=True):
            # cv2 and PIL may round a JPEG's colours differently; a grey level is 0.02 here.
            assert torch.equal(target, labels) and (x - y).abs().max() < 0.1, "the two sides read different batches"
        seconds: dict[str, list[float]] = {"shards": [], "folder": []}
        for turn in range(options.rounds):
            for side in sorted(seconds, reverse=bool(turn % 2)):
                start = time.perf_counter()
                pairs = (
                    from_shards(samples, plan, options.workers) if side == "shards" else from_folder(plain, order, options.workers)
                )
                assert sum(len(x) for x, _ in pairs) == EPOCHS * options.images
                seconds[side].append(time.perf_counter() - start)
    rate = {side: EPOCHS * options.images / statistics.median(values) for side, values in seconds.items()}
    for side, value in rate.items():
        print(f"{side}: {value:.0f} images/s of {options.size[0]}x{options.size[1]}, {options.workers} loader processes")
    print(f"reading training batches, shards / folder with PIL: {rate['shards'] / rate['folder']:.2f} times the rate")


if __name__ == "__main__":
    main()
