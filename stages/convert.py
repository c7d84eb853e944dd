"""The source layout of one dataset becomes Arrow shards; every mask is audited: `python -m stages.convert <dataset>`."""

import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from segpipe import archives, components
from segpipe.audit import Audit, AuditError
from segpipe.convert import convert
from segpipe.pages.dataset import write_page
from segpipe.params import read_params
from segpipe.shards import DatasetInfo

KILLED = (
    "a worker process was ended from outside, as happens where memory runs out. Nothing was written. Free memory, or let fewer"
    " processes work: `taskset -c 0 dvc repro` takes one"
)


def main() -> None:
    key = sys.argv[1]
    row = read_params().datasets[key]
    module = components.load("datasets", row.format)
    options = components.chosen("datasets", row.format, "scan", row.options)
    raw, scratch, out = Path("data/raw") / key, Path(".cache/raw") / key, Path("data/converted") / key
    page = Path("reports/datasets") / key / "index.html"
    try:
        with archives.opened(raw, scratch) as folder:
            info, audit = convert(
                folder,
                out,
                name=key,
                scan=module.scan(folder, **options),
                load=module.load,
                splits=row.splits,
                stand_ins=row.stand_in,
                classes=row.class_map,
                severities=row.audit,
                progress=report,
            )
    except AuditError as error:
        write_page(page, name=key, audit=error.audit, statistics=error.statistics)
        raise SystemExit(f"\n{error}\nPictures: {page}") from None  # the findings, not a traceback
    except BrokenProcessPool:
        raise SystemExit(f"\n{key}: {KILLED}") from None
    except (ValueError, OSError) as error:
        said = str(error).replace(str(scratch), str(raw)).replace(str(raw), row.source or str(raw))  # scratch is gone by now
        raise SystemExit(f"\n{said}" if "datasets." in said else f"\ndatasets.{key}: {said}") from None
    write_page(page, name=key, audit=audit, statistics=info.statistics, folder=out)
    tell(key, info, audit, out, page)


def tell(key: str, info: DatasetInfo, audit: Audit, out: Path, page: Path) -> None:
    """Print what was found and made."""
    for finding in audit.findings:
        print(f"{finding}\n    settled by, if it is meant: {finding.settle}")
    train = info.pixels["train"]
    shares: list[Any] = sorted(zip(train, info.class_names, strict=True), reverse=True)[:12]
    print(f"{key}: {', '.join(f'{n} {split}' for split, n in info.splits.items())} samples in {out}, pictures in {page}")
    rest = f", and {len(train) - 12} more classes" if len(train) > 12 else ""
    print(f"{key}: pixels of train: {', '.join(f'{name} {100 * n / max(1, sum(train)):.2g} %' for n, name in shares)}{rest}")
    if info.dimensions == 3:
        print(f"{key}: volumes, and the networks read images: to train, set datasets.{key}.slices to the axis to cut across")


def report(done: int, total: int) -> None:
    """Print a line at every tenth of the work."""
    if done * 10 // total > (done - 1) * 10 // total:
        print(f"converted {done} of {total}", flush=True)


if __name__ == "__main__":
    main()
