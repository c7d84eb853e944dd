"""What a file imports, read from its text: for the tests that hold the arrows and DVC's deps."""

import ast
from collections.abc import Collection
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def imported_modules(path: Path) -> set[str]:
    """The dotted names that `path` imports, at any depth of the file; `from a import b` counts as a.b and a."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: import the real module, not a relative one"
            found |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def library_file(module: str) -> Path | None:
    """The file of a module of this repository, or None for anything else (a package counts as its __init__.py)."""
    path = ROOT / Path(*module.split("."))
    if path.with_suffix(".py").exists():
        return path.with_suffix(".py")
    return path / "__init__.py" if (path / "__init__.py").exists() else None


def closure(path: Path, *, stop: Collection[str] = ()) -> set[Path]:
    """All files of this repository that `path` imports, directly or not, itself included; not what the files of `stop` import."""
    todo, seen = [path], set()
    while todo:
        current = todo.pop()
        if current not in seen:
            seen.add(current)
            if str(current.relative_to(ROOT)) in stop:
                continue
            todo += [file for module in imported_modules(current) if (file := library_file(module))]
    return seen
