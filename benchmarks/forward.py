"""Every network at its full size, and the same family in smp or torchvision where there is one: `python -m benchmarks.forward`.

Prints images a second forward (eval mode) and forward and backward (training mode), and the ratio to the peer: above 1 ours is
faster. On a GPU images are 512 x 512, on a CPU 128 x 128; both sides get the same images, precision and memory layout, and take
turns. Ours answer through `forward_at_size`, so that U-Net's lost borders and DeconvNet's fixed tiles are in its time.

Only torchvision_fcn, torchvision_deeplabv3 and smp are the peer's own network, and should be at 1. The others are the papers', of
which the peer has a variant: with another trunk (fcn has VGG16, the peer a ResNet-50), other dilations, or narrower.
"""

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn
from torchvision.models import segmentation

from segpipe import components
from segpipe.inference import forward_at_size
from segpipe.training import devices
from segpipe.training.outcome import parameter_count

CLASSES = 21
ALONE = {"weights": None, "weights_backbone": None, "num_classes": CLASSES, "aux_loss": True}
SMP = {"encoder_weights": None, "classes": CLASSES}
PEERS: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "deeplabv3": ("torchvision deeplabv3_resnet101", lambda: segmentation.deeplabv3_resnet101(**ALONE)),
    "deeplabv3plus": ("smp DeepLabV3Plus, tu-xception65", lambda: smp.DeepLabV3Plus("tu-xception65", **SMP)),
    "fcn": ("torchvision fcn_resnet50", lambda: segmentation.fcn_resnet50(**ALONE)),
    "fpn": ("smp FPN, resnet50", lambda: smp.FPN("resnet50", **SMP)),
    "pspnet": ("smp PSPNet, resnet101", lambda: smp.PSPNet("resnet101", **SMP)),
    "smp": ("smp Unet, resnet34", lambda: smp.Unet("resnet34", **SMP)),
    "torchvision_deeplabv3": ("torchvision deeplabv3_resnet50", lambda: segmentation.deeplabv3_resnet50(**ALONE)),
    "torchvision_fcn": ("torchvision fcn_resnet50", lambda: segmentation.fcn_resnet50(**ALONE)),
    "unet": ("smp Unet, resnet34", lambda: smp.Unet("resnet34", **SMP)),
}
Outputs = Callable[[Tensor], list[Tensor]]


def answers(model: nn.Module) -> Outputs:
    """A call gives all outputs: ours at the image's size, a peer's as it gives them."""
    if hasattr(model, "input_rule"):
        return lambda x: list(forward_at_size(model, x).values())

    def peer(x: Tensor) -> list[Tensor]:
        out = model(x)
        return [out] if isinstance(out, Tensor) else list(out.values())

    return peer


def rates(models: dict[str, nn.Module], x: Tensor, *, precision: str, rounds: int) -> Iterator[tuple[str, float, float]]:
    """(side, images a second forward, and forward and backward) of each model; the sides take turns, the first turn warms up."""
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    cast = nullcontext() if half is None else torch.autocast(x.device.type, half)
    wait = torch.cuda.synchronize if x.device.type == "cuda" else lambda: None
    seconds: dict[tuple[str, bool], list[float]] = {(side, training): [] for side in models for training in (False, True)}
    for training in (False, True):
        for turn in range(rounds + 1):
            for side, model in models.items():
                model.train(training)
                wait()
                start = time.perf_counter()
                with cast, torch.set_grad_enabled(training):
                    outputs = answers(model)(x)
                if training:
                    sum(out.float().square().mean() for out in outputs).backward()
                wait()
                if turn:
                    seconds[side, training].append(time.perf_counter() - start)
                model.zero_grad()
    for side in models:
        forward, both = (len(x) / statistics.median(seconds[side, training]) for training in (False, True))
        yield side, forward, both


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="*", metavar="NETWORK", help="default: all")
    parser.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="multiples of 32; 512 512, on a CPU 128 128")
    parser.add_argument("--batch-size", type=int, help="2 or more; 8, on a CPU 2")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    with devices.training_device(options.device, report=print) as device:
        gpu = device.type == "cuda"
        precision = devices.choose_precision(options.precision, device)
        layout = torch.channels_last if devices.use_channels_last(device, precision) else torch.contiguous_format
        size = tuple(options.size or ((512, 512) if gpu else (128, 128)))
        x = torch.randn(options.batch_size or (8 if gpu else 2), 3, *size, device=device).contiguous(memory_format=layout)
        what = torch.cuda.get_device_name(device) if gpu else f"{torch.get_num_threads()} CPU threads"
        print(f"{len(x)} images of {size[0]} x {size[1]} on {what} in {precision}, median of {options.rounds}; images/s")
        print(f"{'':55} {'parameters':>10}  {'forward':>8}  {'and backward':>12}")
        for name in options.only or components.names("architectures"):
            title, build = PEERS.get(name, (None, None))
            own = components.load("architectures", name).build(num_classes=CLASSES)
            models = {name: own} | ({f"  {title}": build()} if build else {})
            for model in models.values():
                devices.mend(model.to(device=device, memory_format=layout))
            done = []
            for side, forward, both in rates(models, x, precision=precision, rounds=options.rounds):
                count = parameter_count(models[side]) / 1e6
                print(f"{side:55} {count:8.1f} M  {forward:8.2f}  {both:12.2f}", flush=True)
                done.append((forward, both))
            if build:
                forward, both = (mine / peers for mine, peers in zip(*done, strict=True))
                print(f"{'  ratio ours / peer':55} {'':10}  {forward:8.2f}  {both:12.2f}", flush=True)
            del own, models, model
            gc.collect()
            if gpu:
                torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
