"""The gate: maps of a trained network pass it; maps that know nothing of the weights, or nothing of the image's use, do not."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segpipe.architectures.blocks.cam_grid import CamGrid
from segpipe.architectures.blocks.input_rule import InputRule
from segpipe.failures.deletion import delete
from segpipe.failures.grid import stretched
from segpipe.failures.look import Question, Viewer
from segpipe.failures.randomised import alike, cascade, randomise, stages_of, structure
from segpipe.failures.sanity import FEWEST, NOT_EVIDENCE, UNKNOWN, Case, check_maps, verdict

SIZE = (64, 96)
RULE = InputRule(multiple=4, minimum=16)


class Small(nn.Module):
    """Sees discs (class 1) and squares (class 2) on noise; `features` is a quarter as fine as the image."""

    def __init__(self) -> None:
        super().__init__()
        self.input_rule = RULE
        self.stem, self.norm = nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.features = nn.Sequential(nn.Conv2d(12, 24, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.middle, self.head = nn.Conv2d(24, 24, 3, padding=1), nn.Conv2d(24, 3, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = F.max_pool2d(F.relu(self.norm(self.stem(x))), 2)
        return {"out": self.head(F.relu(self.middle(self.features(x))))}


class Edges(nn.Module):
    """Its layer is how steep the image is, whatever its weights: maps that only draw the image's edges."""

    def __init__(self) -> None:
        super().__init__()
        self.input_rule = RULE
        self.features, self.head = Steepness(), nn.Conv2d(1, 3, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": self.head(self.features(x))}


class Steepness(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        grey = F.avg_pool2d(x.mean(dim=1, keepdim=True), 4)
        padded = F.pad(grey, (1, 1, 1, 1), mode="replicate")
        return (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]).abs() + (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]).abs()


