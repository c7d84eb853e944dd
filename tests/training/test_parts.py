"""Schedules, optimisers, class weights, devices, checkpoints and costs."""

import csv
import json
import math
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from segpipe import shards
from segpipe.training import checkpoint, class_weights, devices, optimizer, outcome, schedule
from segpipe.training.fit import HISTORY, Fitted
from tests.training import tiny


def test_schedules() -> None:
    assert [schedule.factor(name, step=0, steps=7, gamma=0.5) for name in schedule.NAMES] == [1.0, 1.0, 1.0, 1.0]
    assert schedule.factor("poly", step=5, steps=10) == pytest.approx(0.5**0.9)
    assert schedule.factor("poly", step=9, steps=10) == pytest.approx(0.1**0.9)
    assert schedule.factor("cosine", step=5, steps=10) == pytest.approx(0.5)
    assert schedule.factor("cosine", step=2, steps=8) == pytest.approx((1 + math.sqrt(0.5)) / 2)
    assert schedule.factor("constant", step=9, steps=10) == 1.0
    for name in ("poly", "cosine"):
        values = [schedule.factor(name, step=s, steps=20) for s in range(20)]
        assert values == sorted(values, reverse=True) and values[-1] > 0
    with pytest.raises(ValueError, match="schedule 'linear': unknown. Choices: poly, cosine, constant, exponential"):
        schedule.factor("linear", step=0, steps=1)


def test_the_exponential_schedule_falls_after_each_epoch() -> None:
    values = [schedule.factor("exponential", step=s, steps=12, epochs=4, gamma=0.5) for s in range(12)]
    assert values == [1.0] * 3 + [0.5] * 3 + [0.25] * 3 + [0.125] * 3
    assert schedule.factor("exponential", step=749 * 122, steps=750 * 122, epochs=750, gamma=0.995) == 0.995**749
    with pytest.raises(ValueError, match="schedule 'exponential' needs gamma"):
        schedule.factor("exponential", step=0, steps=1)


def test_class_weights_of_camvid() -> None:
    """Counted over CamVid's whole train split (11 classes): pixels, and pixels of the images that hold the class."""
    pixels = [10682767, 14750079, 623349, 20076880, 2845085, 6166762, 743859, 714595, 3719877, 405385, 184967]
    areas = [63244800, 63072000, 63244800, 63417600, 60307200, 55123200, 60652800, 29894400, 62208000, 54777600, 34732800]
    expected = [0.279, 0.202, 4.787, 0.149, 1.0, 0.422, 3.847, 1.974, 0.789, 6.375, 8.859]
    weights = class_weights.build("median_frequency", pixels=pixels, areas=areas)
    assert weights == pytest.approx(expected, abs=6e-4) and weights[4] == 1.0


def test_class_weights() -> None:
    area = {"areas": [160] * 3}
    assert class_weights.build("median_frequency", pixels=[10, 20, 40], **area) == [2.0, 1.0, 0.5]
    # A class that fills the few images it is in is not rare.
    assert class_weights.build("median_frequency", pixels=[10, 20, 40], areas=[20, 160, 160]) == [0.5, 2.0, 1.0]
    # Shares 1/8, 1/4, 5/8: 1 / (3 * share).
    inverse = class_weights.build("inverse_frequency", pixels=[10, 20, 50], **area)
    assert inverse == pytest.approx([8 / 3, 4 / 3, 8 / 15])
    assert sum(w * n for w, n in zip(inverse, (10, 20, 50), strict=True)) == pytest.approx(80)
    absent = class_weights.build("median_frequency", pixels=[10, 0, 40, 20], areas=[160, 0, 160, 160])
    assert absent == [2.0, 0.0, 0.5, 1.0]
    assert class_weights.build("inverse_frequency", pixels=[10, 0], areas=[10, 0]) == [1.0, 0.0]


