"""Fetch and verify the source of one dataset, or generate it: `python -m stages.download <dataset>`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from segpipe import components, download
from segpipe.layout import Source
from segpipe.params import read_params
from stages._transfer_progress import TransferProgress


def main() -> None:
    key = sys.argv[1]
    params = read_params()
    row = params.datasets[key]
    module = components.load("datasets", row.format)
    out, cache = Path("data/raw") / key, Path(".cache/downloads")
    try:
        if hasattr(module, "generate") and row.source is None:
            options = components.chosen("datasets", row.format, "generate", row.options)
            download.generate(out, module.generate, name=row.format, seed=params.seed, options=options)
        else:
            sources = module.SOURCES
            if row.source is None and hasattr(module, "needed"):
                sources = module.needed(**components.chosen("datasets", row.format, "needed", row.options))
            show_terms(sources)
            with TransferProgress() as shown:
                download.download(
                    out, name=key, sources=sources, source=row.source, cache=cache, progress=shown.progress, tell=shown.tell
                )
    except (ValueError, OSError) as error:
        raise SystemExit(f"\n{error}\n") from None  # a sentence that says what to do, not a traceback
    files = [path for path in out.iterdir() if path.is_file()]
    print(f"{key}: {len(files)} files, {sum(path.stat().st_size for path in files) / 1e6:.1f} MB in {out}")


def show_terms(sources: Sequence[Source]) -> None:
    """Print under which terms the files are offered, before any of them is fetched."""
    for terms in dict.fromkeys((s.licence, s.allows) for s in sources):
        names = ", ".join(s.filename for s in sources if (s.licence, s.allows) == terms)
        print(" ".join(["licence of", f"{names}:", *filter(None, terms)]), flush=True)


if __name__ == "__main__":
    main()
