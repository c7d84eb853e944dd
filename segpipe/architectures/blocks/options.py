"""Checks on the options of `build`: a wrong value names the right ones."""

import difflib
from collections.abc import Iterable


def one_of(value: object, choices: Iterable[str | int], *, name: str) -> None:
    """Raise ValueError, with the closest choice and all of them, unless `value` is one of `choices`."""
    choices = list(choices)
    if value in choices and not isinstance(value, bool):
        return
    close = difflib.get_close_matches(str(value), [str(choice) for choice in choices], n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(f"{name}: {value!r}.{hint} Choices: {', '.join(str(choice) for choice in choices)}.")


def positive(value: object, *, name: str) -> None:
    """Raise ValueError unless `value` is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}: {value!r} must be a whole number of at least 1")


def probability(value: object, *, name: str) -> None:
    """Raise ValueError unless 0 <= `value` < 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ValueError(f"{name}: {value!r} must be at least 0 and below 1")


def flag(value: object, *, name: str) -> None:
    """Raise ValueError unless `value` is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}: {value!r} must be true or false")