def test_class_weights_come_from_the_masks(tmp_path: Path) -> None:
    info = tiny.write_dataset(tmp_path / "tiny")
    split = shards.Split(tmp_path / "tiny", "train")
    assert class_weights.of_split("none", split, num_classes=3) is None
    pixels = info.pixels["train"]
    area = 10 * 24 * 32
    for name in class_weights.NAMES[1:]:
        expected = class_weights.build(name, pixels=[*pixels, 0], areas=[area, area, area, 0])
        assert class_weights.of_split(name, split, num_classes=4) == expected
    with pytest.raises(ValueError, match="class_weights 'median': unknown"):
        class_weights.of_split("median", split, num_classes=3)
    tiny.write_dataset(tmp_path / "empty", train=0)
    with pytest.raises(ValueError, match="empty: class_weights 'median_frequency', but the train split has no labelled"):
        class_weights.of_split("median_frequency", shards.Split(tmp_path / "empty", "train"), num_classes=3)


def test_optimizer_groups() -> None:
    model = tiny.net()
    head = [*model.head.parameters(), *model.aux.parameters()]
    groups = [{"params": model.body.parameters(), "lr_scale": 0.1}, {"params": head, "lr_scale": 1.0}]
    made = optimizer.build(model, name="sgd", lr=0.5, weight_decay=0.01, momentum=0.8, groups=groups)
    rows = [(g["lr"], g["weight_decay"], {p.ndim for p in g["params"]}) for g in made.param_groups]
    assert rows == [(0.05, 0.01, {4}), (0.05, 0.0, {1}), (0.5, 0.01, {4}), (0.5, 0.0, {1})]
    assert all(g["momentum"] == 0.8 and not g["nesterov"] for g in made.param_groups)
    optimizer.set_lr(made, 0.5)
    optimizer.set_lr(made, 0.25)
    assert [g["lr"] for g in made.param_groups] == [0.0125, 0.0125, 0.125, 0.125]
    plain = optimizer.build(model, name="adamw", lr=0.5, weight_decay=0.01)
    assert sum(len(g["params"]) for g in plain.param_groups) == len(list(model.parameters()))


def test_optimizer_refuses_groups_that_lose_parameters() -> None:
    model = tiny.net()
    with pytest.raises(ValueError, match=r"param_groups of Net .* missing: body.0.weight"):
        optimizer.build(model, name="adamw", lr=1, weight_decay=0, groups=[{"params": model.head.parameters()}])
    with pytest.raises(ValueError, match="exactly once"):
        twice = [{"params": model.parameters()}, {"params": model.head.parameters()}]
        optimizer.build(model, name="adamw", lr=1, weight_decay=0, groups=twice)
    with pytest.raises(ValueError, match="optimizer 'adam': unknown. Choices: adamw, sgd, rmsprop"):
        optimizer.build(model, name="adam", lr=1, weight_decay=0)


def test_rmsprop_is_lasagnes() -> None:
    """Three steps of a weight and of a bias by hand: v = 0.9 v + 0.1 g^2, p -= lr g / (sqrt(v) + 1e-3); the decay is in g."""
    model = nn.Linear(1, 1)
    with torch.no_grad():
        model.weight.fill_(2.0)
        model.bias.fill_(-1.0)
    made = optimizer.build(model, name="rmsprop", lr=0.1, weight_decay=0.01, momentum=0.9)
    values, means = {"weight": 2.0, "bias": -1.0}, {"weight": 0.0, "bias": 0.0}
    for step in range(3):
        made.zero_grad()
        model(torch.full((1, 1), 0.3)).square().sum().backward()
        made.step()
        slope = 2 * (0.3 * values["weight"] + values["bias"])
        gradients = {"weight": 0.3 * slope + 0.01 * values["weight"], "bias": slope}
        for name, gradient in gradients.items():
            means[name] = 0.9 * means[name] + 0.1 * gradient**2
            values[name] -= 0.1 * gradient / (math.sqrt(means[name]) + 1e-3)
            assert model.get_parameter(name).item() == pytest.approx(values[name], rel=1e-5), f"{name} after step {step + 1}"


def test_frozen_parameters_stay_out() -> None:
    model = tiny.net()
    model.aux.requires_grad_(False)
    made = optimizer.build(model, name="adamw", lr=1, weight_decay=0)
    assert sum(len(g["params"]) for g in made.param_groups) == len(list(model.parameters())) - 2


def _hold(folder: Path, ready: "multiprocessing.synchronize.Event") -> None:
    with devices.lease(["gpu"], report=lambda _: None, folder=folder):
        ready.set()
        time.sleep(600)


