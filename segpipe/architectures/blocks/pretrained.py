"""ImageNet weights for trunks: torchvision's ResNet-18, -50, -101 and VGG16, or a safetensors file with the same names.

`weights` is None (nothing happens), `imagenet` (fetched once, see `weight_files.py`), or the path of a `.safetensors` file. What
can be wrong is found before the first number is written, and before anything is fetched where that is possible.

The classifier of the file is left out. Every other tensor of the trunk must be in the file, and no other tensor may be in it.
Images with other than three channels change the first convolution only: for one channel its three planes are summed, which answers
to grey images exactly as the original to the same grey in red, green and blue; for n channels the planes repeat (red, green, blue,
red, ...) and are multiplied by 3 / n, so that the sum over channels keeps its size.
"""

import math
import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from segpipe.architectures.blocks.vgg import CONVS, stage_channels
from segpipe.architectures.blocks.weight_files import HUB, IMAGENET, Hub, Shapes, WeightFile, check, opened

RGB = 3
# The convolutions in torchvision's and timm's `features`: each stage ends with a pooling, each convolution has its ReLU.
VGG16_CONVS = tuple(2 * sum(CONVS[:s]) + s + 2 * i for s, convs in enumerate(CONVS) for i in range(convs))
VGG16_FC: dict[tuple[int, ...], tuple[str, ...]] = {
    (4096, 512, 7, 7): ("pre_logits.fc1", "classifier.0"),
    (4096, 4096, 1, 1): ("pre_logits.fc2", "classifier.3"),
}
"""fc6 and fc7 as convolutions: their shapes, and timm's and torchvision's names of them."""
VGG16_CLASSIFIERS = ("pre_logits.", "classifier.", "head.")


def load_resnet(trunk: nn.Module, weights: str | None, *, name: str, hub: Hub = HUB) -> None:
    """Write published weights into `trunk`, a ResNet with torchvision's names (`conv1`, `bn1`, `layer1.0.conv1`, ...) without `fc`.

    Dilation and where strides are do not matter. The statistics of batch normalisation are loaded too.

    Args:
        trunk: changed in place; with `imagenet` of full size (width 64) and with torchvision's 7x7 stem.
        weights: None, `imagenet`, or the path of a .safetensors file that fits this trunk, whatever its size and stem.
        name: `resnet18`, `resnet50` or `resnet101`.

    Raises:
        ValueError: another value, a trunk or a file that does not fit (with the names of the tensors), or nothing can be fetched.
    """
    check(weights)
    if weights is None:
        return
    ours = _shapes(trunk)
    if weights == IMAGENET:
        _must_fit(ours, _resnet_shapes(name), first="conv1.weight", where=f"the ImageNet weights of {name}", full_size=True)
    with opened(weights, name=name, hub=hub) as file:
        theirs = {key: shape for key, shape in file.shapes.items() if not key.startswith("fc.")}
        _must_fit(ours, theirs, first=next(iter(ours)), where=str(file.path))
        _fill(trunk, file, {key: key for key in theirs})


def load_vgg16(
    features: nn.Module,
    weights: str | None,
    *,
    fc6: nn.Module | Sequence[nn.Module] | None = None,
    fc7: nn.Module | Sequence[nn.Module] | None = None,
    hub: Hub = HUB,
) -> None:
    """Write VGG16's weights into the 13 convolutions of `features`, and into fc6 and fc7 where they are given.

    The fully connected layers become convolutions: fc6 is 7x7 over 512 channels, fc7 is 1x1. A smaller fc6 or fc7 takes evenly
    spaced parts of them, as DeepLab v1 does: 1024 channels are every fourth of 4096, and a 3x3 fc6 takes the rows and columns 0, 3
    and 6, which at dilation 12 and stride 8 look at the places that they look at in VGG16, at stride 32. Nothing is rescaled. Of
    several fc6 and fc7 (DeepLab v2 has four) each gets the same. Batch normalisation, which VGG16 has not, keeps what it has.

    Args:
        features: changed in place; its convolutions, in the order in which it registers them, are VGG16's, of width 64.
        weights: None, `imagenet`, or the path of a .safetensors file with timm's or torchvision's names.
        fc6, fc7: a convolution with bias, a module that has one, or several of these.

    Raises:
        ValueError: another value, a trunk or a file that does not fit, or nothing can be fetched.
    """
    check(weights)
    if weights is None:
        return
    convs = _convs(features)
    assert len(convs) == len(VGG16_CONVS), f"{len(convs)} convolutions"
    named = {f"features.{n}": conv for n, conv in zip(VGG16_CONVS, convs, strict=True)}
    ours = {f"{name}.{key}": shape for name, conv in named.items() for key, shape in _shapes(conv).items()}
    _must_fit(ours, _vgg16_shapes(), first="features.0.weight", where="the weights of VGG16", full_size=True)
    heads = [[conv for module in _listed(layer) for conv in _convs(module)] for layer in (fc6, fc7)]
    picks = [[_picks(full, tuple(conv.weight.shape)) for conv in layer] for full, layer in zip(VGG16_FC, heads, strict=True)]
    with opened(weights, name="vgg16", hub=hub) as file:
        theirs = {key: shape for key, shape in file.shapes.items() if not key.startswith(VGG16_CLASSIFIERS)}
        _must_fit(ours, theirs, first="features.0.weight", where=str(file.path))
        sources = [_fully_connected(file, full) if layer else "" for full, layer in zip(VGG16_FC, heads, strict=True)]
        with torch.no_grad():
            for name, conv in named.items():
                _write(conv, for_channels(file.tensor(f"{name}.weight"), conv.weight), file.tensor(f"{name}.bias"))
            for source, full, layer, parts in zip(sources, VGG16_FC, heads, picks, strict=True):
                if layer:
                    weight, bias = file.tensor(f"{source}.weight").reshape(full), file.tensor(f"{source}.bias")
                for conv, part in zip(layer, parts, strict=True):
                    _write(conv, _part(weight, part), _part(bias, part[:1]))


