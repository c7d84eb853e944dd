"""Imports point one way, plug-ins stand alone, engines look nothing up, the library neither prints nor reads the environment."""

import ast
from pathlib import Path

import pytest

from segpipe import components
from tests.imports import ROOT, imported_modules

LIBRARY = sorted((ROOT / "segpipe").rglob("*.py"))
ALL = [*LIBRARY, *sorted((ROOT / "stages").glob("*.py")), *sorted((ROOT / "flows").glob("*.py"))]
ENGINES = (
    "training",
    "failures",
    "inference.py",
    "evaluation.py",
    "comparison.py",
    "model_scores.py",
    "model_pairs.py",
    "agreement.py",
    "audit.py",
    "convert.py",
    "items.py",
    "download.py",
)
FOREIGN = {"torch", "torchvision", "numpy"}
SIBLINGS = {
    "architectures": ("segpipe.architectures.blocks",),
    "losses": ("segpipe.losses",),
    "metrics": ("segpipe.metrics",),
    "datasets": ("segpipe.layout", "segpipe.shards", "segpipe.datasets"),
    "tasks": ("segpipe.losses",),
}
# What reading a source's files may need, and the library that one adapter adapts.
EXTRAS = {
    "datasets": {"cv2", "scipy", "PIL", "pandas", "pycocotools", "h5py", "nibabel", "yaml"},
    "architectures": {"segmentation_models_pytorch", "timm"},
}


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", ALL, ids=relative)
def test_imports_point_one_way(path: Path) -> None:
    tops = {name.partition(".")[0] for name in imported_modules(path)}
    room = path.relative_to(ROOT).parts[0]
    if room == "segpipe":
        assert not tops & {"stages", "flows", "dvc", "prefect"}
    if room == "stages":
        assert not tops & {"flows", "dvc", "prefect", "mlflow"}
    if room == "flows":
        assert not tops & {"segpipe", "stages", "torch", "numpy", "cv2", "dvc"}
    if ROOT / "segpipe/tracking" not in path.parents:
        assert "mlflow" not in tops, "segpipe/tracking is the only MLflow import"


@pytest.mark.parametrize("path", [p for p in LIBRARY if p.parent.name in SIBLINGS], ids=relative)
def test_a_plug_in_imports_only_its_siblings(path: Path) -> None:
    kind = path.parent.name
    import sys

    for name in imported_modules(path):
        top = name.partition(".")[0]
        if top == "segpipe":
            assert name.startswith(SIBLINGS[kind]), f"{relative(path)} imports {name}"
        else:
            allowed = FOREIGN | EXTRAS.get(kind, set())
            assert top in allowed or top in sys.stdlib_module_names, f"{relative(path)} imports {name}"


@pytest.mark.parametrize("path", [p for p in LIBRARY if p.relative_to(ROOT / "segpipe").parts[0] in ENGINES], ids=relative)
def test_an_engine_looks_nothing_up(path: Path) -> None:
    assert "segpipe.components" not in imported_modules(path)
    assert "segpipe.params" not in imported_modules(path)


@pytest.mark.parametrize("path", [p for p in LIBRARY if p.name != "cli.py"], ids=relative)
def test_the_library_neither_prints_nor_reads_the_environment(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called != "print", f"{relative(path)}:{node.lineno} prints"
            assert called not in ("os.getenv", "os.environ.get"), f"{relative(path)}:{node.lineno} reads the environment"
            assert called not in ("torch.load", "torch.save", "pickle.load", "pickle.loads", "pickle.dump", "pickle.dumps"), (
                f"{relative(path)}:{node.lineno} pickles"
            )
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
            assert ast.unparse(node.value) != "os.environ", f"{relative(path)}:{node.lineno} reads the environment"


@pytest.mark.parametrize("path", ALL, ids=relative)
def test_files_stay_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 320, f"{relative(path)}: split it"


@pytest.mark.parametrize("stage", sorted((ROOT / "stages").glob("[a-z]*.py")), ids=relative)
def test_a_stage_is_a_short_main(stage: Path) -> None:
    functions = {n.name: n for n in ast.walk(ast.parse(stage.read_text())) if isinstance(n, ast.FunctionDef)}
    main = functions["main"]
    assert main.end_lineno is not None
    assert main.end_lineno - main.lineno < 65, f"{relative(stage)}: main() has over 65 lines"


def test_every_kind_has_plug_ins() -> None:
    for kind in components.KINDS:
        assert components.names(kind), f"segpipe/{kind} is empty"
