"""One file per metric, of one of two kinds, told apart by the function that the file has.

**Of confusion counts.** The contract of a file with `compute`:

- `compute(confusion: int64 (..., K, K)) -> float64 (...) or (..., K)`: rows = truth, columns = prediction; every leading axis
  (images, bootstrap resamples) is scored on its own, at once. Summing counts over images before the call gives the dataset level.
- `PER_CLASS: bool`: whether there is one value per class (`..., K`) or one in all (`...`).

A score that is undefined, such as the IoU of a class in neither truth nor prediction, is NaN, never a silent 0 or 1, and means
over classes leave it out. All values are shares, 0..1. Ignored pixels are not in the counts.

**Of label masks**, for what counts do not hold: where the pixels lie. The contract of a file with `measure`:

- `KEYS: tuple[str, ...]`: the names of its values, each of which says its definition (`hd95_pooled`, `nsd_tau2px`); no two files
  share one.
- `measure(pair: blocks.mask_pair.MaskPair) -> tuple[float, ...]`: the values of one class on one image, in the order of `KEYS`.
  It is only asked where truth and prediction both hold the class. Work that several metrics need (borders, distances) is the
  pair's, done on first use and kept.
- `ONE_EMPTY: float`: the value where one of the two lacks the class: 0 for shares, NaN for distances, as there is none.
- `DISTANCE: bool`: False for shares, 0..1, where higher is better; True for lengths in the unit of the spacing, where lower is.

Where both lack the class the value is NaN. `segpipe/surfaces.py` asks these metrics, and averages their values.
"""