def load_xception65(trunk: nn.Module, weights: str | None) -> None:
    """Write the weights of a .safetensors file into `trunk`, our Xception-65; torchvision has none for `imagenet`.

    The names are those of our trunk or timm's, whose `timm/xception65.tf_in1k` are the ImageNet weights of DeepLab's authors.

    Raises:
        ValueError: another value than None or a path, or a file that does not fit.
    """
    check(weights)
    if weights is None:
        return
    if weights == IMAGENET:
        raise ValueError("weights: there are none of torchvision's for xception65. Give the path of a .safetensors file.")
    with opened(weights, name="xception65", hub=HUB) as file:
        names = {_xception65_name(key): key for key in file.shapes if not key.startswith("head.")}
        ours = _shapes(trunk)
        _must_fit(ours, {ours_: file.shapes[key] for ours_, key in names.items()}, first="stem.0.weight", where=str(file.path))
        _fill(trunk, file, names)


def _xception65_name(theirs: str) -> str:
    """Our name of a tensor in timm's Xception-65; any other name stays as it is."""
    if found := re.fullmatch(r"stem\.(\d)\.(conv|bn)\.(\w+)", theirs):
        return f"stem.{3 * int(found[1]) + (found[2] == 'bn')}.{found[3]}"
    found = re.fullmatch(r"blocks\.(\d+)\.(?:shortcut\.(conv|bn)|stack\.conv(\d)\.(conv_dw|bn_dw|conv_pw|bn_pw))\.(\w+)", theirs)
    if not found:
        return theirs
    number = int(found[1])
    block = {0: "entry1", 1: "entry2", 2: "entry3", 19: "exit1", 20: "exit2"}.get(number, f"middle.{number - 3}")
    if found[2]:
        return f"{block}.shortcut.{int(found[2] == 'bn')}.{found[5]}"
    # The last block has a ReLU after each half, which takes a place in our sequence.
    places = (0, 1, 3, 4) if number == 20 else (0, 1, 2, 3)
    place = places[("conv_dw", "bn_dw", "conv_pw", "bn_pw").index(found[4])]
    return f"{block}.convs.{int(found[3]) - 1}.{place}.{found[5]}"


def _fill(trunk: nn.Module, file: WeightFile, names: Mapping[str, str]) -> None:
    """Write the tensors of `file` into `trunk`; `names` are the trunk's names and the file's."""
    state = trunk.state_dict()
    with torch.no_grad():
        for ours, theirs in names.items():
            if ours in state:
                state[ours].copy_(for_channels(file.tensor(theirs), state[ours]))


def _listed(layer: nn.Module | Sequence[nn.Module] | None) -> Sequence[nn.Module]:
    if layer is None:
        return ()
    return [layer] if isinstance(layer, nn.Module) else layer


def _convs(module: nn.Module) -> list[nn.Conv2d]:
    return [part for part in module.modules() if isinstance(part, nn.Conv2d)]


