"""Training and validation batches from the shards: the same samples in the same order for any number of loader processes.

One stream carries all batches of a run, epoch after epoch, each epoch's training batches followed by its validation batches. The
loader processes start once, before the first step, and prefetch across epoch ends. What a sample looks like depends on (run seed,
epoch, sample id) and nothing else, so that a resumed run starts in the middle of the plan and sees what it would have seen.

Samples travel as bytes (uint8) and are normalised on the device. Datasets pickle as their paths, so that loader processes may be
forked or spawned.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from segpipe.augmentation.policy import Policy, sample_seed
from segpipe.inference import resize_image
from segpipe.shards import Split


class Key(NamedTuple):
    """One sample of the plan: `number` counts through the training samples (all splits in turn) or through validation."""

    train: bool
    epoch: int
    number: int


class Item(NamedTuple):
    """One decoded sample: image uint8 (H, W, 3), mask uint8 or uint16 (H, W)."""

    image: np.ndarray
    mask: np.ndarray
    id: str


@dataclass
class Batch:
    """images uint8 (N, H, W, 3), target uint8 or int32 (N, H, W), the samples' ids, and where in the plan they stand."""

    images: Tensor
    target: Tensor
    ids: list[str]
    train: bool
    epoch: int

    def __len__(self) -> int:
        return len(self.ids)

    def pin_memory(self) -> "Batch":
        """Called by the loader, so that the copy to a GPU does not wait."""
        return Batch(self.images.pin_memory(), self.target.pin_memory(), self.ids, self.train, self.epoch)


class Samples(Dataset[tuple[Item, Key]]):
    """All samples of a run, decoded, resized, cropped and augmented as their `Key` says.

    Args:
        train: the training samples; the converted split and, if used, the augmented one.
        val: the validation split; only `size` is applied to it.
        policy: online augmentation of the training samples.
        seed: the run's seed.
        ignore_index: the label of padding.
        size: (height, width) that every image is resized to (masks by nearest pixel); None leaves them.
        crop: (height, width) of a random window of the training samples; smaller images are padded first.

    Raises:
        ValueError: there is no training or no validation sample.
    """

    def __init__(
        self,
        train: Sequence[Split],
        val: Split,
        *,
        policy: Policy,
        seed: int,
        ignore_index: int,
        size: tuple[int, int] | None = None,
        crop: tuple[int, int] | None = None,
    ) -> None:
        self.train, self.val, self.policy, self.seed = list(train), val, policy, seed
        self.ignore_index, self.size, self.crop = ignore_index, size, crop
        self.starts = np.cumsum([0] + [len(split) for split in self.train])
        for split, count in ((self.train[0], self.starts[-1]), (val, len(val))):
            if not count:
                raise ValueError(
                    f"{split.folder}: the {split.name} split is empty, and training needs one. Let `stand_in` of this dataset"
                    " in params.yaml say what takes its place."
                )
        self.ids = [name for split in self.train for name in split.ids]
        self.val_ids = val.ids

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, key: Key) -> tuple[Item, Key]:
        return (self._train_item(key) if key.train else self._val_item(key.number)), key

    def val_sizes(self) -> list[tuple[int, int]]:
        """(height, width) of each validation sample as the network sees it."""
        if self.size is not None:
            return [self.size] * len(self.val)
        return list(zip(self.val.column("height"), self.val.column("width"), strict=True))

    def usual_size(self) -> tuple[int, int]:
        """The most frequent of `val_sizes`."""
        return Counter(self.val_sizes()).most_common(1)[0][0]

    def _train_item(self, key: Key) -> Item:
        which = int(np.searchsorted(self.starts, key.number, side="right")) - 1
        image, mask = self.train[which].arrays(key.number - int(self.starts[which]))
        name = self.ids[key.number]
        image, mask = resize(image, mask, self.size)
        if self.crop is not None:
            seed = sample_seed(self.seed, key.epoch, name, "crop")
            image, mask = random_crop(image, mask, self.crop, seed=seed, ignore_index=self.ignore_index)
        seed = sample_seed(self.seed, key.epoch, name)
        image, mask = self.policy.apply(image, mask, seed=seed, ignore_index=self.ignore_index)
        return Item(image, mask, name)

    def _val_item(self, index: int) -> Item:
        image, mask = self.val.arrays(index)
        return Item(*resize(image, mask, self.size), self.val_ids[index])


