"""The shape of the code: import order, sizes, and what must not be in it."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# A module may import from its own layer (without cycles) and from those above it.
LAYERS = [
    "errors config names",
    "runtime.*",
    "ops.*",
    "data.*",
    "networks.*",
    "surrogates.*",
    "clusters.*",
    "protections.*",
    "files.*",
    "victims.*",
    "comparison.*",
    "photos.*",
    "report.* exports.* planning.*",
    "main __main__ cli.* api results __init__",
]
WITHOUT_JAX = [
    "ucjax.data.sources",
    "ucjax.data.images",
    "ucjax.files.verification",
    "ucjax.main",
    "ucjax.cli.command",
    "ucjax.cli.verify",
    "ucjax.cli.survives",
    "ucjax.files.survival",
    "ucjax.exports.export",
    "ucjax.cli.export",
]
TRAINING_LOOPS = {"ucjax/protections/uc/training.py:train", "ucjax/victims/training.py:train_stack"}
UNPICKLER = "tools/convert_efficientnet_lite0.py"  # of a checksummed file, never imported
UNSAFE_MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve"}


def python_files(*folders: str) -> list[Path]:
    return sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py"))


@cache
def parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(ROOT / "ucjax").with_suffix("").parts)


MODULES = {module_name(file): file for file in python_files("ucjax")}


def layer(module: str) -> int:
    found = [i for i, names in enumerate(LAYERS) if any(fnmatch(module, n) for n in names.split())]
    assert found, f"ucjax.{module} is in no layer: add it to LAYERS in {Path(__file__).name}"
    return found[0]


def resolve(name: str) -> str:
    """The module of ours that a dotted name ends in: `ucjax.data.images.ImageSet` → data.images."""
    parts = name.split(".")[1:]
    for end in range(len(parts), -1, -1):
        stem = ".".join(parts[:end])
        for candidate in (stem, f"{stem}.__init__".lstrip(".")):
            if candidate in MODULES:
                return candidate
    raise AssertionError(f"{name} is no module of ucjax")


def imported_names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            dots, name = "." * node.level, node.module or ""
            yield from (f"{dots}{name}.{alias.name}" for alias in node.names)


def imports(module: str) -> set[str]:
    names = imported_names(parse(MODULES[module]))
    return {resolve(name) for name in names if name.split(".")[0] == "ucjax"} - {module}


def functions(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Names and lengths in lines, without the docstring."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1
            if ast.get_docstring(node) is not None:
                lines -= node.body[0].end_lineno - node.body[0].lineno + 1
            yield node.name, lines


def test_this_file_sees_the_code():
    assert {
        "main",
        "clusters.kmeans",
        "data.images",
        "victims.training",
        "surrogates.__init__",
    } <= set(MODULES)
    assert imports("clusters.kmeans") == {
        "clusters.lloyd",
        "clusters.seeding",
        "runtime.parallel",
        "errors",
    }
    assert resolve("ucjax.__version__") == "__init__"
    assert layer("surrogates.clip") < layer("protections.uc.training") < layer("victims.training")


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module):
    wrong = [name for name in imports(module) if layer(name) > layer(module)]
    assert not wrong, f"ucjax.{module} imports {wrong} of a later layer (see LAYERS)"


def test_no_import_cycles():
    TopologicalSorter({module: imports(module) for module in MODULES}).prepare()


def test_imports_are_absolute():
    for module, file in MODULES.items():
        relative = [name for name in imported_names(parse(file)) if name.startswith(".")]
        assert not relative, f"ucjax.{module} imports {relative}"


def test_what_must_start_fast_does_not_import_jax():
    program = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    if "jax" in sys.modules:
        sys.exit(f"{name} imports jax")
"""
    command = [sys.executable, "-c", program, *WITHOUT_JAX]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_files_and_functions_stay_small():
    too_long = []
    for file in python_files("ucjax", "configs", "launch", "benchmarks", "tools", "tests"):
        name = file.relative_to(ROOT).as_posix()
        if (lines := len(file.read_text(encoding="utf-8").splitlines())) > 450:
            too_long.append(f"{name} has {lines} lines, at most 450")
        if name.startswith("configs/") or name == "ucjax/config.py":
            continue  # a list of values
        for function, lines in functions(parse(file)):
            limit = 80 if f"{name}:{function}" in TRAINING_LOOPS else 50
            if lines > limit:
                too_long.append(f"{name}:{function} has {lines} lines, at most {limit}")
    assert not too_long, "\n".join(too_long)


def unsafe(tree: ast.AST) -> Iterator[str]:
    for name in imported_names(tree):
        if name.split(".")[0] in UNSAFE_MODULES:
            yield f"imports {name}"
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id in {"eval", "exec"}:
            yield f"calls {node.func.id} in line {node.lineno}"
        if any(keyword.arg == "allow_pickle" for keyword in node.keywords):
            yield f"may allow pickles in line {node.lineno}"


def test_nothing_read_from_disk_is_executed():
    found = [
        f"{name} {what}"
        for file in python_files("ucjax", "configs", "launch", "benchmarks", "tools")
        if (name := file.relative_to(ROOT).as_posix()) != UNPICKLER
        for what in unsafe(parse(file))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "line",
    ["import pickle", "from pickle import loads", "eval(x)", "exec(x)", "load(allow_pickle=True)"],
)
def test_unsafe_lines_are_seen(line):
    assert list(unsafe(ast.parse(line)))