class Detached(nn.Module):
    """As good as Small, but the layer that maps are taken of is noise that never changes, whose mean shifts the logits."""

    def __init__(self, inner: Small) -> None:
        super().__init__()
        self.input_rule = RULE
        self.inner, self.features, self.mixed = inner, Noise(), nn.Conv2d(8, 3, 1, bias=False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        out = self.inner(x)["out"]
        return {"out": out + self.mixed(self.features(out)).mean(dim=(2, 3), keepdim=True)}


class Noise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(5)
        return torch.rand(1, 8, *x.shape[-2:], generator=generator).expand(len(x), -1, -1, -1).clone()


def picture(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (64, 96, 3) and its labels: one disc and one square, of any colour, on noise."""
    image = rng.normal(110, 18, (*SIZE, 3))
    labels = np.zeros(SIZE, np.int64)
    y, x = np.indices(SIZE)
    sides = rng.permutation([24, 72])
    for kind, middle in zip((1, 2), sides, strict=True):
        row, column = rng.integers(18, 46), middle + rng.integers(-6, 7)
        radius = rng.integers(8, 13)
        away = np.hypot(y - row, x - column) if kind == 1 else np.maximum(abs(y - row), abs(x - column))
        inside = away < radius
        labels[inside] = kind
        # Discs have stripes along rows, squares along columns: there is something to see.
        stripes = (y if kind == 1 else x) // 2 % 2
        image[inside] = (60 + 130 * stripes)[inside][:, None] + rng.normal(0, 12, (int(inside.sum()), 3))
    return np.clip(image, 0, 255).astype(np.uint8), labels


def viewer(model: nn.Module) -> Viewer:
    layers, grids = {"features": model.get_submodule("features")}, {"features": CamGrid(4, 0)}
    return Viewer(model=model, layers=layers, grids=grids, mean=(0.45,) * 3, std=(0.25,) * 3, size=None, device="cpu")


@pytest.fixture(scope="module")
def trained() -> Small:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = Small()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(50):
        pairs = [picture(rng) for _ in range(4)]
        x = (torch.from_numpy(np.stack([image for image, _ in pairs])).permute(0, 3, 1, 2) / 255 - 0.45) / 0.25
        logits = F.interpolate(model(x.float())["out"], size=SIZE, mode="bilinear")
        loss = F.cross_entropy(logits, torch.from_numpy(np.stack([labels for _, labels in pairs])))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.25
    return model.eval()


def cases(count: int) -> list[Case]:
    """Discs and squares: the predicted class is theirs, the true one is said to be the other."""
    rng = np.random.default_rng(1)
    found = []
    for unit in range(count):
        image, labels = picture(rng)
        kind = 1 + unit % 2
        found.append(Case(image=image, question=Question(region=labels == kind, true=3 - kind, predicted=kind), unit=unit))
    return found


def test_a_trained_network_passes(trained: Small) -> None:
    before = {name: values.clone() for name, values in trained.state_dict().items()}
    found = check_maps(viewer(trained), cases(14), seed=0)
    assert found["passed"] and found["status"] == "passed", found
    assert [row["layers"] for row in found["randomised"]] == ["head to middle", "features.0", "norm", "stem"]
    assert found["randomised"][-1]["spearman"] < 0.5 and found["randomised"][-1]["ssim"] < 0.5
    deletion = found["deletion"]
    assert 0 < deletion["low"] < deletion["difference"] < deletion["high"] and deletion["n"] == 14
    assert deletion["difference"] == pytest.approx(deletion["random"] - deletion["ordered"])
    assert found["evidence"][0] == found["kind"] == "hirescam"
    assert found["sentence"].startswith("The maps of HiResCAM")
    assert set(found["kinds"]) == {"hirescam", "gradcam"} and found["kinds"]["hirescam"]["deletion"] == deletion
    assert all(torch.equal(values, before[name]) for name, values in trained.state_dict().items()), "its weights are its own"
    assert found == check_maps(viewer(trained), cases(14), seed=0)


@pytest.mark.parametrize("build", [lambda trained: Edges(), Detached])
def test_maps_that_do_not_need_the_weights_fail(trained: Small, build: Callable[[Small], nn.Module]) -> None:
    torch.manual_seed(1)
    found = check_maps(viewer(build(trained).eval()), cases(14), seed=0)
    assert found["status"] == "failed" and not found["passed"]
    assert found["sentence"].startswith(NOT_EVIDENCE)
    if build is not Detached:
        assert found["sentence"].count("stay alike") == 2, "both kinds"


def test_a_map_of_what_the_network_does_not_use_does_not_beat_its_like(trained: Small) -> None:
    """Noise for a map is no faster than a random order, over many regions; the network's own map is."""
    rng = np.random.default_rng(2)
    gains: dict[str, list[float]] = {"noise": [], "own": []}
    for case in cases(30):
        question = case.question
        (answer,) = viewer(trained).ask(case.image, [question])
        own = answer.maps["features"]["hirescam"]
        maps = {"noise": rng.normal(size=own.shape), "own": own}
        found = delete(viewer(trained), case.image, question, maps, answer.axes["features"], rng=rng)
        for name, areas in found.items():
            assert 0 <= areas.ordered <= 1 and 0 <= areas.random <= 1
            gains[name].append(areas.random - areas.ordered)
    noise, own = np.array(gains["noise"]), np.array(gains["own"])
    assert abs(noise.mean()) < 3 * noise.std() / np.sqrt(30)
    assert own.mean() > 0.15 and own.mean() > 3 * abs(noise.mean())


def test_too_few_regions_are_no_verdict(trained: Small) -> None:
    found = check_maps(viewer(trained), cases(FEWEST - 1), seed=0)
    assert found["status"] == "unknown" and not found["passed"] and found["sentence"].startswith(UNKNOWN)
    assert np.isnan(found["deletion"]["low"]) and found["deletion"]["n"] == 0
    # Many regions of one image are no more.
    one_image = [Case(image=case.image, question=case.question, unit=0) for case in cases(8)]
    assert check_maps(viewer(trained), one_image, seed=0)["status"] == "unknown"
    nothing = check_maps(viewer(trained), [], seed=0)
    assert nothing["status"] == "unknown" and nothing["randomised"] == []


def test_stages_go_from_the_head_to_the_trunk_and_randomise_what_they_name(trained: Small) -> None:
    x = torch.zeros(1, 3, 32, 32)
    stages = stages_of(trained, lambda: trained(x), count=2)
    assert [stage.modules for stage in stages] == [("head", "middle", "features.0"), ("norm", "stem")]
    changed = Small()
    changed.load_state_dict(trained.state_dict())
    generator = torch.Generator().manual_seed(0)
    for name in stages[0].modules:
        randomise(changed.get_submodule(name), generator)
    for name, values in changed.state_dict().items():
        kept = name.startswith(("stem", "norm"))
        assert torch.equal(values, trained.state_dict()[name]) == kept, name
    # The variance of a signal survives: 2 / fan in.
    assert float(changed.middle.weight.detach().std()) == pytest.approx((2 / (24 * 9)) ** 0.5, rel=0.1)
    randomise(changed.norm, generator)
    assert (changed.norm.running_var == 1).all() and (changed.norm.weight == 1).all() and not changed.norm.running_mean.any()


def test_the_cascade_is_cumulative_and_repeats(trained: Small) -> None:
    case = cases(1)[0]
    (answer,) = viewer(trained).ask(case.image, [case.question])
    stages = stages_of(trained, lambda: trained(torch.zeros(1, 3, 32, 32)))

    def run(seed: int) -> list[dict[str, Any]]:
        return cascade(viewer(trained), case.image, case.question, answer, layer="features", stages=stages, seed=seed)

    assert run(3) == run(3) != run(4)
    assert all(0 <= rho < 1 and ssim < 1 for row in run(3) for rho, ssim in row.values())


def test_structural_similarity_is_the_published_index() -> None:
    """Against the definition, window by window, where windows lie inside the map."""
    rng = np.random.default_rng(0)
    a = rng.uniform(-1, 1, (12, 15))
    b = np.clip(a + rng.normal(0, 0.3, a.shape), -1, 1)
    found = structure(a, b)
    for y in range(3, 9):
        for x in range(3, 12):
            p, q = (v[y - 3 : y + 4, x - 3 : x + 4].ravel() for v in (a, b))
            covariance = np.cov(p, q)
            top = (2 * p.mean() * q.mean() + 0.0004) * (2 * covariance[0, 1] + 0.0036)
            bottom = (p.mean() ** 2 + q.mean() ** 2 + 0.0004) * (covariance[0, 0] + covariance[1, 1] + 0.0036)
            assert found[y, x] == pytest.approx(top / bottom)


def test_likeness_of_maps() -> None:
    rng = np.random.default_rng(1)
    a = rng.normal(size=(2, 20, 20))
    assert alike(a, 7 * a) == (pytest.approx(1), pytest.approx(1))
    assert alike(a, -a)[0] == pytest.approx(1), "an edge map of the other sign is still an edge map"
    rho, ssim = alike(a, rng.normal(size=a.shape))
    assert rho < 0.15 and abs(ssim) < 0.1
    local = np.zeros_like(a)
    local[:, 5:9, 5:9] = rng.normal(size=(2, 4, 4))
    other = np.where(local != 0, rng.normal(size=a.shape), 0)
    assert alike(local, other)[0] < 0.6, "zeros all around are not likeness"
    assert alike(a, np.zeros_like(a)) == alike(a, np.full_like(a, np.nan)) == (0, 0)


def test_what_is_marked_goes_first() -> None:
    """A network that reads one spot: its map finds it at once, a random order does not."""

    class Spot(nn.Module):
        input_rule = RULE

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            spot = x[:, :1, 16:20, 16:20].mean(dim=(2, 3), keepdim=True)
            return {"out": torch.cat([-spot, spot], dim=1)}

    image = np.zeros((32, 32, 3), np.uint8)
    image[16:20, 16:20] = 255
    maps = np.zeros((2, 8, 8))
    maps[1, 4, 4] = 1
    axis = stretched(32, cells=8)
    spot = Viewer(model=Spot().eval(), layers={}, grids={}, mean=(0, 0, 0), std=(1, 1, 1), size=None, device="cpu")
    # Dark is what an image is filled with, and what class 0 looks for: class 1 is played, whichever of the two was predicted.
    for true, predicted in ((0, 1), (1, 0)):
        question = Question(region=image[..., 0] > 0, true=true, predicted=predicted)
        found = [
            delete(spot, image, question, {"": maps[[true, predicted]]}, (axis, axis), rng=np.random.default_rng(seed))[""]
            for seed in range(12)
        ]
        assert all(one.ordered < min(0.45, one.random) for one in found)
        assert np.mean([one.random - one.ordered for one in found]) > 0.2
    flat = np.full_like(image, 90)
    question = Question(region=image[..., 0] > 0, true=0, predicted=1)
    assert delete(spot, flat, question, {"": maps}, (axis, axis), rng=np.random.default_rng(0)) == {}, "nothing to take out"


def test_the_verdict_names_the_kind_that_may_be_believed() -> None:
    changed = [{"layers": "all", "spearman": 0.1, "ssim": 0.2}]
    stays = [{"layers": "all", "spearman": 0.1, "ssim": 0.7}]
    better = {"ordered": 0.3, "random": 0.5, "difference": 0.2, "low": 0.1, "high": 0.3, "n": 20}
    no_better = better | {"difference": 0.05, "low": -0.1}
    unknown = dict.fromkeys(better, float("nan")) | {"n": 3}

    def judged(local: tuple[list, dict], cam: tuple[list, dict]) -> dict[str, Any]:
        pairs = {"hirescam": local, "gradcam": cam}
        return verdict({kind: {"randomised": rows, "deletion": deletion} for kind, (rows, deletion) in pairs.items()})

    found = judged((changed, no_better), (changed, better))
    assert found["passed"] and found["evidence"] == ["gradcam"] and found["deletion"] is better
    assert found["sentence"].startswith("The maps of Grad-CAM passed")
    assert "Those of HiResCAM are not evidence for this model: taking out" in found["sentence"]
    assert judged((changed, better), (changed, better))["evidence"] == ["hirescam", "gradcam"]
    failed = judged((stays, better), (changed, no_better))
    assert failed["status"] == "failed" and "SSIM 0.70" in failed["sentence"] and failed["sentence"].startswith(NOT_EVIDENCE)
    assert judged((changed, unknown), (stays, unknown))["status"] == "unknown"
    assert judged((stays, unknown), (stays, unknown))["status"] == "failed", "what stays alike needs no second test"
    assert judged(([], unknown), ([], unknown))["sentence"].startswith(UNKNOWN)
