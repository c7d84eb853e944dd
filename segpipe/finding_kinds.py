"""The kinds of finding of the mask audit: the words that `datasets.<name>.audit` in params.yaml takes."""

SETTLE_VALUE = "class_map: {{values: {{{value}: ignore}}}}"
SETTLE_SPLITS = "splits: {{fractions: {{train: 0.7, val: 0.15, test: 0.15}}, by: group}}"
SETTLE_AUDIT = "audit: {{{kind}: {weaker}}}"

KINDS = {
    # one file
    "unreadable": "a file is empty, cut off or no image",
    "not_labels": "the mask holds no whole numbers",
    "colour_mask": "a colour picture stands where label values are expected",
    "jpeg_mask": "the mask is a JPEG, whose compression changes label values",
    "smeared_mask": "many values between the labels, as smooth resizing or JPEG leave them",
    "unknown_label": "label values outside the class list",
    "ignore_as_foreground": "255 marks the object, but 255 means ignored",
    "size_mismatch": "image and mask differ in size or are turned against each other",
    "orientation": "the image asks to be turned when shown",
    "constant_mask": "the whole mask is one class",
    "empty_mask": "every pixel of the mask is ignored",
    "instance_mismatch": "an instance lies on pixels of another class",
    # the listing of a source
    "no_mask": "an image without a mask",
    "no_image": "a mask without an image",
    "no_annotation": "an image without an annotation file",
    "unknown_image": "an annotation of an image that is not there",
    "unknown_category": "an annotation of a category that is not listed",
    "bad_polygon": "a polygon with fewer than three points, or none at all",
    "bad_annotation": "an annotation that cannot be drawn",
    "empty_instance": "an instance without a pixel",
    "two_masks": "two masks for one image",
    "spare_mask": "a mask that no image claims",
    "no_split": "a sample that no list of the splits names",
    "not_read": "part of the source that is not read",
    "overlap": "pixels that belong to two instances",
    "binary_mask": "masks of two values were recognised as background and foreground",
    "made_up_classes": "the source names no classes, so they were numbered",
    # the whole dataset
    "duplicate_id": "two samples have one id",
    "same_image": "the same image twice in one split",
    "leaked_image": "the same image in two splits",
    "near_duplicate": "almost the same image in two splits",
    "group_in_two_splits": "samples of one group (sequence, patient) in two splits",
    "absent_class": "a class without a pixel in a split",
    "rare_class": "a class with very few pixels in a split",
    "stand_in": "a missing split was taken from another one",
    "no_official_split": "the source has no split, so one was drawn",
}

SETTLES = {
    "unknown_label": SETTLE_VALUE,
    "ignore_as_foreground": "class_map: {{values: {{255: <class name, or ignore>}}}}",
    "group_in_two_splits": SETTLE_SPLITS,
    "near_duplicate": SETTLE_SPLITS,
    "leaked_image": SETTLE_AUDIT,
    "no_official_split": SETTLE_SPLITS,
}
"""What settles a finding of this kind in the dataset's row; for the others, how `audit` takes it less seriously."""


def settle(kind: str, severity: str, dataset: str, *, value: str | None = None) -> str:
    """The line of params.yaml that settles a finding: the row of the dataset with the key to add."""
    line = SETTLES.get(kind, SETTLE_AUDIT)
    if line == SETTLE_VALUE and value is None:
        line = SETTLE_AUDIT
    weaker = "warning" if severity == "error" else "off"
    return f"datasets: {{{dataset}: {{..., " + line.format(kind=kind, weaker=weaker, value=value) + "}}"
