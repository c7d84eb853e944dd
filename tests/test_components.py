"""Plug-ins are found by their file's name, and a wrong name is answered with the right ones."""

import inspect

import pytest

from segpipe import components


@pytest.mark.parametrize("kind", components.KINDS)
def test_load_gives_the_module_of_that_name(kind: str) -> None:
    for name in components.names(kind):
        assert components.load(kind, name).__name__ == f"segpipe.{kind}.{name}"


def test_a_wrong_name_lists_the_right_ones_and_the_file_to_create() -> None:
    with pytest.raises(ValueError, match=r"no 'unett'.*Did you mean 'unet'.*segnet.*create segpipe/architectures/unett.py"):
        components.load("architectures", "unett")


def test_options_are_read_from_the_text_as_python_reads_them() -> None:
    """For every plug-in: what the text says is what the imported function takes."""
    for kind, function in {"architectures": "build", "losses": "build", "datasets": "scan"}.items():
        for name in components.names(kind):
            taken = list(inspect.signature(getattr(components.load(kind, name), function)).parameters)
            assert components.options(kind, name, function) == taken
            assert components.options(kind, name, function, fixed=taken[:1]) == taken[1:]
    assert components.options("losses", "dice", "no_such_function") == []


def test_an_unknown_option_names_where_and_the_choices() -> None:
    with pytest.raises(
        ValueError, match=r"experiments.a.options.widht: unknown key. Did you mean 'width'\? Known keys: width, variant"
    ):
        components.check_options({"widht": 3}, ["width", "variant"], where="experiments.a.options")
