"""Fetch, verify and unpack the source of one dataset, or generate it: `python -m stages.download <dataset>`."""

import sys
from pathlib import Path

from segpipe import components, download
from segpipe.params import read_params


def main() -> None:
    key = sys.argv[1]
    params = read_params()
    row = params.datasets[key]
    module = components.load("datasets", row.format)
    out = Path("data/raw") / key
    if hasattr(module, "generate") and row.source is None:
        takes = components.options("datasets", row.format, "generate", fixed=("raw", "seed"))
        options = {name: value for name, value in row.options.items() if name in takes}
        download.generate(out, module.generate, name=row.format, seed=params.seed, options=options)
    else:
        cache = Path(".cache/download") / key
        download.download(out, name=key, sources=module.SOURCES, source=row.source, cache=cache, progress=report)
    files = [path for path in out.rglob("*") if path.is_file()]
    print(f"{key}: {len(files)} files, {sum(path.stat().st_size for path in files) / 1e6:.1f} MB in {out}")


def report(what: str, done: int, total: int | None) -> None:
    """Print how far one transfer is."""
    share = f" of {total / 1e6:.1f} ({100 * done / total:.0f} %)" if total else ""
    print(f"{what}: {done / 1e6:.1f}{share} MB", flush=True)


if __name__ == "__main__":
    main()
