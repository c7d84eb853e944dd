"""Every file in segpipe/datasets keeps the contract of segpipe/datasets/__init__.py."""

import inspect
from pathlib import Path

import pytest

from segpipe import components
from segpipe.layout import Source

NAMES = components.names("datasets")


@pytest.mark.parametrize("name", NAMES)
def test_contract(name: str, tmp_path: Path) -> None:
    module = components.load("datasets", name)
    assert module.__doc__
    assert all(isinstance(source, Source) and source.licence for source in module.SOURCES)
    assert all(source.urls or source.manual for source in module.SOURCES), "nothing says how to get this file"
    assert list(inspect.signature(module.scan).parameters)[0] == "raw"
    assert list(inspect.signature(module.load).parameters) == ["item"]
    assert module.SOURCES or hasattr(module, "generate"), "neither sources nor a generator"
    for function in (module.scan, getattr(module, "generate", module.scan)):
        options = [n for n in inspect.signature(function).parameters if n not in ("raw", "seed")]
        defaults = inspect.signature(function).parameters
        assert all(defaults[option].default is not inspect.Parameter.empty for option in options), "an option without a default"


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_folder_is_an_error_that_names_a_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=str(tmp_path)):
        components.load("datasets", name).scan(tmp_path)
