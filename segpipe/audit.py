"""What is wrong with a dataset: findings collected over all samples, reported at once instead of one per run.

An error makes the data unusable or silently wrong, and stops convert before it replaces anything; a warning is recorded in
audit.json, shown in the terminal and on the dataset's page.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segpipe.finding_kinds import KINDS, settle
from segpipe.layout import ERROR, WARNING, Fault

OFF = "off"
SEVERITIES = (ERROR, WARNING, OFF)
MAX_EXAMPLES = 5
MAX_PICTURES = 3


@dataclass(kw_only=True)
class Finding:
    """One kind of fault: how often it was met, in which files, and what mends it. `count` is in the unit that `what` names.

    `settle` is the line of params.yaml that settles it; `pictures` holds a few (caption, encoded image) for the page.
    """

    kind: str
    severity: str
    what: str
    fix: str
    settle: str = ""
    count: int = 0
    examples: list[str] = field(default_factory=list)
    pictures: list[tuple[str, bytes]] = field(default_factory=list)

    def __str__(self) -> str:
        more = f" and {self.count - len(self.examples)} more" if self.count > len(self.examples) else ""
        return f"{self.severity}: {self.what}: {', '.join(self.examples)}{more}. {self.fix}"

    def row(self) -> dict[str, Any]:
        """The finding for audit.json: all but the pictures."""
        return {key: value for key, value in vars(self).items() if key != "pictures"}


class AuditError(ValueError):
    """The data cannot be converted; the message lists every error with its files, its value and what mends it."""

    def __init__(self, name: str, audit: "Audit", statistics: dict[str, Any]) -> None:
        self.audit, self.findings, self.statistics = audit, audit.errors, statistics
        lines = [f"{name}: {len(self.findings)} kinds of error in the data"]
        for finding in self.findings:
            lines += [f"  {finding}", f"    settled by, if it is meant: {finding.settle}"]
        super().__init__("\n".join(lines))


class Audit:
    """Collects findings. Those of the same kind and the same words are one finding with more examples.

    `severities` gives kinds another severity than their own: error, warning, or off.
    """

    def __init__(self, dataset: str = "", *, severities: Mapping[str, str] | None = None) -> None:
        self._dataset, self._severities = dataset, dict(severities or {})
        self._findings: dict[tuple[str, str], Finding] = {}

    def add(
        self,
        kind: str,
        what: str,
        *,
        example: str,
        fix: str,
        severity: str = ERROR,
        value: str | None = None,
        picture: tuple[str, bytes] | None = None,
        count: int = 1,
    ) -> None:
        """Record `count` occurrences. `what` says what is wrong, with the value; `example` names the file; `value` is the label
        value in question, if one is."""
        assert kind in KINDS, f"segpipe/finding_kinds.py does not list {kind!r}"
        severity = self._severities.get(kind, severity)
        if severity == OFF:
            return
        finding = self._findings.get((kind, what))
        if finding is None:
            line = settle(kind, severity, self._dataset, value=value)
            finding = self._findings[kind, what] = Finding(kind=kind, severity=severity, what=what, fix=fix, settle=line)
        finding.count += count
        if len(finding.examples) < MAX_EXAMPLES and example not in finding.examples:
            finding.examples.append(example)
        if picture is not None and len(finding.pictures) < MAX_PICTURES:
            finding.pictures.append(picture)

    def add_fault(self, fault: Fault, *, value: str | None = None, picture: tuple[str, bytes] | None = None) -> None:
        """Record what a dataset file or the check of one sample found."""
        self.add(
            fault.kind,
            fault.what,
            example=fault.example,
            fix=fault.fix,
            severity=fault.severity,
            value=value,
            picture=picture,
        )

    def __str__(self) -> str:
        return " ".join(str(finding) for finding in self.findings) or "no findings"

    @property
    def findings(self) -> list[Finding]:
        """Errors first, else in the order of discovery."""
        return sorted(self._findings.values(), key=lambda f: f.severity != ERROR)

    @property
    def errors(self) -> list[Finding]:
        return [f for f in self.findings if f.severity == ERROR]

    def write(self, path: Path) -> None:
        """Write the findings as JSON."""
        document = {"dataset": self._dataset, "findings": [f.row() for f in self.findings]}
        path.write_text(json.dumps(document, indent=1) + "\n")


def check_ids(audit: Audit, ids: Iterable[tuple[str, str]]) -> None:
    """Record every id that two samples share; `ids` holds (id, file)."""
    first: dict[str, str] = {}
    for name, source in ids:
        if name in first:
            fix = "Ids must be unique in the whole dataset, over all splits: rename one of the files."
            audit.add("duplicate_id", f"the id {name!r} is taken twice", example=f"{first[name]} and {source}", fix=fix)
        first.setdefault(name, source)
