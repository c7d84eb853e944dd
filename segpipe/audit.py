"""What is wrong with a dataset: findings collected over all samples, reported at once instead of one per run.

An error makes the data unusable or silently wrong, and stops convert before it replaces anything; a warning is recorded in
audit.json and shown.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

ERROR, WARNING = "error", "warning"
MAX_EXAMPLES = 5


@dataclass(kw_only=True)
class Finding:
    """One kind of fault: how often it was met, in which files, and what mends it. `count` is in the unit that `what` names."""

    kind: str
    severity: str
    what: str
    fix: str
    count: int = 0
    examples: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        more = f" and {self.count - len(self.examples)} more" if self.count > len(self.examples) else ""
        return f"{self.severity}: {self.what}: {', '.join(self.examples)}{more}. {self.fix}"


class AuditError(ValueError):
    """The data cannot be converted; the message lists every error with its files, its value and what mends it."""

    def __init__(self, name: str, findings: list[Finding]) -> None:
        self.findings = findings
        super().__init__("\n".join([f"{name}: {len(findings)} kinds of error in the data", *(f"  {f}" for f in findings)]))


class Audit:
    """Collects findings. Those of the same kind and the same words are one finding with more examples."""

    def __init__(self) -> None:
        self._findings: dict[tuple[str, str], Finding] = {}

    def add(self, kind: str, what: str, *, example: str, fix: str, severity: str = ERROR) -> None:
        """Record one occurrence. `what` says what is wrong, with the value; `example` names the file."""
        finding = self._findings.setdefault((kind, what), Finding(kind=kind, severity=severity, what=what, fix=fix))
        finding.count += 1
        if len(finding.examples) < MAX_EXAMPLES:
            finding.examples.append(example)

    @property
    def findings(self) -> list[Finding]:
        """Errors first, else in the order of discovery."""
        return sorted(self._findings.values(), key=lambda f: f.severity != ERROR)

    @property
    def errors(self) -> list[Finding]:
        return [f for f in self.findings if f.severity == ERROR]

    def check(self, name: str) -> None:
        """Raise AuditError if there are errors; `name` is the dataset's."""
        if self.errors:
            raise AuditError(name, self.errors)

    def write(self, path: Path) -> None:
        """Write the findings as JSON."""
        path.write_text(json.dumps({"findings": [asdict(f) for f in self.findings]}, indent=1) + "\n")


def check_ids(audit: Audit, ids: Iterable[tuple[str, str]]) -> None:
    """Record every id that two samples share; `ids` holds (id, file)."""
    first: dict[str, str] = {}
    for name, source in ids:
        if name in first:
            fix = "Ids must be unique in the whole dataset, over all splits: rename one of the files."
            audit.add("duplicate_id", f"the id {name!r} is taken twice", example=f"{first[name]} and {source}", fix=fix)
        first.setdefault(name, source)
