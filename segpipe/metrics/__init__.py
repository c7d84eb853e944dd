"""One file per metric, a pure function of confusion counts. The contract of `segpipe/metrics/<name>.py`:

- `compute(confusion: int64 (..., K, K)) -> float64 (...) or (..., K)`: rows = truth, columns = prediction; every leading axis
  (images, bootstrap resamples) is scored on its own, at once. Summing counts over images before the call gives the dataset level.
- `PER_CLASS: bool`: whether there is one value per class (`..., K`) or one in all (`...`).

A score that is undefined, such as the IoU of a class in neither truth nor prediction, is NaN, never a silent 0 or 1, and means
over classes leave it out. All values are shares, 0..1. Ignored pixels are not in the counts.
"""
