"""The adapters are torchvision's and smp's networks to the bit, except where their files say otherwise."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save, save_file
from torch import nn
from torch.nn import functional as F

from segpipe.architectures import smp, torchvision_deeplabv3, torchvision_fcn
from segpipe.architectures.blocks.aspp import PooledBatchNorm
from segpipe.architectures.blocks.weight_files import Hub
from segpipe.inference import forward_at_size
from tests.architectures import probe
from tests.architectures.test_golden import assert_close
from tests.hostile_server import serving

HERE = Path(__file__).parent
SMALL = "tu-test_resnet"


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


class TestTorchvision:
    FILES = {"fcn_resnet50": torchvision_fcn, "deeplabv3_resnet50": torchvision_deeplabv3}

    @pytest.mark.parametrize("name", FILES)
    @pytest.mark.parametrize("aux", [True, False])
    def test_it_is_torchvisions_network(self, name: str, aux: bool) -> None:
        theirs = getattr(torchvision.models.segmentation, name)(
            weights=None, weights_backbone=None, num_classes=4, aux_loss=aux
        ).eval()
        ours = self.FILES[name].build(num_classes=4, aux=aux).eval()
        ours.load_state_dict(theirs.state_dict(), strict=True)
        x = torch.randn(1, 3, 49, 67)
        with torch.no_grad():
            expected, found = theirs(x), ours(x)
            assert found.keys() == {"out"} and torch.equal(found["out"], expected["out"])
            for network in (theirs, ours):
                network.train()
                for module in network.modules():
                    if isinstance(module, nn.BatchNorm2d | nn.Dropout):
                        module.eval()
            found = ours(x)
            assert found.keys() == ({"out", "aux"} if aux else {"out"})
            assert all(torch.equal(found[key], expected[key]) for key in found)

    @pytest.mark.parametrize("file", FILES.values(), ids=lambda file: file.__name__.rpartition(".")[2])
    def test_numbers_of_the_auxiliary_head(self, file) -> None:
        document = json.loads((HERE / "golden" / f"{file.__name__.rpartition('.')[2]}.json").read_text())
        for row in document["aux_probes"]:
            model = probe.initialise(file.build(**row["options"], **document["narrow"]))
            model.training = True  # of the network alone: what is inside stays in eval mode
            with torch.no_grad():
                assert_close(probe.digest(model(probe.image(*row["input"]))["aux"]), row["probe"])

    def test_first_blocks_keep_the_rate_of_the_stage_before(self) -> None:
        backbone = torchvision_fcn.build(num_classes=2, width=2).backbone
        rates = [[block.conv2.dilation[0] for block in backbone[name]] for name in ("layer3", "layer4")]
        assert rates == [[1, 2, 2, 2, 2, 2], [2, 4, 4]]

    def test_the_head_of_deeplabv3_has_one_more_convolution_than_the_papers(self) -> None:
        head = torchvision_deeplabv3.build(num_classes=2, width=2).classifier
        assert sum(p.numel() for p in head[1:4].parameters()) == 590_336
        assert [conv[0].dilation[0] for conv in list(head[0].convs)[1:4]] == [12, 24, 36]

    @pytest.mark.parametrize("file", FILES.values(), ids=lambda file: file.__name__.rpartition(".")[2])
    def test_the_auxiliary_head_learns_ten_times_as_fast(self, file) -> None:
        model = file.build(num_classes=2, width=2)
        one, ten = file.param_groups(model)
        assert (one["lr_scale"], ten["lr_scale"]) == (1, 10)
        assert {id(p) for p in ten["params"]} == {id(p) for p in model.aux_classifier.parameters()}
        assert len(one["params"]) + len(ten["params"]) == len(list(model.parameters()))
        assert len(file.param_groups(file.build(num_classes=2, width=2, aux=False))) == 1

    @pytest.mark.parametrize("file", FILES.values(), ids=lambda file: file.__name__.rpartition(".")[2])
    def test_the_smallest_image_trains_alone(self, file) -> None:
        model = file.build(num_classes=2, **file.TINY).train()
        side = model.input_rule.minimum
        model(torch.randn(1, 3, side, side))["out"].sum().backward()

    def test_trunk_weights(self, tmp_path: Path) -> None:
        trunk = torchvision.models.resnet50(weights=None)
        save_file(trunk.state_dict(), path := tmp_path / "resnet50.safetensors")
        model = torchvision_fcn.build(num_classes=2, in_channels=1, weights=str(path))
        assert torch.equal(model.backbone["layer4"][2].conv3.weight, trunk.layer4[2].conv3.weight)
        torch.testing.assert_close(model.backbone["conv1"].weight, trunk.conv1.weight.sum(1, keepdim=True))
        for file in self.FILES.values():
            with pytest.raises(ValueError, match="full-size"):
                file.build(num_classes=2, width=4, weights="imagenet")


@pytest.fixture(scope="module")
def library() -> object:
    import segmentation_models_pytorch

    return segmentation_models_pytorch


class TestSmp:
    @pytest.mark.parametrize("decoder", smp.DECODERS)
    def test_it_is_smps_network(self, library, decoder: str) -> None:
        theirs = getattr(library, smp.DECODERS[decoder])(SMALL, encoder_weights=None, classes=4).eval()
        for module in theirs.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
        ours = smp.build(num_classes=4, decoder=decoder, encoder=SMALL).eval()
        ours.load_state_dict(theirs.state_dict(), strict=True)
        side = ours.input_rule.padded(100)
        x = torch.randn(2, 3, side, side + 2 * ours.input_rule.multiple)
        with torch.no_grad():
            assert torch.equal(ours(x)["out"], theirs(x))

    @pytest.mark.parametrize("decoder", smp.DECODERS)
    def test_the_smallest_image_trains_alone_and_all_that_trains_gets_a_gradient(self, decoder: str) -> None:
        model = smp.build(num_classes=3, decoder=decoder, encoder=SMALL)
        assert model.training and all(parameter.grad is None for parameter in model.parameters())
        side = model.input_rule.minimum
        out = model(torch.randn(1, 3, side, side))["out"]
        assert out.shape == (1, 3, side, side)
        F.cross_entropy(out, torch.randint(3, (1, side, side))).backward()
        for name, parameter in model.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, name

    def test_what_pspnet_never_uses_does_not_train(self) -> None:
        model = smp.build(num_classes=2, decoder="pspnet", encoder="resnet18")
        still = {name.split(".")[1] for name, parameter in model.named_parameters() if not parameter.requires_grad}
        assert still == {"layer3", "layer4"}
        everything = smp.build(num_classes=2, encoder=SMALL)
        assert all(parameter.requires_grad for parameter in everything.parameters())

    def test_building_draws_what_smp_draws(self, library) -> None:
        """The trial run of a new network neither draws from the generator nor touches statistics."""
        torch.manual_seed(5)
        theirs = library.Unet(SMALL, encoder_weights=None, classes=2)
        after = torch.rand(1)
        torch.manual_seed(5)
        ours = smp.build(num_classes=2, encoder=SMALL)
        assert torch.rand(1) == after
        assert all(torch.equal(ours.state_dict()[key], value) for key, value in theirs.state_dict().items())

    def test_segformer_with_its_own_encoder(self) -> None:
        """Its golden count; this encoder cannot be built on the meta device, as the others of the golden file are."""
        model = smp.build(num_classes=21, decoder="segformer", encoder="mit_b0").eval()
        assert sum(parameter.numel() for parameter in model.parameters()) == 3_719_541
        with torch.no_grad():
            assert forward_at_size(model, torch.randn(1, 3, 70, 90))["out"].shape == (1, 21, 70, 90)

    def test_only_unet_takes_odd_sizes(self) -> None:
        for decoder in smp.DECODERS:
            model = smp.build(num_classes=2, decoder=decoder, encoder=SMALL).eval()
            assert model.input_rule.allows(129, 131) == (decoder == "unet")
            if decoder != "unet":
                with pytest.raises(ValueError, match="each side must be 0 modulo"):
                    model(torch.randn(1, 3, 129, 131))

    def test_only_decoders_have_the_normalisation_of_single_values(self) -> None:
        model = smp.build(num_classes=2, decoder="deeplabv3", encoder=SMALL)
        assert any(isinstance(module, PooledBatchNorm) for module in model.decoder.modules())
        assert not any(isinstance(module, PooledBatchNorm) for module in model.encoder.modules())

    @pytest.mark.parametrize(
        ("encoder", "decoder", "strides"),
        [("resnet18", "deeplabv3plus", [16, 16]), ("vgg11", "pspnet", [8, 4])],
    )
    def test_maps_are_placed(self, encoder: str, decoder: str, strides: list[int]) -> None:
        model = smp.build(num_classes=2, encoder=encoder, decoder=decoder)
        assert [grid.stride for grid in smp.cam_grid(model).values()] == strides
        for name, module in model.encoder.named_modules():
            if encoder == "vgg11" and isinstance(module, nn.MaxPool2d):  # which pixel of a cell wins is chance
                model.encoder.set_submodule(name, nn.AvgPool2d(2))
        probe.assert_grid(model, layers=smp.cam_layers(model), grids=smp.cam_grid(model))

    @pytest.mark.parametrize(("encoder", "message"), [
        ("resnet43", r"encoder: 'resnet43'\. Did you mean .*resnet34.*Choices: resnet18, "),
        ("tu-no_such_model", "encoder: 'tu-no_such_model'"),
        (34, "encoder: 34"),
    ])  # fmt: skip
    def test_wrong_encoders(self, encoder: object, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            smp.build(num_classes=2, encoder=encoder)

    def test_encoders_that_a_decoder_cannot_take(self) -> None:
        with pytest.raises(ValueError, match="'vgg11' does not go with the decoder 'deeplabv3'"):
            smp.build(num_classes=2, decoder="deeplabv3", encoder="vgg11")


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    """What smp publishes for ResNet-18: torchvision's names, the classifier among them."""
    return torchvision.models.resnet18(weights=None).state_dict()


