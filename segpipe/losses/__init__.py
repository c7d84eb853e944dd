"""One file per loss. The contract of `segpipe/losses/<name>.py`:

- `build(*, num_classes, ignore_index=255, **options) -> module`; its keyword options are the keys that `loss_options` of an
  experiment's row may have. `weight: list[float] | None` is the option of class weights: a loss whose `build` has it can be
  used with `class_weights`. A wrong option raises ValueError.
- The module is called with logits float (N, K, H, W), target int64 (N, H, W) and, optionally, `pixel_weight` float (N, H, W),
  0 or more, which multiplies what each pixel contributes. It returns a scalar.
- Pixels whose target is `ignore_index` do not count: their gradient is exactly zero. A batch without any other pixel gives 0.
- Finite for classes that are absent; computed in float32 under autocast (float64 logits stay float64).

The formulas are pinned to the original papers by golden values; one contract test holds every file here to the rest.
"""