def test_lease_waits_for_a_holder_and_survives_its_death(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, ready))
    holder.start()
    assert ready.wait(30) and holder.pid is not None
    messages: list[str] = []

    def report(message: str) -> None:
        messages.append(message)
        os.kill(holder.pid or 0, signal.SIGKILL)

    with devices.lease(["gpu"], report=report, folder=tmp_path, poll=0.01) as index:
        assert index == 0 and len(messages) == 1 and "waiting for a free GPU: gpu" in messages[0]
    holder.join()


def test_lease_takes_the_first_free_one(tmp_path: Path) -> None:
    taken: list[int] = []
    inside, leave = threading.Event(), threading.Event()

    def first() -> None:
        with devices.lease(["a", "b"], report=pytest.fail, folder=tmp_path) as index:
            taken.append(index)
            inside.set()
            leave.wait(30)

    thread = threading.Thread(target=first)
    thread.start()
    assert inside.wait(30)
    with devices.lease(["a", "b"], report=pytest.fail, folder=tmp_path) as index:
        taken.append(index)
    leave.set()
    thread.join()
    with devices.lease(["a", "b"], report=pytest.fail, folder=tmp_path) as index:
        taken.append(index)
    assert taken == [0, 1, 0]


def test_cpu_needs_no_lease(tmp_path: Path) -> None:
    with devices.training_device("cpu", report=pytest.fail, folder=tmp_path / "leases") as device:
        assert device.type == "cpu"
    assert not (tmp_path / "leases").exists()


def test_gpus_are_leased_by_their_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Properties:
        def __init__(self, number: int) -> None:
            self.uuid = f"uuid-{number}"

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", Properties)
    with devices.training_device("auto", report=pytest.fail, folder=tmp_path) as one:
        with devices.training_device("cuda", report=pytest.fail, folder=tmp_path) as two:
            assert (one, two) == (torch.device("cuda", 0), torch.device("cuda", 1))
    with devices.training_device("cuda:1", report=pytest.fail, folder=tmp_path) as device:
        assert device == torch.device("cuda", 1)
    with pytest.raises(ValueError, match="'cuda:2' is not on this machine. There are: auto, cpu, cuda, cuda:0, cuda:1"):
        with devices.training_device("cuda:2", report=pytest.fail, folder=tmp_path):
            pass