class TestWeightsOfSmp:
    @pytest.fixture
    def hub(self, published: dict[str, torch.Tensor], library, tmp_path: Path) -> Iterator[Hub]:
        place = library.encoders.encoders["resnet18"]["pretrained_settings"]["imagenet"]
        remote = f"{place['repo_id']}/resolve/{place['revision']}/model.safetensors"
        with serving({remote: save(published)}) as server:
            yield Hub(address=server.url("").rstrip("/"), folder=tmp_path / "kept", files={})

    @pytest.mark.parametrize("channels", [1, 3])
    def test_they_are_fetched_like_all_others(self, hub: Hub, published: dict[str, torch.Tensor], channels: int) -> None:
        encoder = smp.build(num_classes=2, in_channels=channels, encoder="resnet18").encoder
        smp.load_encoder(encoder, "imagenet", name="resnet18", hub=hub)
        assert torch.equal(encoder.layer4[1].bn2.weight, published["layer4.1.bn2.weight"])
        first = published["conv1.weight"]
        torch.testing.assert_close(encoder.conv1.weight, first if channels == 3 else first.sum(1, keepdim=True))
        assert [path.name for path in hub.folder.glob("*.safetensors")] == ["resnet18.imagenet.safetensors"]

    def test_without_network(self, tmp_path: Path) -> None:
        encoder = smp.build(num_classes=2, encoder="resnet18").encoder
        hub = Hub(address="http://127.0.0.1:9", folder=tmp_path, files={})
        with pytest.raises(ValueError, match=rf"fetch http://127\.0\.0\.1:9/smp-hub/resnet18\.imagenet/.* put it at {tmp_path}"):
            smp.load_encoder(encoder, "imagenet", name="resnet18", hub=hub)

    def test_a_file(self, published: dict[str, torch.Tensor], tmp_path: Path) -> None:
        save_file(published, path := tmp_path / "resnet18.safetensors")
        model = smp.build(num_classes=2, encoder="resnet18", weights=str(path))
        assert torch.equal(model.encoder.layer1[0].conv1.weight, published["layer1.0.conv1.weight"])
        save_file({key: value for key, value in published.items() if key != "bn1.weight"}, path)
        with pytest.raises(ValueError, match=f"weights: {path}: .*bn1.weight"):
            smp.build(num_classes=2, encoder="resnet18", weights=str(path))

    @pytest.mark.parametrize("weights", ["imagnet", "weights.pth", True])
    def test_other_values_are_refused(self, weights: object) -> None:
        with pytest.raises(ValueError, match="weights: .*Choices: imagenet"):
            smp.build(num_classes=2, encoder=SMALL, weights=weights)

    def test_timms_encoders_have_none(self) -> None:
        with pytest.raises(ValueError, match=f"weights: smp has no 'imagenet' for '{SMALL}'"):
            smp.build(num_classes=2, encoder=SMALL, weights="imagenet")
