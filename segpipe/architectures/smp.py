"""Networks of segmentation_models_pytorch, "smp" (Iakubovskii 2019): https://github.com/qubvel-org/segmentation_models.pytorch

Eleven decoders on top of any of its encoders. They are what many people mean by "U-Net" or "DeepLab v3+", and they are not the
papers' networks, which have files of their own here:

- `unet`: a pretrained classifier as encoder, nearest-neighbour upsampling and two convolutions with batch normalisation.
- `fpn`: no 3x3 convolution after the sums, and dropout of whole channels.
- `pspnet`: reads the features at stride 8 of an encoder that is not dilated, whose last two stages are there and unused.
- `deeplabv3`: torchvision's head, on an encoder in which the first block of a dilated stage is dilated like the others.
- `deeplabv3plus`: rates 12, 24, 36 at stride 16, one decoder convolution where the authors have two, and no batch normalisation
  between the halves of a separable convolution.

The modules and their names are smp's. Two things differ, neither in a parameter: batch normalisation of a decoder uses its running
statistics where a batch of one has a single value per channel, and parameters that the network never uses do not train.
`weights` are those that smp publishes for the encoder, as safetensors, fetched and kept like all others (`blocks/weight_files.py`).
"""

import difflib
from typing import Any

import torch
from torch import nn

from segpipe.architectures.blocks import options, weight_files
from segpipe.architectures.blocks.aspp import PooledBatchNorm
from segpipe.architectures.blocks.cam_grid import CamGrid
from segpipe.architectures.blocks.input_rule import InputRule
from segpipe.architectures.blocks.pretrained import for_channels
from segpipe.architectures.blocks.weight_files import HUB, IMAGENET, Hub, Published

SOURCE = {
    "title": "Segmentation Models PyTorch",
    "authors": "Iakubovskii",
    "year": 2019,
    "venue": "GitHub",
    "url": "https://github.com/qubvel-org/segmentation_models.pytorch",
}
TASK = "semantic"
LOSS_WEIGHTS = {"out": 1.0}
INPUT_RULE = InputRule(minimum=64)
TINY = {"encoder": "tu-test_resnet"}

DECODERS = {
    "unet": "Unet",
    "unetplusplus": "UnetPlusPlus",
    "fpn": "FPN",
    "pspnet": "PSPNet",
    "deeplabv3": "DeepLabV3",
    "deeplabv3plus": "DeepLabV3Plus",
    "linknet": "Linknet",
    "pan": "PAN",
    "manet": "MAnet",
    "upernet": "UPerNet",
    "segformer": "Segformer",
}
"""smp's class of each decoder."""
PAN_CELLS = 8
"""PAN halves the deepest features three times."""


def build(
    *, num_classes: int, in_channels: int = 3, decoder: str = "unet", encoder: str = "resnet34", weights: str | None = None
) -> "Smp":
    """A network of smp with smp's own defaults.

    Args:
        num_classes: channels of the logits.
        in_channels: channels of the image.
        decoder: `unet`, `unetplusplus`, `fpn`, `pspnet`, `deeplabv3`, `deeplabv3plus`, `linknet`, `pan`, `manet`, `upernet` or
            `segformer`.
        encoder: one of smp's (`resnet34`, `vgg16_bn`, `efficientnet-b0`, `mit_b0`, ...), or `tu-` and the name of a timm model.
        weights: of the encoder: None, `imagenet` (for smp's own encoders), or a .safetensors file with the encoder's names.

    Raises:
        ValueError: an option has a value that it cannot have, encoder and decoder do not go together, or the weights do not fit or
            cannot be fetched.
    """
    options.positive(num_classes, name="num_classes")
    options.positive(in_channels, name="in_channels")
    options.one_of(decoder, DECODERS, name="decoder")
    _check_encoder(encoder)
    weight_files.check(weights)
    try:
        model = Smp(num_classes, in_channels, decoder, encoder)
    except (ValueError, KeyError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"encoder: {encoder!r} does not go with the decoder {decoder!r}: {error}") from error
    load_encoder(model.encoder, weights, name=encoder)
    return model


def cam_layers(model: "Smp") -> dict[str, nn.Module]:
    """Layers for class activation maps, each (N, C, h, w): the features of the encoder's last two stages, deepest first.

    What a decoder makes of them is not among them: smp lays coarse features over fine ones with shifts of up to 14 pixels.
    """
    return {name: model.stages[name] for name in reversed(list(model.stages))}