def test_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    for capability, expected in (({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16"), ({"avx2": True}, "fp32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda capability=capability: capability)
        assert devices.choose_precision("auto", cpu) == expected
    assert devices.choose_precision("fp32", cpu) == "fp32" and devices.choose_precision("bf16", cpu) == "bf16"
    assert devices.choose_precision("fp16", torch.device("cuda", 0)) == "fp16"
    with pytest.raises(ValueError, match="fp16 needs a GPU"):
        devices.choose_precision("fp16", cpu)
    with pytest.raises(ValueError, match="precision: 'half' is unknown"):
        devices.choose_precision("half", cpu)
    assert devices.use_channels_last(cpu, "fp32") and not devices.use_channels_last(torch.device("cuda"), "fp32")


@pytest.mark.parametrize("groups", [24, 6])
def test_grouped_convolutions_with_dilation_learn_in_bfloat16(groups: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(24, 24, 3, padding=4, dilation=4, groups=groups)).to(memory_format=torch.channels_last)
    state = model.state_dict()
    devices.mend(model)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    x, slope = torch.randn(2, 2, 24, 24, 33).unbind()
    exact = nn.Conv2d(24, 24, 3, padding=4, dilation=4, groups=groups).double()
    exact.load_state_dict(model[0].state_dict())
    assert torch.equal(model(x), nn.Conv2d.forward(model[0], x)), "nothing changes in float32"
    with torch.autocast("cpu", torch.bfloat16):
        out = model(x.contiguous(memory_format=torch.channels_last))
    assert out.dtype == torch.bfloat16
    out.backward(slope.to(out).contiguous(memory_format=torch.channels_last))
    exact(x.double()).backward(slope.double())
    for mine, true in zip(model.parameters(), exact.parameters(), strict=True):
        assert mine.grad is not None and true.grad is not None
        assert (mine.grad - true.grad).norm() < 0.01 * true.grad.norm()


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    model = tiny.net().to(memory_format=torch.channels_last)
    made = optimizer.build(model, name="adamw", lr=0.1, weight_decay=0.1)
    model(torch.randn(2, 3, 12, 12))["out"].sum().backward()
    made.step()
    state = checkpoint.State(
        epoch=2, step=3, loss_sum=0.1, best_epoch=1, best_miou=1 / 3, history=[{"epoch": 1, "val_miou": math.pi}]
    )
    state.best = {name: value.clone() for name, value in tiny.net(seed=5).state_dict().items()}
    checkpoint.save(tmp_path, state, model=model, optimizer=made)
    other = tiny.net(seed=9).to(memory_format=torch.channels_last)
    fresh = optimizer.build(other, name="adamw", lr=0.1, weight_decay=0.1)
    loaded = checkpoint.load(tmp_path, model=other, optimizer=fresh)
    assert loaded is not None and {**vars(loaded), "best": 0} == {**vars(state), "best": 0}
    assert all(torch.equal(loaded.best[name], value) for name, value in state.best.items())
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        if p.grad is None:
            continue
        for key, value in made.state[p].items():
            assert torch.equal(value, fresh.state[q][key]) and value.stride() == fresh.state[q][key].stride()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state.safetensors"]


def test_damaged_checkpoint_says_what_to_do(tmp_path: Path) -> None:
    model = tiny.net()
    made = optimizer.build(model, name="adamw", lr=0.1, weight_decay=0.1)
    assert checkpoint.load(tmp_path, model=model, optimizer=made) is None
    (tmp_path / checkpoint.FILE).write_bytes(b"no such thing")
    with pytest.raises(ValueError, match=r"state.safetensors: this checkpoint cannot be used .* Delete .* to train anew"):
        checkpoint.load(tmp_path, model=model, optimizer=made)


def test_checkpoint_folders(tmp_path: Path) -> None:
    first = checkpoint.folder_of(tmp_path, "unet", {"lr": 0.1, "seed": 0})
    assert first == checkpoint.folder_of(tmp_path, "unet", {"seed": 0, "lr": 0.1})
    changed = checkpoint.folder_of(tmp_path, "unet", {"lr": 0.2, "seed": 0})
    other = checkpoint.folder_of(tmp_path, "unet-seed1", {"lr": 0.1, "seed": 0})
    assert len({first, changed, other}) == 3
    for folder in (first, changed, other):
        folder.mkdir()
    checkpoint.remove(tmp_path, "unet")
    assert list(tmp_path.iterdir()) == [other]


def test_sources_digest_follows_the_code(tmp_path: Path) -> None:
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "a.py").write_text("1")
    (tmp_path / "b.py").write_text("2")
    paths = [tmp_path / "b.py", tmp_path / "room"]
    before = checkpoint.sources_digest(paths)
    assert before == checkpoint.sources_digest(reversed(paths))
    (tmp_path / "room" / "a.py").write_text("3")
    assert checkpoint.sources_digest(paths) != before


def test_costs(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False))

    class One(nn.Module):
        input_rule = tiny.net().input_rule

        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 5, 5, bias=False)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"out": self.conv(x)}

    # The rule's margin is 2 on each side: 10 x 12 pixels are answered, each from 5 * 5 * 3 multiply-adds for 5 channels.
    model = One().train()
    assert outcome.forward_gflops(model, size=(10, 12)) == pytest.approx(10 * 12 * 5 * 5 * 3 * 5 * 2 / 1e9)
    assert model.training and model.conv.weight.device.type == "cpu"
    row = dict.fromkeys(HISTORY, 0.5)
    fitted = Fitted(history=[row, row], best_epoch=1, seconds=4.0, images_per_second=9.0, peak_memory_mb=1.0, finished_by="epochs")
    outcome.write_cost(tmp_path / "cost.json", fitted, model, device=torch.device("cpu"), devices=2, size=(10, 12))
    cost = json.loads((tmp_path / "cost.json").read_text())
    assert cost["device"].startswith("cpu") and cost["device_seconds"] == 8.0 and cost["wall_seconds"] == 4.0
    assert cost["parameters"] == 5 * 3 * 5 * 5 and cost["epochs"] == 2 and cost["gflops"] > 0
    outcome.write_history(tmp_path / "history.csv", fitted.history)
    with open(tmp_path / "history.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 and tuple(rows[0]) == HISTORY and rows[0]["val_miou"] == "0.5"
