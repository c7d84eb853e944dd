"""Plug-ins are found by importing the module of their name: no registry, no list to edit.

`load("architectures", "unet")` is the module `segpipe.architectures.unet`. Files whose name starts with an underscore and
sub-packages are building blocks, not plug-ins.
"""

import ast
import difflib
import importlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

KINDS = ("architectures", "losses", "metrics", "datasets", "tasks")
ROOT = Path(__file__).parent


def names(kind: str) -> list[str]:
    """The names of all plug-ins of `kind`, sorted: one per file in `segpipe/<kind>/`."""
    assert kind in KINDS, f"no such kind of component: {kind}"
    return sorted(path.stem for path in (ROOT / kind).glob("*.py") if not path.stem.startswith("_"))


def load(kind: str, name: str) -> ModuleType:
    """The plug-in module `segpipe.<kind>.<name>`.

    Raises:
        ValueError: no such plug-in; the message lists the right names and the file that would create this one.
    """
    check_name(kind, name)
    return importlib.import_module(f"segpipe.{kind}.{name}")


def check_name(kind: str, name: str) -> None:
    """Raise what `load` would raise for a wrong name, without importing anything."""
    known = names(kind)
    if name not in known:
        raise ValueError(
            f"{kind}: no {name!r}.{suggestion(name, known)} There are: {', '.join(known)}."
            f" To add it, create segpipe/{kind}/{name}.py."
        )


def options(kind: str, name: str, function: str, *, fixed: Iterable[str] = ()) -> list[str]:
    """The keyword arguments of `function` in a plug-in's file, less the `fixed` ones that the pipeline passes itself.

    Read from the file's text: importing every plug-in, and torch with them, would cost each stage seconds. A plug-in without
    that function has no options.
    """
    for node in ast.parse((ROOT / kind / f"{name}.py").read_text()).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            arguments = [argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)]
            return [argument for argument in arguments if argument not in set(fixed)]
    return []


def chosen(kind: str, name: str, function: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `values` that `function` in a plug-in's file takes as keyword arguments."""
    takes = options(kind, name, function)
    return {key: value for key, value in values.items() if key in takes}


def is_empty(kind: str, name: str, constant: str) -> bool:
    """Whether a plug-in's file sets `constant` to an empty tuple. Read from the file's text, like `options`."""
    for node in ast.parse((ROOT / kind / f"{name}.py").read_text()).body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == constant for target in targets):
                return isinstance(node.value, ast.Tuple) and not node.value.elts
    return False


def check_options(options: Mapping[str, Any], allowed: Iterable[str], *, where: str) -> None:
    """Raise ValueError for the first key of `options` that is not `allowed`; the message names `where` and the choices."""
    allowed = list(allowed)
    for key in options:
        if key not in allowed:
            choices = ", ".join(allowed) if allowed else "none"
            raise ValueError(f"{where}.{key}: unknown key.{suggestion(key, allowed)} Known keys: {choices}.")


def suggestion(word: str, choices: Iterable[str]) -> str:
    """' Did you mean X?' where one of the choices is close to `word`, else ''."""
    close = difflib.get_close_matches(str(word), list(choices), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""
