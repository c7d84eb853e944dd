"""One file per network family, found by its name: `components.load("architectures", "unet")`. The contract of such a file:

build(*, num_classes: int, in_channels: int = 3, **options) -> nn.Module
    The paper's network; options are explicit keyword arguments and their defaults are the paper's. A value that cannot be raises
    ValueError and names the choices. Weights are random, drawn from torch's global generator.
model.input_rule: InputRule
    Which input sizes this model takes and how much smaller it answers (`blocks/input_rule.py`). `segpipe.inference` pads, crops and
    resizes by it, so that every network answers at the image's size.
model(x float32 (N, C, H, W)) -> dict[str, Tensor]
    `"out"`: logits (N, num_classes, h, w) at the network's own output resolution; in training mode perhaps auxiliary logits too.
    No softmax. In eval mode an image's logits do not depend on the rest of its batch.
cam_layers(model) -> dict[str, nn.Module]
    Layers whose output is (N, channels, h, w), for class activation maps; the deepest semantic one first.
cam_grid(model) -> dict[str, CamGrid]
    For the same names: where the cells of that output are in the input (`blocks/cam_grid.py`).
param_groups(model) -> list[dict]
    Only where the paper trains parts at different rates: dicts with "params" and "lr_scale".

INPUT_RULE      the rule of the default build
LOSS_WEIGHTS    the weight of each output in the training loss, e.g. {"out": 1.0, "aux": 0.4}
SOURCE          title, authors, year, venue, arxiv
TASK            "semantic"
TINY            options of a build that is small enough for tests on a CPU

A network that does not train some parameters (FCN's bilinear filters) has `requires_grad=False` on them.
Everything that is true of one network only is written in its file; shared parts are in `blocks/`.
"""
