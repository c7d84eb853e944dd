"""What PSPNet is and its re-implementations are not, where neither counts nor probes can see it."""

from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from segpipe.architectures import fastfcn, pspnet
from segpipe.architectures.blocks import deep_stem
from segpipe.architectures.blocks.aspp import PooledBatchNorm
from segpipe.architectures.blocks.pyramid_pooling import PyramidPooling
from segpipe.training import optimizer
from tests.architectures.test_families import kinds, rates


def small(**changes: object) -> nn.Module:
    torch.manual_seed(0)
    return pspnet.build(**{"num_classes": 3, "trunk": "resnet18", "width": 4, **changes})


@pytest.mark.parametrize("trunk", ["resnet18", "resnet50", "resnet101"])
def test_every_block_of_the_last_two_stages_is_dilated(trunk: str) -> None:
    with torch.device("meta"):
        net = pspnet.build(num_classes=2, trunk=trunk).trunk
    for layer, rate in ((net.layer1, 1), (net.layer2, 1), (net.layer3, 2), (net.layer4, 4)):
        assert set(rates(layer)) == {rate}
    assert {m.stride for layer in (net.layer3, net.layer4) for m in layer.modules() if isinstance(m, nn.Conv2d)} == {(1, 1)}


def test_the_stride_is_on_the_3x3_convolution() -> None:
    with torch.device("meta"):
        first = pspnet.build(num_classes=2).trunk.layer2[0]
    assert (first.conv1.stride, first.conv2.stride, first.downsample[0].stride) == ((1, 1), (2, 2), (2, 2))


def test_deep_stem() -> None:
    with torch.device("meta"):
        net = pspnet.build(num_classes=2, in_channels=5).trunk
    convs = [m for m in net.conv1 if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0]) for m in convs] == [
        (5, 64, 3, 2),
        (64, 64, 3, 1),
        (64, 128, 3, 1),
    ]
    assert kinds(net.conv1) == ["Conv2d", "BatchNorm2d", "ReLU"] * 2 + ["Conv2d"]
    assert net.layer1[0].conv1.in_channels == net.layer1[0].downsample[0].in_channels == 128


def test_rectified_and_normalised_throughout() -> None:
    """What the probe cannot see."""
    model = small()
    block = ["Conv2d", "BatchNorm2d", "ReLU"]
    assert [kinds(level)[1:] for level in model.ppm.levels] == [["Conv2d", "PooledBatchNorm", "ReLU"]] + [block] * 3
    assert kinds(model.head) == block
    assert kinds(model.classifier) == ["Dropout", "Conv2d"]
    assert kinds(model.aux) == [*block, "Dropout", "Conv2d"]


class TestPyramidPooling:
    def test_bins_are_the_papers_kernels(self) -> None:
        """At the paper's 60x60 the bins are average poolings with kernels and strides 60, 30, 20, 10."""
        x = torch.randn(1, 4, 60, 60)
        for level, side in zip(PyramidPooling(4).levels, (60, 30, 20, 10), strict=True):
            torch.testing.assert_close(level[0](x), F.avg_pool2d(x, side))

    def test_features_first_then_bins_with_aligned_corners(self) -> None:
        """31 is one more than a multiple of 1, 2 and 5: with aligned corners every mean of a grid appears as it is."""
        block = PyramidPooling(8).eval()
        x = torch.randn(2, 8, 31, 31)
        with torch.no_grad():
            out = block(x)
            assert out.shape == (2, 16, 31, 31) and torch.equal(out[:, :8], x)
            for index, level in enumerate(block.levels):
                grid = level(x)
                step = 30 // max(grid.shape[-1] - 1, 1)
                found = out[:, 8 + 2 * index : 10 + 2 * index, ::step, ::step]
                torch.testing.assert_close(found, grid.expand_as(found))

    def test_the_single_bin_keeps_its_normalisation(self) -> None:
        norm = PyramidPooling(8).levels[0][2]
        assert isinstance(norm, PooledBatchNorm) and norm.affine


