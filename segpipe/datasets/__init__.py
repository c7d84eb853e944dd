"""One file per source layout. The contract of `segpipe/datasets/<name>.py`:

- `SOURCES: tuple[Source, ...]`: what `download` fetches when the row in params.yaml has no `source`; empty for a generated
  dataset, and for a layout of users' own data, which then have to name their `source`.
- `needed(**options) -> tuple[Source, ...]`: only where some options need fewer files than all SOURCES.
- `generate(raw: Path, *, seed: int, **options) -> None`: only in a generated dataset; writes the raw files.
- `scan(raw: Path, **options) -> Scan`: looks at names only, decodes nothing; raises ValueError naming the missing file.
- `load(item: Item) -> Raw`: decodes one sample, in any process; `Raw.labels` holds the source's own label values.

`Source`, `Item`, `Scan` and `Raw` are in `segpipe/layout.py`. The keyword options of `generate` and `scan` are the keys that a
row of `datasets` may have.
"""