class Plan(Sampler[list[Key]]):
    """The batches of a run from (epoch, step) on. No sample is dropped and the sizes of an epoch's batches differ by one at most.

    Args:
        samples: what the batches are drawn from.
        batch_size: the most samples of a batch, over all processes.
        epochs: planned epochs.
        seed: the run's seed; the order of epoch e follows from (seed, e).
        epoch: where to start.
        step: training batches of that epoch that are already done.
        rank: this process; it gets its share of every training batch, and all of validation.
        processes: how many train together.
    """

    def __init__(
        self,
        samples: Samples,
        *,
        batch_size: int,
        epochs: int,
        seed: int,
        epoch: int = 0,
        step: int = 0,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self.count, self.epochs, self.seed, self.epoch, self.step = len(samples), epochs, seed, epoch, step
        self.rank, self.processes = rank, processes
        self.steps = -(-self.count // batch_size)
        if self.count // self.steps < processes:
            raise ValueError(
                f"batch_size {batch_size}: fewer samples in a batch than the {processes} processes that share it. Raise it."
            )
        shapes = samples.val_sizes()
        seen = samples.crop or samples.size or max(shapes)
        self.val_batches = validation_batches(shapes, pixels=batch_size * seen[0] * seen[1], most=batch_size)

    def __len__(self) -> int:
        return (self.epochs - self.epoch) * (self.steps + len(self.val_batches)) - self.step

    def __iter__(self) -> Iterator[list[Key]]:
        for epoch in range(self.epoch, self.epochs):
            for batch in self.train_batches(epoch)[self.step if epoch == self.epoch else 0 :]:
                share = np.array_split(batch, self.processes)[self.rank]
                yield [Key(True, epoch, int(i)) for i in share]
            for members in self.val_batches:
                yield [Key(False, epoch, i) for i in members]

    def train_batches(self, epoch: int) -> list[np.ndarray]:
        """The training batches of one epoch: a permutation of all samples in pieces of equal size, or one less.

        An even share keeps a last batch of one sample away, with which a batch normalisation over one pixel cannot train.
        """
        order = np.random.default_rng(sample_seed(self.seed, epoch, "order")).permutation(self.count)
        return np.array_split(order, self.steps)


def validation_batches(shapes: Sequence[tuple[int, int]], *, pixels: int, most: int) -> list[list[int]]:
    """Indices in batches of samples of one (height, width), at most `most` samples and about `pixels` pixels each.

    One size per batch needs no padding, which would change what the network answers at the edges.
    """
    by_shape: dict[tuple[int, int], list[int]] = {}
    for index, shape in enumerate(shapes):
        by_shape.setdefault(shape, []).append(index)
    batches: list[list[int]] = []
    for (height, width), members in by_shape.items():
        length = min(most, max(1, pixels // (height * width)))
        batches += [members[i : i + length] for i in range(0, len(members), length)]
    return batches


def resize(image: np.ndarray, mask: np.ndarray, size: tuple[int, int] | None) -> tuple[np.ndarray, np.ndarray]:
    """The pair at (height, width): the image as `predict` resizes it, the mask by the nearest pixel. None leaves both."""
    if size is None or image.shape[:2] == tuple(size):
        return image, mask
    return resize_image(image, size), cv2.resize(mask, (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)


def pad(image: np.ndarray, mask: np.ndarray, size: tuple[int, int], *, ignore_index: int) -> tuple[np.ndarray, np.ndarray]:
    """The pair grown to at least (height, width) to the right and below: the image mirrored, the mask `ignore_index`."""
    below, right = max(0, size[0] - image.shape[0]), max(0, size[1] - image.shape[1])
    if not below and not right:
        return image, mask
    image = cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REFLECT)
    return image, cv2.copyMakeBorder(mask, 0, below, 0, right, cv2.BORDER_CONSTANT, value=ignore_index)


def random_crop(
    image: np.ndarray, mask: np.ndarray, size: tuple[int, int], *, seed: int, ignore_index: int
) -> tuple[np.ndarray, np.ndarray]:
    """A window of (height, width), every position equally likely; a smaller pair is padded first (see `pad`)."""
    image, mask = pad(image, mask, size, ignore_index=ignore_index)
    rng = np.random.default_rng(seed)
    top, left = (int(rng.integers(have - want + 1)) for have, want in zip(mask.shape, size, strict=True))
    window = np.s_[top : top + size[0], left : left + size[1]]
    return image[window], mask[window]


def collate(rows: Sequence[tuple[Item, Key]], *, ignore_index: int) -> Batch:
    """One batch of samples; smaller ones are padded to the largest height and width (see `pad`)."""
    items = [item for item, _ in rows]
    size = tuple(max(item.mask.shape[axis] for item in items) for axis in (0, 1))
    pairs = [pad(item.image, item.mask, (size[0], size[1]), ignore_index=ignore_index) for item in items]
    masks = np.stack([mask for _, mask in pairs])
    # torch has few operations on uint16.
    masks = masks if masks.dtype == np.uint8 else masks.astype(np.int32)
    images = np.stack([image for image, _ in pairs])
    key = rows[0][1]
    return Batch(torch.from_numpy(images), torch.from_numpy(masks), [item.id for item in items], key.train, key.epoch)


def stream(samples: Samples, plan: Plan, *, workers: int, pin: bool = False) -> Iterator[Batch]:
    """All batches of the plan, in order. `workers` loader processes decode ahead; 0 decodes in this process, when asked."""
    loader = DataLoader(
        samples,
        batch_sampler=plan,
        collate_fn=partial(collate, ignore_index=samples.ignore_index),
        num_workers=workers,
        pin_memory=pin,
        worker_init_fn=_one_thread,
        # The loader draws a seed when it starts, and must not move the run's own random stream.
        generator=torch.Generator(),
    )
    return iter(loader)


def _one_thread(_: int) -> None:
    """Loader processes are the parallelism; OpenCV's own threads would fight them, and do not survive a fork."""
    cv2.setNumThreads(0)


def normalise(images: Tensor, *, mean: Tensor, std: Tensor, channels_last: bool) -> Tensor:
    """uint8 (N, H, W, C) on any device to float32 (N, C, H, W): (image / 255 - mean) / std, mean and std per channel in 0..1."""
    x = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.preserve_format)
    x = x.mul_((1.0 / (255.0 * std))[:, None, None]).sub_((mean / std)[:, None, None])
    return x if channels_last else x.contiguous()