def test_the_auxiliary_head_answers_in_training_only() -> None:
    model, x = small(), torch.randn(2, 3, 33, 49)
    assert {name: out.shape for name, out in model(x).items()} == dict.fromkeys(("out", "aux"), (2, 3, 33, 49))
    assert model.eval()(x).keys() == {"out"}
    assert small(aux=False)(x).keys() == {"out"}


def test_logits_are_enlarged_with_aligned_corners() -> None:
    model = small().eval()
    coarse: list[torch.Tensor] = []
    model.classifier.register_forward_hook(lambda module, inputs, out: coarse.append(out))
    with torch.no_grad():
        out = model(torch.randn(1, 3, 41, 57))["out"]
    assert coarse[0].shape == (1, 3, 6, 8)
    torch.testing.assert_close(out[..., ::8, ::8], coarse[0])


@pytest.mark.parametrize("side", [9, 473, 713])
def test_the_papers_sides_need_no_padding(side: int) -> None:
    assert pspnet.INPUT_RULE.padded(side) == side


def test_heads_learn_ten_times_faster() -> None:
    model = small()
    made = optimizer.build(model, name="sgd", lr=0.01, weight_decay=1e-4, groups=pspnet.param_groups(model))
    fast = {id(p) for group in made.param_groups if group["lr"] == pytest.approx(0.1) for p in group["params"]}
    assert fast == {id(p) for part in (model.ppm, model.head, model.classifier, model.aux) for p in part.parameters()}
    assert {group["lr"] for group in made.param_groups} == {0.01, 0.1}


@pytest.mark.parametrize("value", [0, 1, "yes", None])
def test_aux_is_true_or_false(value: object) -> None:
    with pytest.raises(ValueError, match="aux"):
        small(aux=value)


class TestWeights:
    @pytest.mark.parametrize("file", [pspnet, fastfcn])
    def test_a_file_fills_the_trunk(self, file: ModuleType, tmp_path: Path) -> None:
        options = {"num_classes": 3, "trunk": "resnet18", "width": 4}
        state = {name: torch.rand_like(x, dtype=torch.float32) for name, x in file.build(**options).trunk.state_dict().items()}
        save_file(state, tmp_path / "trunk.safetensors")
        found = file.build(**options, weights=str(tmp_path / "trunk.safetensors")).trunk.state_dict()
        assert all(torch.equal(found[name], x.to(found[name].dtype)) for name, x in state.items())

    def test_imagenet_is_read_from_the_users_folder(self, tmp_path: Path) -> None:
        """A file put by hand where the message says; gluon's names, with its classifier."""
        trunk = deep_stem.DeepStemResNet(name="resnet50", in_channels=3, output_stride=8)
        hub = deep_stem.Hub(folder=tmp_path, files=deep_stem.HUB.files)
        assert hub.url("resnet101") == "https://huggingface.co/timm/resnet101s.gluon_in1k/resolve/main/model.safetensors"
        state = {name: torch.full(x.shape, 0.25, dtype=torch.float16) for name, x in trunk.state_dict().items()}
        save_file(state | {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}, hub.path("resnet50"))
        deep_stem.load(trunk, "imagenet", name="resnet50", hub=hub)
        assert all((p == 0.25).all() for p in trunk.parameters())

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"trunk": "resnet18"}, "imagenet has no resnet18 with a deep stem, only resnet50, resnet101"),
            ({"trunk": "resnet50", "width": 4}, "only fits the full-size trunk"),
            ({"trunk": "resnet18", "weights": "coco"}, "weights: 'coco'. Choices: imagenet"),
            ({"trunk": "resnet18", "weights": "no/such.safetensors"}, "no such file"),
        ],
    )
    @pytest.mark.parametrize("file", [pspnet, fastfcn])
    def test_weights_that_cannot_be_are_refused(self, file: ModuleType, changes: dict, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            file.build(**{"num_classes": 3, "width": 4, "weights": "imagenet", **changes})
