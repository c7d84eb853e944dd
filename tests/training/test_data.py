"""Samples and their order: nothing dropped, nothing dependent on who decodes, labels never invented."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from segpipe import shards
from segpipe.augmentation import policy
from segpipe.training import data
from segpipe.training.data import Key, Plan
from tests.training import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "tiny"
    tiny.write_dataset(path, train=11, val=5, sizes=((24, 32), (30, 20)))
    return path


def batches(samples: data.Samples, *, workers: int = 0, **plan: int) -> list[data.Batch]:
    return list(data.stream(samples, Plan(samples, **{"batch_size": 4, "epochs": 2, "seed": 3} | plan), workers=workers))


def equal(a: list[data.Batch], b: list[data.Batch]) -> bool:
    return len(a) == len(b) and all(
        x.ids == y.ids and torch.equal(x.images, y.images) and torch.equal(x.target, y.target) for x, y in zip(a, b, strict=True)
    )


def test_same_samples_for_0_and_2_workers_and_from_the_middle(folder: Path) -> None:
    samples = tiny.samples(folder, crop=(16, 16))
    alone = batches(samples)
    assert equal(alone, batches(samples, workers=2))
    # Three training and two or more validation batches per epoch: (epoch 1, step 2) is the last training batch of the run.
    per_epoch = len(alone) // 2
    assert equal(alone[per_epoch + 2 :], batches(samples, workers=2, epoch=1, step=2))
    assert not equal(alone, batches(tiny.samples(folder, crop=(16, 16), seed=1)))


def test_epochs_hold_every_sample_once_in_another_order(folder: Path) -> None:
    samples = tiny.samples(folder)
    plan = Plan(samples, batch_size=4, epochs=2, seed=0)
    orders = [np.concatenate(plan.train_batches(epoch)).tolist() for epoch in range(2)]
    assert all(sorted(order) == list(range(11)) for order in orders) and orders[0] != orders[1]
    assert [len(b) for b in plan.train_batches(0)] == [4, 4, 3]
    got = batches(samples)
    assert len(got) == len(plan)
    for epoch in range(2):
        for is_train, ids in ((True, samples.ids), (False, samples.val_ids)):
            seen = [i for b in got if b.epoch == epoch and b.train == is_train for i in b.ids]
            assert sorted(seen) == sorted(ids)


def test_no_batch_of_one_at_the_end(folder: Path) -> None:
    plan = Plan(tiny.samples(folder), batch_size=10, epochs=1, seed=0)
    assert [len(b) for b in plan.train_batches(0)] == [6, 5]


def test_processes_share_each_training_batch(folder: Path) -> None:
    samples = tiny.samples(folder)
    whole, *parts = (
        list(Plan(samples, batch_size=6, epochs=1, seed=0, rank=rank, processes=processes))
        for rank, processes in ((0, 1), (0, 2), (1, 2))
    )
    for together, first, second in zip(whole, *parts, strict=True):
        assert together == (first + second if together[0].train else first) and first
        assert together[0].train or first == second
    with pytest.raises(ValueError, match="batch_size 2: fewer samples in a batch than the 3 processes"):
        Plan(samples, batch_size=2, epochs=1, seed=0, processes=3)


def test_mixed_sizes_are_padded_with_ignored_pixels_only_in_training(folder: Path) -> None:
    samples = tiny.samples(folder, online="none")
    raw = {name: shards.Split(folder, "train").arrays(i) for i, name in enumerate(samples.ids)}
    for batch in batches(samples, epochs=1):
        if not batch.train:
            assert not (batch.target[:, 1:] == 255).any(), "only the drawn first row of a validation sample is ignored"
            continue
        assert batch.images.shape[:3] == batch.target.shape
        for image, target, name in zip(batch.images.numpy(), batch.target.numpy(), batch.ids, strict=True):
            height, width = raw[name][1].shape
            assert (image[:height, :width] == raw[name][0]).all() and (target[:height, :width] == raw[name][1]).all()
            assert (target[height:] == 255).all() and (target[:, width:] == 255).all()
            if target.shape[0] > height:
                assert (image[height, :width] == image[height - 1, :width]).all(), "the image is mirrored"


def test_size_resizes_both_and_keeps_labels(folder: Path) -> None:
    samples = tiny.samples(folder, online="none", size=(40, 48))
    assert samples.usual_size() == (40, 48)
    for batch in batches(samples, epochs=1):
        assert batch.images.shape[1:] == (40, 48, 3) and batch.target.shape[1:] == (40, 48)
        assert set(batch.target.unique().tolist()) == {0, 1, 2, 255}


def test_nearest_mask_is_not_shifted() -> None:
    """Halving a checkerboard of 4 x 4 blocks gives 2 x 2 blocks with the same corners, for image and mask alike."""
    mask = np.kron(np.indices((4, 4)).sum(0) % 2, np.ones((4, 4))).astype(np.uint8)
    image = np.repeat(mask[..., None] * 200, 3, axis=2)
    small_image, small_mask = data.resize(image, mask, (8, 8))
    assert (small_image[..., 0] == small_mask * 200).all()


def test_crops_come_from_everywhere_and_pad_small_images() -> None:
    rows, columns = np.indices((12, 10))
    mask = (rows * 10 + columns).astype(np.uint8)
    image = np.repeat(mask[..., None], 3, axis=2)
    corners = set()
    for seed in range(300):
        window, labels = data.random_crop(image, mask, (9, 8), seed=seed, ignore_index=255)
        assert window.shape == (9, 8, 3) and (window[..., 0] == labels).all()
        corners.add(int(labels[0, 0]))
    assert corners == {10 * top + left for top in range(4) for left in range(3)}
    window, labels = data.random_crop(image, mask, (20, 8), seed=0, ignore_index=255)
    assert window.shape == (20, 8, 3) and (labels == 255).sum() == 8 * 8 and (window[12] == window[11]).all()


def test_each_epoch_and_sample_draws_anew(folder: Path) -> None:
    samples = tiny.samples(folder, crop=(12, 12))
    draws = {samples[Key(True, epoch, 0)][0].image.tobytes() for epoch in range(6)}
    assert len(draws) > 3
    again = samples[Key(True, 2, 0)][0]
    assert again.image.tobytes() in draws and again.id == "train-0"


def test_augmented_samples_join_the_training(folder: Path, tmp_path: Path) -> None:
    tiny.write_dataset(tmp_path / "more", train=4, prefix="more-")
    samples = data.Samples(
        [shards.Split(folder, "train"), shards.Split(tmp_path / "more", "train")],
        shards.Split(folder, "val"),
        policy=policy.build("none"),
        seed=0,
        ignore_index=255,
    )
    assert len(samples) == 15 and samples[Key(True, 0, 12)][0].id == "more-train-1"


def test_pickles_as_paths(folder: Path) -> None:
    samples = tiny.samples(folder, online="light")
    text = pickle.dumps(samples)
    assert len(text) < 2000
    key = Key(True, 1, 3)
    assert pickle.loads(text)[key][0].image.tobytes() == samples[key][0].image.tobytes()


def test_empty_split_says_what_to_do(tmp_path: Path) -> None:
    tiny.write_dataset(tmp_path / "tiny", val=0)
    with pytest.raises(ValueError, match=r"tiny: the val split is empty.*stand_in"):
        tiny.samples(tmp_path / "tiny")


def test_validation_batches_hold_one_size_and_bounded_pixels() -> None:
    shapes = [(10, 10), (20, 20), (10, 10), (10, 10), (200, 10)]
    assert data.validation_batches(shapes, pixels=200, most=8) == [[0, 2], [3], [1], [4]]
    assert data.validation_batches(shapes[:1] * 5, pixels=10**6, most=2) == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize("channels_last", [True, False])
def test_normalise_is_the_formula_and_the_layout(channels_last: bool) -> None:
    images = torch.randint(0, 256, (2, 5, 7, 3), dtype=torch.uint8)
    mean, std = torch.tensor([0.1, 0.5, 0.9]), torch.tensor([0.2, 0.3, 0.4])
    x = data.normalise(images, mean=mean, std=std, channels_last=channels_last)
    expected = ((images.double() / 255 - mean) / std).permute(0, 3, 1, 2)
    torch.testing.assert_close(x.double(), expected, rtol=0, atol=2e-6)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert x.dtype == torch.float32 and x.is_contiguous(memory_format=layout)


def test_labels_beyond_a_byte_survive() -> None:
    mask = np.array([[0, 300], [65535, 7]], np.uint16)
    row = (data.Item(np.zeros((2, 2, 3), np.uint8), mask, "a"), Key(True, 0, 0))
    batch = data.collate([row, row], ignore_index=65535)
    assert batch.target.dtype == torch.int32 and batch.target[1].tolist() == [[0, 300], [65535, 7]]
