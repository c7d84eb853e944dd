"""The loop: it learns, it goes on exactly where it was killed, and it says what went wrong."""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from segpipe.tasks import semantic
from segpipe.training import checkpoint, devices, optimizer
from segpipe.training.fit import HISTORY, Fitted, fit
from tests.training import tiny

CPU = torch.device("cpu")


class Killed(Exception):
    """Stands for the process's death between two steps."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "tiny"
    tiny.write_dataset(path)
    return path


def train(folder: Path, model: nn.Module, *, name: str = "adamw", precision: str = "fp32", **changes: Any) -> Fitted:
    arguments: dict[str, Any] = {
        "fabric": devices.make_fabric(CPU, precision=precision),
        "samples": tiny.samples(folder),
        "task": semantic,
        "criterion": nn.CrossEntropyLoss(ignore_index=255),
        "loss_weights": {"out": 1.0, "aux": 0.4},
        "optimizer": optimizer.build(model, name=name, lr=0.02, weight_decay=1e-4),
        "mean": (0.2, 0.25, 0.25),
        "std": (0.1, 0.2, 0.2),
        "num_classes": 3,
        "epochs": 3,
        "batch_size": 4,
        "channels_last": True,
        "checkpoint_minutes": 0.0,
    }
    return fit(model, **(arguments | changes))


def same(a: nn.Module, b: nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def test_learns_and_keeps_the_best_epoch(folder: Path) -> None:
    model = tiny.net()
    rows: list[dict[str, float]] = []
    fitted = train(folder, model, epochs=12, on_epoch=rows.append)
    assert fitted.history == rows and len(rows) == 12 and all(tuple(row) == HISTORY for row in rows)
    miou = [row["val_miou"] for row in rows]
    assert fitted.best_epoch == int(np.argmax(miou)) + 1 and max(miou) > 0.6 > miou[0]
    assert rows[-1]["train_loss"] < rows[0]["train_loss"] / 2
    assert all(row["seconds"] > 0 and row["images_per_second"] > 0 for row in rows)
    assert fitted.finished_by == "epochs" and fitted.seconds == pytest.approx(sum(row["seconds"] for row in rows))
    assert fitted.peak_memory_mb > 50


def test_the_learning_rate_follows_the_schedule(folder: Path) -> None:
    falling = train(folder, tiny.net(), name="rmsprop", schedule="exponential", gamma=0.5)
    assert [row["lr"] for row in falling.history] == [0.02, 0.01, 0.005]


def test_best_weights_are_those_of_the_best_epoch(folder: Path) -> None:
    """The best of 12 epochs scores, in a run of its own that only validates, what the history says."""
    model = tiny.net()
    fitted = train(folder, model, epochs=6)
    best = fitted.history[fitted.best_epoch - 1]
    frozen = copy.deepcopy(model)
    # With a learning rate of 0 and batch statistics that do not move, an epoch only validates.
    for module in frozen.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0
    again = train(folder, frozen, epochs=1, optimizer=torch_sgd(frozen))
    assert again.history[0]["val_miou"] == best["val_miou"] and again.history[0]["val_loss"] == best["val_loss"]


def torch_sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": list(model.parameters()), "lr": 0.0, "base_lr": 0.0}], lr=0.0)


@pytest.mark.parametrize(("name", "precision"), [("adamw", "fp32"), ("sgd", "fp32"), ("rmsprop", "fp32"), ("adamw", "bf16")])
def test_killed_after_any_step_it_ends_with_the_same_bits(folder: Path, tmp_path: Path, name: str, precision: str) -> None:
    whole = tiny.net()
    expected = train(folder, whole, name=name, precision=precision)
    steps = 3 * 3
    for death in range(1, steps + 1):
        place = tmp_path / f"{death}"
        seen = 0

        def die(_: object, death: int = death) -> None:
            nonlocal seen
            seen += 1
            if seen == death:
                raise Killed

        with pytest.raises(Killed):
            train(folder, tiny.net(), name=name, precision=precision, checkpoint_folder=place, on_step=die)
        model = tiny.net(seed=1)
        messages: list[str] = []
        went_on = train(folder, model, name=name, precision=precision, checkpoint_folder=place, report=messages.append)
        assert same(model, whole), f"killed after step {death}"
        keys = ("epoch", "train_loss", "val_loss", "val_miou", "val_pa", "lr")
        assert [[r[k] for k in keys] for r in went_on.history] == [[r[k] for k in keys] for r in expected.history]
        assert len(messages) == 1 and "going on after" in messages[0]


def test_finished_run_called_again_only_answers(folder: Path, tmp_path: Path) -> None:
    model, again = tiny.net(), tiny.net(seed=1)
    train(folder, model, checkpoint_folder=tmp_path)
    steps: list[object] = []
    fitted = train(folder, again, checkpoint_folder=tmp_path, on_step=steps.append)
    assert same(model, again) and not steps and len(fitted.history) == 3


def test_two_workers_train_the_same_model(folder: Path) -> None:
    alone, helped = tiny.net(), tiny.net()
    train(folder, alone, epochs=2)
    train(folder, helped, epochs=2, workers=2)
    assert same(alone, helped)


def test_seed_changes_the_result(folder: Path) -> None:
    one, two = tiny.net(), tiny.net()
    train(folder, one, epochs=1)
    train(folder, two, epochs=1, samples=tiny.samples(folder, seed=1))
    assert not same(one, two)


def test_patience_stops(folder: Path) -> None:
    model = tiny.net()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.0
    fitted = train(folder, model, epochs=9, patience=2, optimizer=torch_sgd(model))
    assert fitted.finished_by == "patience" and len(fitted.history) == 3 and fitted.best_epoch == 1


def test_minutes_stop_after_a_whole_epoch_and_count_over_resumes(folder: Path, tmp_path: Path) -> None:
    fitted = train(folder, tiny.net(), epochs=50, minutes=1e-9)
    assert fitted.finished_by == "minutes" and len(fitted.history) == 1

    def die(progress: Any) -> None:
        if (progress.epoch, progress.step) == (2, 1):
            raise Killed

    with pytest.raises(Killed):
        train(folder, tiny.net(), checkpoint_folder=tmp_path, on_step=die)
    model = tiny.net()
    state = checkpoint.load(tmp_path, model=model, optimizer=optimizer.build(model, name="adamw", lr=1, weight_decay=0))
    assert state is not None and state.epoch == 1 and state.step == 1 and state.seconds > state.history[0]["seconds"]
    resumed = train(folder, tiny.net(), checkpoint_folder=tmp_path, minutes=state.seconds / 60)
    assert len(resumed.history) == 2 and resumed.finished_by == "minutes" and resumed.seconds > state.seconds


class Hungry(tiny.Net):
    """Runs out of memory with more than `most` images at once."""

    most = 1

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        if len(x) > self.most:
            raise torch.OutOfMemoryError("out of memory")
        return super().forward(x)


def test_out_of_memory_splits_the_step_and_says_so(folder: Path) -> None:
    torch.manual_seed(0)
    model = Hungry().eval()
    plain = tiny.net()
    plain.load_state_dict(model.state_dict())
    for net in (model, plain):
        # Batch statistics and dropout see the pieces of a split batch; without them only the rounding differs.
        net.body[1], net.body[3] = nn.Identity(), nn.Identity()
    messages: list[str] = []
    fitted = train(folder, model, epochs=2, batch_size=5, report=messages.append, name="sgd")
    expected = train(folder, plain, epochs=2, batch_size=5, name="sgd")
    assert [m.split(" in ")[0] for m in messages] == [f"out of memory with {n} images at once" for n in (5, 3, 2)]
    for row, other in zip(fitted.history, expected.history, strict=True):
        assert row["train_loss"] == pytest.approx(other["train_loss"], rel=1e-3)
        assert row["val_loss"] == pytest.approx(other["val_loss"], rel=1e-3)


def test_one_image_too_many_for_memory_is_the_users_error(folder: Path) -> None:
    model = Hungry()
    model.most = 0
    with pytest.raises(ValueError, match="1 image.*Lower batch_size, crop or size"):
        train(folder, model)


def test_loss_that_is_no_number_names_the_samples(folder: Path, tmp_path: Path) -> None:
    class Broken(nn.CrossEntropyLoss):
        calls = 0

        def forward(self, logits: Tensor, target: Tensor) -> Tensor:
            Broken.calls += 1
            # Two outputs per step: calls 15 and 16 are step 2 of epoch 2 (three steps and three validation calls per epoch).
            return super().forward(logits, target) * (math.nan if Broken.calls == 2 * 3 + 2 + 2 * 2 else 1.0)

    with pytest.raises(ValueError, match=r"loss is nan in epoch 2, step 2, on the samples train-\d, .*train-\d\.") as caught:
        train(folder, tiny.net(), criterion=Broken(ignore_index=255), checkpoint_folder=tmp_path)
    assert len(set(str(caught.value).split("samples ")[1].split(".")[0].split(", "))) in (3, 4)
    model = tiny.net()
    state = checkpoint.load(tmp_path, model=model, optimizer=optimizer.build(model, name="adamw", lr=1, weight_decay=0))
    assert state is not None and (state.epoch, state.step) == (1, 1), "nothing after the last finite loss may be saved"


def test_output_without_a_weight_is_named(folder: Path) -> None:
    with pytest.raises(ValueError, match="'aux' has no weight: add it to LOSS_WEIGHTS"):
        train(folder, tiny.net(), loss_weights={"out": 1.0})
