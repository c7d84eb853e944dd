"""The source layout of one dataset becomes Arrow shards; every mask is audited: `python -m stages.convert <dataset>`."""

import sys
from pathlib import Path

from segpipe import components
from segpipe.audit import AuditError
from segpipe.convert import convert
from segpipe.params import read_params


def main() -> None:
    key = sys.argv[1]
    row = read_params().datasets[key]
    module = components.load("datasets", row.format)
    takes = components.options("datasets", row.format, "scan", fixed=("raw",))
    raw, out = Path("data/raw") / key, Path("data/converted") / key
    scan = module.scan(raw, **{name: value for name, value in row.options.items() if name in takes})
    try:
        info, audit = convert(raw, out, name=key, scan=scan, load=module.load, stand_ins=row.stand_in, progress=report)
    except AuditError as error:
        raise SystemExit(f"\n{error}\n") from None  # the findings, not a traceback
    for finding in audit.findings:
        print(finding)
    train = info.pixels["train"]
    shares = ", ".join(f"{c.name} {100 * n / sum(train):.2g} %" for c, n in zip(info.classes, train, strict=True))
    print(f"{key}: {', '.join(f'{n} {split}' for split, n in info.splits.items())} samples in {out}")
    print(f"{key}: pixels of train: {shares}")


def report(done: int, total: int) -> None:
    """Print a line at every tenth of the work."""
    if done * 10 // total > (done - 1) * 10 // total:
        print(f"converted {done} of {total}", flush=True)


if __name__ == "__main__":
    main()
