"""Augmentation: policies (what is drawn), the offline engine (new training samples on disk).

- `policy.py`: `build(name)` and `sample_seed`; used online by the training loader and offline by `offline.py`.
- `transforms.py`: what the policies `light` and `strong` are made of; the only importer of albumentations.
- `offline.py`: the `augment` stage's engine; `samples.py`: one augmented sample, reproducible alone.
"""
