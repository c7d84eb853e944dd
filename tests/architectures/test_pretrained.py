"""ImageNet weights reach the layers they are meant for, or nothing changes and the message says what is wrong and what to do.

The files are made here, with the names and shapes that timm's published ones have; a local server stands in for the hub.
"""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from segpipe.architectures import deeplabv3plus, fcn, segnet
from segpipe.architectures.blocks import pretrained, vgg
from segpipe.architectures.blocks.deep_stem import DeepStemResNet
from segpipe.architectures.blocks.dilated_vgg import DilatedVGG
from segpipe.architectures.blocks.resnet import ResNet
from segpipe.architectures.blocks.weight_files import PUBLISHED, Hub, Published
from segpipe.architectures.blocks.xception import Xception65
from tests.hostile_server import Server, serving

REMOTE = "timm/resnet18.tv_in1k/resolve/main/model.safetensors"
TIMMS_FC = {"pre_logits.fc1": (4096, 512, 7, 7), "pre_logits.fc2": (4096, 4096, 1, 1), "head.fc": (1000, 4096)}
TORCHVISIONS_FC = {"classifier.0": (4096, 25088), "classifier.3": (4096, 4096), "classifier.6": (1000, 4096)}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def original() -> nn.Module:
    """torchvision's ResNet-18 with weights and statistics that are nobody's defaults, and that half precision can hold."""
    network = torchvision.models.resnet18(weights=None)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight.data, module.running_var):
                values.uniform_(0.5, 1.5)
            for values in (module.bias.data, module.running_mean):
                values.normal_(0, 0.1)
    return network.half().float().eval()