def cam_grid(model: "Smp") -> dict[str, CamGrid]:
    """Where the cells of each CAM layer are: the middle of the first is that of the first pixel; in VGG they start where it does.

    That holds for ResNets and for what is built like them. EfficientNet, DenseNet and others whose padding or pooling is one-sided
    are off by up to a cell.
    """
    centred = not model.encoder_name.startswith("vgg")
    strides = {name: model.strides[name] for name in cam_layers(model)}
    return {name: CamGrid(stride, 0.5 - stride / 2 if centred else 0.0) for name, stride in strides.items()}


class Smp(nn.Module):
    """(N, in_channels, H, W) -> {"out": (N, num_classes, H, W)}."""

    def __init__(self, num_classes: int, in_channels: int, decoder: str, encoder: str) -> None:
        import segmentation_models_pytorch as smp  # loads all of timm, seconds that other networks need not wait

        super().__init__()
        kind = getattr(smp, DECODERS[decoder])
        network = kind(encoder_name=encoder, encoder_weights=None, in_channels=in_channels, classes=num_classes)
        self.encoder_name = encoder
        self.encoder, self.decoder, self.segmentation_head = network.encoder, network.decoder, network.segmentation_head
        stride, depth = self.encoder.output_stride, len(self.encoder.out_channels) - 1
        self.stages = nn.ModuleDict({f"encoder{stage}": nn.Identity() for stage in (depth - 1, depth)})
        self.strides: dict[str, int] = {}
        self.input_rule = InputRule(
            multiple=stride if network.requires_divisible_input_shape else 1,
            minimum=stride * (PAN_CELLS if decoder == "pan" else 2),
        )
        for module in self.decoder.modules():
            if type(module) is nn.BatchNorm2d:
                module.__class__ = PooledBatchNorm  # adds no state, so that the module stays what it is
        self._try_out(in_channels)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        self.input_rule.check(x.shape[-2], x.shape[-1])
        *shallow, middle, deepest = self.encoder(x)
        features = [stage(maps) for stage, maps in zip(self.stages.values(), (middle, deepest), strict=True)]
        return {"out": self.segmentation_head(self.decoder([*shallow, *features]))}

    def _try_out(self, in_channels: int) -> None:
        """Learn the strides of the stages, and stop parameters from training that no output depends on: several processes would
        wait for their gradients for ever."""
        side = self.input_rule.minimum
        hooks = [
            stage.register_forward_hook(lambda module, inputs, maps, name=name: self.strides.update({name: side // maps.shape[-1]}))
            for name, stage in self.stages.items()
        ]
        with torch.enable_grad():
            self.eval()(torch.zeros(1, in_channels, side, side))["out"].sum().backward()
        for hook in hooks:
            hook.remove()
        for parameter in self.parameters():
            parameter.requires_grad_(parameter.grad is not None)
            parameter.grad = None
        self.train()


def load_encoder(encoder: nn.Module, weights: str | None, *, name: str, hub: Hub = HUB) -> None:
    """Write published weights into an encoder of smp, as `blocks/pretrained.py` does for our trunks.

    Raises:
        ValueError: there are none for `imagenet`, they cannot be fetched, or the file does not fit.
    """
    if weights is None:
        return
    if weights == IMAGENET:
        from segmentation_models_pytorch.encoders import encoders

        settings = encoders.get(name, {}).get("pretrained_settings", {})
        if IMAGENET not in settings:
            raise ValueError(f"weights: smp has no {IMAGENET!r} for {name!r}. Give the path of a .safetensors file.")
        place = settings[IMAGENET]
        hub = Hub(address=hub.address, folder=hub.folder, files={name: Published(place["repo_id"], revision=place["revision"])})
    ours: dict[str, Any] = encoder.state_dict()
    with weight_files.opened(weights, name=name, hub=hub) as file:
        theirs = {key: file.tensor(key) for key in file.shapes}
        try:
            # smp's method leaves the classifier out.
            encoder.load_state_dict({k: for_channels(v, ours[k]) if k in ours else v for k, v in theirs.items()})
        except RuntimeError as error:
            raise ValueError(f"weights: {file.path}: {' '.join(str(error).split())}") from None


def _check_encoder(encoder: object) -> None:
    import timm
    from segmentation_models_pytorch.encoders import get_encoder_names

    # The names with `timm-` are smp's old ones for those with `tu-`.
    names = [name for name in get_encoder_names() if not name.startswith("timm-")]
    if encoder in names or (isinstance(encoder, str) and encoder.startswith("tu-") and timm.is_model(encoder[3:])):
        return
    close = difflib.get_close_matches(str(encoder), [*names, *(f"tu-{name}" for name in timm.list_models())], n=3)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    raise ValueError(f"encoder: {encoder!r}.{hint} Choices: {', '.join(names)}, or tu- and the name of a timm model.")
