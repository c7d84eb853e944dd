"""One file per network family, found by its name: `components.load("architectures", "unet")`. The contract of such a file:

build(*, num_classes: int, in_channels: int = 3, **options) -> nn.Module
    The paper's network; options are explicit keyword arguments and their defaults are the paper's. A value that cannot be raises
    ValueError and names the choices. Weights are random, drawn from torch's global generator.
model.input_rule: InputRule
    Which input sizes this model takes and how much smaller it answers (`blocks/input_rule.py`). `segpipe.inference` pads, crops and
    resizes by it, so that every network answers at the image's size.
model(x float32 (N, C, H, W)) -> dict[str, Tensor]
    `"out"`: logits (N, num_classes, h, w) at the network's own output resolution; in training mode perhaps auxiliary logits too,
    each such a map; one that is about the whole image is (N, K, 1, 1). No softmax. In eval mode an image's logits do not depend on
    the rest of its batch.
cam_layers(model) -> dict[str, nn.Module]
    Layers whose output is (N, channels, h, w), for class activation maps; the deepest semantic one first.
cam_grid(model) -> dict[str, CamGrid]
    For the same names: where the cells of that output are in the input (`blocks/cam_grid.py`).
param_groups(model) -> list[dict]
    Only where the paper trains parts at different rates: dicts with "params" and "lr_scale".
loss_terms(outputs, target, *, criterion, ignore_index) -> dict[str, Tensor]
    Only where the experiment's pixel loss on every output is not all of the paper's training loss: scalars by name. A term with
    the name of an output takes the place of the pixel loss there; any other is added. `outputs` are the network's at the image's
    size, in validation those of eval mode; terms that need others are left out. `target` is int64 (N, H, W), `criterion(logits,
    target)` the pixel loss. It depends on nothing else, and an ignored pixel has no part in it.

INPUT_RULE      the rule of the default build
LOSS_WEIGHTS    the weight of each output and own term in the training loss, e.g. {"out": 1.0, "aux": 0.4}
SOURCE          title, authors, year, venue, arxiv
TASK            "semantic"
TINY            options of a build that is small enough for tests on a CPU
EXPORT          only where torch.export cannot take the TINY build: why not
COMPILE         only where torch.compile cannot, as one graph: why not

A network that does not train some parameters (FCN's bilinear filters) has `requires_grad=False` on them.
Everything that is true of one network only is written in its file; shared parts are in `blocks/`.
"""