@pytest.fixture(scope="module")
def resnet_file(original: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    save_file({k: v.half() if v.is_floating_point() else v for k, v in original.state_dict().items()}, path)
    return path


def vgg_file(path: Path, connected: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """A file with VGG16's names and shapes whose numbers are zeros, which take no room on the disk; returns views to write to."""
    with torch.device("meta"):
        shapes = {k: tuple(v.shape) for k, v in torchvision.models.vgg16().features.state_dict(prefix="features.").items()}
    for name, shape in connected.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return {
        name: np.memmap(path, np.float16, "r+", 8 + len(text) + header[name]["data_offsets"][0], shape)
        for name, shape in shapes.items()
    }


def conv(*shape: int) -> nn.Conv2d:
    """A convolution of weights (out, in, k, k) that nobody initialised; large ones would take seconds."""
    return nn.utils.skip_init(nn.Conv2d, shape[1], shape[0], shape[2], dtype=torch.float16)


def full_resnet(**options: int) -> ResNet:
    return ResNet(name="resnet18", **{"in_channels": 3, "output_stride": 32, **options}).eval()


def features(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What comes out of layer4 of torchvision's ResNet."""
    with torch.no_grad():
        x = network.maxpool(network.relu(network.bn1(network.conv1(x))))
        return network.layer4(network.layer3(network.layer2(network.layer1(x))))


class TestResNet:
    def test_nothing_happens_without_weights(self) -> None:
        trunk = full_resnet(width=4)
        before = {name: value.clone() for name, value in trunk.state_dict().items()}
        pretrained.load_resnet(trunk, None, name="resnet18")
        assert all(torch.equal(before[name], value) for name, value in trunk.state_dict().items())

    def test_features_are_torchvisions(self, original: nn.Module, resnet_file: Path) -> None:
        trunk, x = full_resnet(), torch.randn(2, 3, 65, 97)
        pretrained.load_resnet(trunk, str(resnet_file), name="resnet18")
        with torch.no_grad():
            assert torch.equal(trunk(x)[1], features(original, x))

    def test_one_channel_answers_like_three_equal_ones(self, original: nn.Module, resnet_file: Path) -> None:
        trunk, x = full_resnet(in_channels=1), torch.randn(1, 1, 64, 64)
        pretrained.load_resnet(trunk, str(resnet_file), name="resnet18")
        with torch.no_grad():
            torch.testing.assert_close(trunk(x)[1], features(original, x.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)

    def test_more_channels_repeat_the_three(self, original: nn.Module, resnet_file: Path) -> None:
        trunk, x = full_resnet(in_channels=6), torch.randn(1, 3, 64, 64)
        pretrained.load_resnet(trunk, str(resnet_file), name="resnet18")
        with torch.no_grad():
            torch.testing.assert_close(trunk(torch.cat([x, x], dim=1))[1], features(original, x), rtol=1e-4, atol=1e-4)
        four = full_resnet(in_channels=4)
        pretrained.load_resnet(four, str(resnet_file), name="resnet18")
        torch.testing.assert_close(four.conv1.weight[:, 3], 0.75 * original.conv1.weight[:, 0])

    def test_old_files_count_no_batches(self, original: nn.Module, tmp_path: Path) -> None:
        path, trunk = tmp_path / "old.safetensors", full_resnet()
        save_file({k: v for k, v in original.state_dict().items() if not k.endswith("num_batches_tracked")}, path)
        pretrained.load_resnet(trunk, str(path), name="resnet18")
        assert torch.equal(trunk.layer4[1].bn2.running_var, original.layer4[1].bn2.running_var)

    def test_a_file_of_another_size_fits_a_trunk_of_that_size(self, tmp_path: Path) -> None:
        path, theirs, ours = tmp_path / "small.safetensors", full_resnet(width=4), full_resnet(width=4)
        save_file(theirs.state_dict(), path)
        pretrained.load_resnet(ours, str(path), name="resnet18")
        assert torch.equal(ours.conv1.weight, theirs.conv1.weight)

    @pytest.mark.parametrize(("change", "message"), [
        (lambda s: s.pop("layer2.0.conv1.weight"), r"it lacks layer2\.0\.conv1\.weight\.$"),
        (lambda s: [s.pop(k) for k in list(s) if k.startswith("layer3.")], r"it lacks layer3\..* and \d+ more\.$"),
        (lambda s: s.update({"layer5.weight": torch.zeros(1)}), r"it has layer5\.weight, which the trunk has not"),
        (lambda s: s.update({"bn1.bias": torch.zeros(3)}), r"shapes differ: bn1\.bias \(3, here 64\)"),
        (lambda s: s.update({"conv1.weight": torch.zeros(64, 4, 7, 7)}), r"conv1\.weight \(64x4x7x7, here 64x3x7x7\)"),
    ])  # fmt: skip
    def test_what_does_not_fit_is_named_and_nothing_is_written(self, original: nn.Module, tmp_path: Path, change, message) -> None:
        path, trunk, state = tmp_path / "wrong.safetensors", full_resnet(), dict(original.state_dict())
        change(state)
        save_file(state, path)
        before = {name: value.clone() for name, value in trunk.state_dict().items()}
        with pytest.raises(ValueError, match=f"^weights: {path}: .*{message}"):
            pretrained.load_resnet(trunk, str(path), name="resnet18")
        assert all(torch.equal(before[name], value) for name, value in trunk.state_dict().items())

    @pytest.mark.parametrize("weights", ["imagnet", "resnet18.pth", "", True, 1])
    def test_other_values_are_refused(self, weights: object) -> None:
        with pytest.raises(ValueError, match=r"weights: .*Choices: imagenet, the path of a \.safetensors file"):
            pretrained.load_resnet(full_resnet(width=4), weights, name="resnet18")

    def test_broken_and_missing_files(self, resnet_file: Path, tmp_path: Path) -> None:
        path = tmp_path / "cut.safetensors"
        with pytest.raises(ValueError, match=f"weights: {path}: no such file"):
            pretrained.load_resnet(full_resnet(), str(path), name="resnet18")
        for content in (resnet_file.read_bytes()[:99999], b"<html>log in</html>", b""):
            path.write_bytes(content)
            with pytest.raises(ValueError, match=f"weights: {path}: no whole safetensors file"):
                pretrained.load_resnet(full_resnet(), str(path), name="resnet18")


@pytest.fixture
def server(resnet_file: Path) -> Iterator[Server]:
    with serving({REMOTE: resnet_file.read_bytes()}) as running:
        yield running


def hub_of(server: Server, folder: Path, sha256: str | None = None) -> Hub:
    return Hub(address=server.url("").rstrip("/"), folder=folder, files={"resnet18": Published("timm/resnet18.tv_in1k", sha256)})


class TestHub:
    def test_fetched_once_and_kept(self, server: Server, original: nn.Module, tmp_path: Path) -> None:
        hub, trunk = hub_of(server, tmp_path / "deep" / "folder"), full_resnet()
        for _ in range(2):
            pretrained.load_resnet(trunk, "imagenet", name="resnet18", hub=hub)
        assert [path for path, _ in server.seen] == [f"/{REMOTE}"]
        assert torch.equal(trunk.layer1[0].conv1.weight, original.layer1[0].conv1.weight)
        kept = tmp_path / "deep" / "folder" / "resnet18.tv_in1k.safetensors"
        assert kept.read_bytes() == server.files[REMOTE]
        assert not list(kept.parent.glob("*.part"))

    def test_processes_that_start_together_fetch_it_once(self, server: Server, tmp_path: Path) -> None:
        hub = hub_of(server, tmp_path)
        arguments = {"name": "resnet18", "hub": hub}
        trunks = [full_resnet() for _ in range(2)]
        starts = [threading.Thread(target=pretrained.load_resnet, args=(t, "imagenet"), kwargs=arguments) for t in trunks]
        for start in starts:
            start.start()
        for start in starts:
            start.join()
        assert len(server.seen) == 1

    @pytest.mark.parametrize(("plan", "reason"), [
        ("cut", "broken one"),
        ("says-less", "no whole safetensors file"),
        ((404, {}), "the hub answered 404"),
        ((503, {}), "the hub answered 503"),
    ])  # fmt: skip
    def test_what_fails_leaves_nothing_and_says_what_to_do(self, server: Server, tmp_path: Path, plan, reason: str) -> None:
        server.plan.append(plan)
        hub, trunk = hub_of(server, tmp_path), full_resnet()
        path = tmp_path / "resnet18.tv_in1k.safetensors"
        advice = f"fetch {server.url(REMOTE)} in another way and put it at {path}"
        with pytest.raises(ValueError, match=rf"^weights: .*{reason}.*: {advice}$"):
            pretrained.load_resnet(trunk, "imagenet", name="resnet18", hub=hub)
        assert [p.suffix for p in tmp_path.iterdir()] in ([], [".lock"])
        if plan == "cut":
            pretrained.load_resnet(trunk, "imagenet", name="resnet18", hub=hub)  # the next time it works

    def test_without_network(self, server: Server, tmp_path: Path) -> None:
        hub = hub_of(server, tmp_path)
        server.shutdown()
        server.server_close()
        with pytest.raises(ValueError, match=rf"no connection .*: fetch {server.url(REMOTE)} .* put it at {tmp_path}/resnet18"):
            pretrained.load_resnet(full_resnet(), "imagenet", name="resnet18", hub=hub)

    def test_another_page_in_its_place(self, server: Server, tmp_path: Path) -> None:
        server.files[REMOTE] = b"<html>log in first</html>"
        with pytest.raises(ValueError, match="the hub's answer: no whole safetensors file"):
            pretrained.load_resnet(full_resnet(), "imagenet", name="resnet18", hub=hub_of(server, tmp_path))

    def test_another_file_than_the_published_one(self, server: Server, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="sha256 .*, should be 00ff: fetch"):
            pretrained.load_resnet(full_resnet(), "imagenet", name="resnet18", hub=hub_of(server, tmp_path, sha256="00ff"))
        assert not list(tmp_path.glob("*.safetensors"))

    def test_a_folder_that_cannot_be_written(self, server: Server, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(ValueError, match="cannot be written"):
            pretrained.load_resnet(full_resnet(), "imagenet", name="resnet18", hub=hub_of(server, tmp_path / "file" / "folder"))

    def test_a_broken_file_in_the_folder(self, server: Server, resnet_file: Path, tmp_path: Path) -> None:
        path = tmp_path / "resnet18.tv_in1k.safetensors"
        path.write_bytes(resnet_file.read_bytes()[:1000])
        with pytest.raises(ValueError, match=f"{path}: no whole safetensors file .*: delete it, and it is fetched again"):
            pretrained.load_resnet(full_resnet(), "imagenet", name="resnet18", hub=hub_of(server, tmp_path))

    @pytest.mark.parametrize("trunk", [
        lambda: full_resnet(width=8),
        lambda: DeepStemResNet(name="resnet18", in_channels=3, output_stride=8),
        lambda: ResNet(name="resnet50", in_channels=3, output_stride=16),
    ])  # fmt: skip
    def test_a_trunk_that_they_cannot_fit_is_refused_before_the_fetch(self, server: Server, tmp_path: Path, trunk) -> None:
        with pytest.raises(ValueError, match=r"weights: the ImageNet weights of resnet18: .*only fit the full-size trunk"):
            pretrained.load_resnet(trunk(), "imagenet", name="resnet18", hub=hub_of(server, tmp_path))
        assert server.seen == []

    def test_addresses(self) -> None:
        assert Hub().url("resnet18") == f"https://huggingface.co/{REMOTE}"
        assert PUBLISHED.keys() == {"resnet18", "resnet50", "resnet101", "vgg16"}
        assert all(p.sha256 is None or len(p.sha256) == 64 for p in PUBLISHED.values())


class TestVGG16:
    @pytest.mark.parametrize(("connected", "norm"), [(TIMMS_FC, "none"), (TORCHVISIONS_FC, "batch")])
    def test_the_thirteen_convolutions(self, tmp_path: Path, connected: dict, norm: str) -> None:
        path = tmp_path / "vgg16.safetensors"
        views = vgg_file(path, connected)
        for number, name in enumerate(name for name in views if name.startswith("features.")):
            views[name][...] = 0.01 * (number + 1)
        stages = vgg.stages(in_channels=3, width=64, norm=norm, dilations=(1, 1, 1, 1, 2))
        pretrained.load_vgg16(stages, str(path))
        number = 0
        for module in stages.modules():
            if isinstance(module, nn.Conv2d):
                for values in (module.weight, module.bias):
                    number += 1
                    torch.testing.assert_close(values, torch.full_like(values, 0.01 * number), rtol=1e-3, atol=0)
            elif isinstance(module, nn.BatchNorm2d):
                assert (module.weight == 1).all() and (module.running_mean == 0).all()
        assert number == 26

    def test_the_first_convolution_takes_other_channels(self, tmp_path: Path) -> None:
        views = vgg_file(path := tmp_path / "vgg16.safetensors", {})
        views["features.0.weight"][:] = np.array([1, 2, 4])[:, None, None]
        for channels, expected in [(1, [7]), (3, [1, 2, 4]), (6, [0.5, 1, 2, 0.5, 1, 2])]:
            stages = vgg.stages(in_channels=channels, width=64, norm="none")
            pretrained.load_vgg16(stages, str(path))
            assert stages[0][0].weight[5, :, 1, 1].tolist() == expected

    @pytest.mark.parametrize("connected", [TIMMS_FC, TORCHVISIONS_FC])
    def test_fully_connected_layers_become_convolutions(self, tmp_path: Path, connected: dict) -> None:
        """As a convolution, fc6 answers to 512 maps of 7x7 as it does, as a linear layer, to their 25,088 numbers."""
        views = vgg_file(path := tmp_path / "vgg16.safetensors", connected)
        first, second, _ = connected
        row = torch.randn(25088, dtype=torch.float64).half()
        views[f"{first}.weight"][9] = row.numpy().reshape(views[f"{first}.weight"].shape[1:])
        views[f"{first}.bias"][9] = 3
        views[f"{second}.weight"][7, 9] = 2
        fc6, fc7 = conv(4096, 512, 7, 7), conv(4096, 4096, 1, 1)
        pretrained.load_vgg16(vgg.stages(in_channels=3, width=64, norm="none"), str(path), fc6=fc6, fc7=fc7)
        x = torch.randn(1, 512, 7, 7, dtype=torch.float64)
        with torch.no_grad():
            found = F.conv2d(x, fc6.weight[9:10].double(), fc6.bias[9:10].double()).item()
        assert found == pytest.approx((x.flatten() @ row.double()).item() + 3)
        assert fc7.weight[7, 9].item() == 2 and fc7.weight.count_nonzero() == 1

    def test_deeplabs_smaller_ones_take_every_fourth_channel_and_third_tap(self, tmp_path: Path) -> None:
        views = vgg_file(path := tmp_path / "vgg16.safetensors", TIMMS_FC)
        taps = np.arange(49).reshape(7, 7)
        for channel in (0, 4, 4092):
            views["pre_logits.fc1.weight"][channel] = taps + channel % 7
            views["pre_logits.fc1.bias"][channel] = channel
        views["pre_logits.fc2.weight"][8, :1024] = np.arange(1024)[:, None, None]
        fc6 = [conv(1024, 512, 3, 3) for _ in range(4)]
        fc7 = nn.Sequential(conv(1024, 1024, 1, 1), nn.ReLU())
        pretrained.load_vgg16(DilatedVGG(in_channels=3), str(path), fc6=fc6, fc7=fc7)
        for layer in fc6:
            for ours, theirs in ((0, 0), (1, 4), (1023, 4092)):
                assert layer.bias[ours] == theirs
                assert (layer.weight[ours] == torch.tensor(taps[::3, ::3] + theirs % 7)).all()
        assert fc7[0].weight[2, :256, 0, 0].tolist() == list(range(0, 1024, 4))

    def test_these_taps_look_where_vgg16_looks(self) -> None:
        stride, dilation = 8, 12
        taps = pretrained._picks((4096, 512, 7, 7), (1024, 512, 3, 3))[2]
        assert [32 * (tap - 3) for tap in taps] == [stride * dilation * (i - 1) for i in range(3)]

    @pytest.mark.parametrize("shape", [(1000, 512, 7), (8192, 512, 7), (4096, 256, 7), (4096, 512, 5), (4096, 512, 9)])
    def test_other_sizes_of_fc6_are_refused(self, tmp_path: Path, shape: tuple[int, int, int]) -> None:
        with torch.device("meta"):
            stages, fc6 = vgg.stages(in_channels=3, width=64, norm="none"), nn.Conv2d(shape[1], shape[0], shape[2])
        with pytest.raises(ValueError, match="4096x512x7x7 as a convolution; .* only fit the full-size trunk"):
            pretrained.load_vgg16(stages, str(tmp_path / "none.safetensors"), fc6=fc6)

    def test_a_narrow_trunk_is_refused(self) -> None:
        message = r"weights of VGG16: shapes differ: features\.0\.weight \(64x3x3x3, here 4x3x3x3\).*full-size"
        with pytest.raises(ValueError, match=message):
            pretrained.load_vgg16(vgg.stages(in_channels=3, width=4, norm="none"), "imagenet")

    def test_what_does_not_fit_is_named(self, tmp_path: Path) -> None:
        with torch.device("meta"):
            stages, fc6 = vgg.stages(in_channels=3, width=64, norm="none"), nn.Conv2d(512, 4096, 7)
        path = tmp_path / "vgg16.safetensors"
        vgg_file(path, {"classifier.0": (4096, 512)})
        with pytest.raises(ValueError, match=r"classifier\.0\.weight is 4096x512, should be 4096x512x7x7"):
            pretrained.load_vgg16(stages, str(path), fc6=fc6)
        vgg_file(path, {})
        with pytest.raises(ValueError, match=r"it lacks pre_logits\.fc1\.weight or classifier\.0\.weight"):
            pretrained.load_vgg16(stages, str(path), fc6=fc6)
        pretrained.load_vgg16(stages, str(path))
        save_file({k: v for k, v in load_file(path).items() if "28" not in k}, path)
        with pytest.raises(ValueError, match=r"it lacks features\.28\.weight, features\.28\.bias\.$"):
            pretrained.load_vgg16(stages, str(path))


class TestXception65:
    def test_timms_names(self) -> None:
        """timm's file has the same tensors under other names, all of them and in each block the same numbers of each kind."""
        timm = pytest.importorskip("timm")
        with torch.device("meta"):
            theirs, ours = timm.create_model("xception65").state_dict(), Xception65(in_channels=3, output_stride=16).state_dict()
        renamed = {pretrained._xception65_name(k): v.shape for k, v in theirs.items() if not k.startswith("head.")}
        assert renamed == {k: v.shape for k, v in ours.items()}

    def test_a_file_and_nothing_else(self, tmp_path: Path) -> None:
        path = tmp_path / "xception.safetensors"
        theirs = Xception65(in_channels=3, output_stride=16, width=4)
        save_file(theirs.state_dict(), path)
        model = deeplabv3plus.build(num_classes=2, width=4, head=8, weights=str(path))
        assert torch.equal(model.trunk.exit2.convs[2][3].weight, theirs.exit2.convs[2][3].weight)
        grey = deeplabv3plus.build(num_classes=2, in_channels=1, width=4, head=8, weights=str(path))
        torch.testing.assert_close(grey.trunk.stem[0].weight, theirs.stem[0].weight.sum(1, keepdim=True))
        with pytest.raises(ValueError, match="none of torchvision's for xception65"):
            deeplabv3plus.build(num_classes=2, width=4, head=8, weights="imagenet")


class TestNetworks:
    def test_deeplabv3plus(self, resnet_file: Path, original: nn.Module) -> None:
        model = deeplabv3plus.build(num_classes=2, trunk="resnet18", head=8, weights=str(resnet_file))
        assert torch.equal(model.trunk.layer3[0].downsample[0].weight, original.layer3[0].downsample[0].weight)
        with pytest.raises(ValueError, match="full-size"):
            deeplabv3plus.build(num_classes=2, trunk="resnet18", width=8, head=8, weights="imagenet")

    def test_segnet(self, tmp_path: Path) -> None:
        views = vgg_file(path := tmp_path / "vgg16.safetensors", {})
        views["features.28.bias"][:] = 5
        model = segnet.build(num_classes=2, weights=str(path))
        assert (model.encoders[4][6].bias == 5).all() and not (model.decoders[0][0].bias == 5).any()
        with pytest.raises(ValueError, match="SegNet-Basic"):
            segnet.build(num_classes=2, variant="basic", weights="imagenet")
        with pytest.raises(ValueError, match="full-size"):
            segnet.build(num_classes=2, width=4, weights="imagenet")

    def test_fcn(self, tmp_path: Path) -> None:
        vgg_file(path := tmp_path / "vgg16.safetensors", TIMMS_FC)
        with torch.device("meta"):  # 134 million parameters: only whether names and shapes fit
            fcn.build(num_classes=2, weights=str(path))
            with pytest.raises(ValueError, match="full-size"):
                fcn.build(num_classes=2, fc=1000, weights=str(path))
        with pytest.raises(ValueError, match="full-size"):
            fcn.build(num_classes=2, width=4, weights="imagenet")
