"""One row of `datasets` in params.yaml: where the data is, how it is split, which classes it has, what the audit may accept."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from segpipe import class_map, components, splits
from segpipe.audit import SEVERITIES
from segpipe.finding_kinds import KINDS
from segpipe.strict import make, mapping


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One row of `datasets`. `options` go to the dataset file's `generate` and `scan`."""

    name: str
    format: str
    source: str | None = None
    """Local archive or folder, file://, http(s):// or s3:// address; null takes the addresses in the dataset file."""
    splits: dict[str, Any] | None = None
    """Fractions or folds, as `segpipe.splits.assign` takes them; null takes the source's own splits."""
    stand_in: dict[str, Any] = field(default_factory=dict)
    """What stands in for a split that the source lacks, e.g. `{test: {from: val}, val: {from: train, fraction: 0.1}}`."""
    class_map: dict[str, Any] = field(default_factory=dict)
    """Classes merged, renamed or dropped, as `segpipe.class_map.apply` takes them."""
    audit: dict[str, Any] = field(default_factory=dict)
    """Kinds of finding whose severity is changed: error, warning or off."""
    options: dict[str, Any] = field(default_factory=dict)


OWN = tuple(f.name for f in fields(Dataset) if f.name not in ("name", "options"))
"""The keys of every row; all others are options of its format."""


def read_row(name: str, row: Any) -> Dataset:
    """The row `name`, checked without the data.

    Raises:
        ValueError: a key, a format, a rule or a severity is wrong, or the format needs a `source`; the message says what is right.
    """
    where = f"datasets.{name}"
    row = dict(mapping(row, where))
    if isinstance(row.get("audit"), Mapping):  # YAML reads a bare off as false
        row["audit"] = {kind: "off" if severity is False else severity for kind, severity in row["audit"].items()}
    if "format" not in row:
        choices = ", ".join(components.names("datasets"))
        raise ValueError(f"{where}.format: missing. Choices: {choices}.")
    layout = str(row["format"])
    try:
        components.check_name("datasets", layout)
    except ValueError as error:
        raise ValueError(f"{where}.format: {error}") from error
    takes = components.options("datasets", layout, "scan", fixed=("raw",))
    drawn = components.options("datasets", layout, "generate", fixed=("raw",))
    takes += [n for n in drawn if n not in (*takes, "seed")]
    components.check_options(row, [*OWN, *takes], where=where)
    options = {key: value for key, value in row.items() if key not in OWN}
    dataset: Dataset = make(Dataset, {**{k: row[k] for k in OWN if k in row}, "name": name, "options": options}, where, choices={})
    if dataset.source is None and not drawn and components.is_empty("datasets", layout, "SOURCES"):
        raise ValueError(
            f"{where}.source: missing; the format {layout!r} reads your own data: write the path of its folder or archive"
        )
    _check_rules(dataset, where)
    return dataset


def _check_rules(dataset: Dataset, where: str) -> None:
    if dataset.splits is not None:
        splits.check_rule(dataset.splits, where=f"{where}.splits")
    splits.check_stand_in(mapping(dataset.stand_in, f"{where}.stand_in"), where=f"{where}.stand_in")
    class_map.check(mapping(dataset.class_map, f"{where}.class_map"), where=f"{where}.class_map")
    accepted: Mapping[str, Any] = mapping(dataset.audit, f"{where}.audit")
    components.check_options(accepted, KINDS, where=f"{where}.audit")
    for kind, severity in accepted.items():
        if severity not in SEVERITIES:
            raise ValueError(f"{where}.audit.{kind}: {severity!r}; choices: {', '.join(SEVERITIES)}")
