"""Plain mappings become frozen dataclasses, strictly: a wrong key, type or choice is named with the right ones."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from segpipe import components


def mapping(value: Any, where: str) -> Mapping[str, Any]:
    """`value` if it is a mapping; else ValueError."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: {value!r} is not a mapping")
    return value


def make(cls: Any, row: Any, where: str, *, choices: Mapping[str, tuple[str, ...]]) -> Any:
    """Build the dataclass `cls` from `row`; `choices` lists the allowed values of fields that have a fixed few.

    Raises:
        ValueError: an unknown or missing key, a wrong type or choice; the message starts with `where`.
    """
    row = mapping(row, where)
    components.check_options(row, [f.name for f in fields(cls)], where=where)
    values = {}
    for f in fields(cls):
        if f.name in row:
            values[f.name] = typed(row[f.name], f.type, f"{where}.{f.name}")
            allowed = choices.get(f.name)
            if allowed and values[f.name] not in allowed:
                hint = components.suggestion(values[f.name], allowed)
                raise ValueError(f"{where}.{f.name}: {values[f.name]!r}.{hint} Choices: {', '.join(allowed)}.")
        elif f.default is MISSING and f.default_factory is MISSING:
            raise ValueError(f"{where}.{f.name}: missing")
    return cls(**values)


def typed(value: Any, kind: Any, where: str) -> Any:
    """`value` if it is of the simple type `kind`, else ValueError; an int may stand for a float, and a list becomes a tuple."""
    optional = str(kind).endswith("| None")
    if optional and value is None:
        return None
    if kind in (int, int | None) and not (isinstance(value, int) and not isinstance(value, bool)):
        raise ValueError(f"{where}: {value!r} is not a whole number")
    if kind in (float, float | None):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{where}: {value!r} is not a number{_exponent_hint(value)}")
        return float(value)
    if kind is bool and not isinstance(value, bool):
        raise ValueError(f"{where}: {value!r} is not true or false")
    if kind in (str, str | None) and not isinstance(value, str):
        raise ValueError(f"{where}: {value!r} is not a text{_boolean_hint(value)}")
    if isinstance(value, list):
        return tuple(value)
    return value


def _exponent_hint(value: Any) -> str:
    """YAML 1.1 reads 1e-3 as a text; only 1.0e-3 is a number."""
    return " (YAML reads 1e-3 as a text: write 0.001 or 1.0e-3)" if isinstance(value, str) and "e" in value else ""


def _boolean_hint(value: Any) -> str:
    return " (YAML reads on/off/yes/no as true or false: quote it)" if isinstance(value, bool) else ""