def _write(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    assert conv.bias is not None
    conv.weight.copy_(weight)
    conv.bias.copy_(bias)


def _part(x: Tensor, picks: list[list[int]]) -> Tensor:
    """The elements of x at `picks`, one list of indices per dimension."""
    for dimension, pick in enumerate(picks):
        if len(pick) < x.shape[dimension]:
            x = x.index_select(dimension, torch.tensor(pick, device=x.device))
    return x


def for_channels(weight: Tensor, target: Tensor) -> Tensor:
    """The weight of the first convolution, over three channels, for the image channels of `target`; any other one as it is."""
    if weight.shape == target.shape or not _same_but_channels(tuple(target.shape), tuple(weight.shape)):
        return weight
    weight, channels = weight.to(target.dtype), target.shape[1]
    if channels == 1:
        return weight.sum(dim=1, keepdim=True)
    return weight[:, [c % RGB for c in range(channels)]] * (RGB / channels)


def _picks(full: tuple[int, ...], wanted: tuple[int, ...]) -> list[list[int]]:
    """Per dimension of a convolution's weight the indices of `wanted` evenly spaced ones out of `full`.

    Channels are every n-th from the first on; the taps of a kernel reach from its first to its last, one alone is its middle.
    """
    result = []
    for dimension, (many, few) in enumerate(zip(full, wanted, strict=True)):
        if dimension < 2:
            fits = few <= many and many % few == 0
            step, start = many // few, 0
        else:
            fits = few == 1 or (few <= many and (many - 1) % (few - 1) == 0)
            step, start = ((many - 1) // (few - 1), 0) if few > 1 else (1, many // 2)
        if not fits or (dimension == 1 and full[2] > 1 and few != many):
            raise ValueError(
                f"weights: a fully connected layer of VGG16 is {_text(full)} as a convolution; {_text(wanted)} cannot be taken"
                " evenly from it. These weights only fit the full-size trunk."
            )
        result.append([start + step * i for i in range(few)])
    return result


def _fully_connected(file: WeightFile, full: tuple[int, ...]) -> str:
    """The name that a fully connected layer has in `file`; it may be stored as a linear layer or as a convolution."""
    for name in VGG16_FC[full]:
        if {f"{name}.weight", f"{name}.bias"} <= file.shapes.keys():
            shape = file.shapes[f"{name}.weight"]
            if (shape[0], math.prod(shape)) != (full[0], math.prod(full)) or file.shapes[f"{name}.bias"] != full[:1]:
                raise ValueError(f"weights: {file.path}: {name}.weight is {_text(shape)}, should be {_text(full)}")
            return name
    raise ValueError(f"weights: {file.path}: it lacks {' or '.join(f'{name}.weight' for name in VGG16_FC[full])}")


def _shapes(module: nn.Module) -> Shapes:
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


def _resnet_shapes(name: str) -> Shapes:
    import torchvision

    with torch.device("meta"):
        network = getattr(torchvision.models, name)(weights=None)
    return {key: shape for key, shape in _shapes(network).items() if not key.startswith("fc.")}


def _vgg16_shapes() -> Shapes:
    result: Shapes = {}
    channels, index = RGB, iter(VGG16_CONVS)
    for convs, after in zip(CONVS, stage_channels(64), strict=True):
        for _ in range(convs):
            n = next(index)
            result |= {f"features.{n}.weight": (after, channels, 3, 3), f"features.{n}.bias": (after,)}
            channels = after
    return result


def _must_fit(ours: Shapes, theirs: Shapes, *, first: str, where: str, full_size: bool = False) -> None:
    """Raise ValueError, naming the tensors, unless all of ours are theirs, none is left, and the shapes agree.

    Images of the tensor `first` may have another number of channels than theirs, if those have three. Counters of batches, which
    older files lack, may be missing.
    """
    wrong = []
    counter = ".num_batches_tracked"
    if missing := [key for key in ours if key not in theirs and not key.endswith(counter)]:
        wrong.append(f"it lacks {_list(missing)}")
    if unexpected := [key for key in theirs if key not in ours and not key.endswith(counter)]:
        wrong.append(f"it has {_list(unexpected)}, which the trunk has not")
    shapes = [
        f"{key} ({_text(theirs[key])}, here {_text(ours[key])})"
        for key in ours
        if key in theirs and ours[key] != theirs[key] and not (key == first and _same_but_channels(ours[key], theirs[key]))
    ]
    if shapes:
        wrong.append(f"shapes differ: {_list(shapes)}")
    if wrong:
        advice = " These weights only fit the full-size trunk (width 64, torchvision's stem)." if full_size else ""
        raise ValueError(f"weights: {where}: {'; '.join(wrong)}.{advice}")


def _same_but_channels(ours: tuple[int, ...], theirs: tuple[int, ...]) -> bool:
    return len(theirs) == 4 and theirs[1] == RGB and (ours[0], *ours[2:]) == (theirs[0], *theirs[2:])


def _list(names: list[str], most: int = 4) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
