"""Every file in segpipe/datasets keeps the contract of segpipe/datasets/__init__.py."""

import inspect
from pathlib import Path

import pytest

from segpipe import components
from segpipe.dataset_row import OWN, read_row
from segpipe.layout import Source

NAMES = components.names("datasets")


@pytest.mark.parametrize("name", NAMES)
def test_contract(name: str, tmp_path: Path) -> None:
    module = components.load("datasets", name)
    assert module.__doc__
    assert all(isinstance(source, Source) and source.licence and source.allows for source in module.SOURCES)
    assert all(source.urls or source.manual for source in module.SOURCES), "nothing says how to get this file"
    assert list(inspect.signature(module.scan).parameters)[0] == "raw"
    assert list(inspect.signature(module.load).parameters) == ["item"]
    for function in (module.scan, getattr(module, "generate", module.scan)):
        options = [n for n in inspect.signature(function).parameters if n not in ("raw", "seed")]
        defaults = inspect.signature(function).parameters
        assert all(defaults[option].default is not inspect.Parameter.empty for option in options), "an option without a default"
        assert not set(options) & set(OWN), "an option with the name of a key that every row has"


@pytest.mark.parametrize("name", [name for name in NAMES if hasattr(components.load("datasets", name), "needed")])
def test_needed_files_are_some_of_the_sources_and_its_options_are_those_of_scan(name: str) -> None:
    module = components.load("datasets", name)
    assert set(module.needed()) < set(module.SOURCES)
    assert set(components.options("datasets", name, "needed")) <= set(components.options("datasets", name, "scan"))


@pytest.mark.parametrize("name", NAMES)
def test_a_row_without_source_is_refused_where_there_is_nothing_to_fetch(name: str) -> None:
    module = components.load("datasets", name)
    if module.SOURCES or hasattr(module, "generate"):
        assert read_row("mine", {"format": name}).source is None
    else:
        with pytest.raises(ValueError, match=rf"datasets.mine.source: missing; the format '{name}' reads your own data"):
            read_row("mine", {"format": name})


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_folder_is_an_error_that_names_a_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=str(tmp_path)):
        components.load("datasets", name).scan(tmp_path)
