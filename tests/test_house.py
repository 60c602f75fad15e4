"""The rules that keep the house tidy: sizes, parameters, names that occur once, every module importable."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections import Counter
from pathlib import Path

import pytest

import bntools

ROOT = Path(bntools.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))
COMPILED = ("numba", "triton")
# Files over a bound when the rule came: none may join them, and none of them may grow.
LONG = {
    "cli.py": 310,
    "core/blockwise/blocks.py": 340,
    "core/packing/entropy.py": 330,
    "kernels/grouped/cpu.py": 360,
    "kernels/ngrams/loops.py": 320,
    "kernels/projections/loops.py": 310,
    "kernels/projections/projections.py": 375,
    "kernels/stack/joint_search.py": 335,
    "tools/stack_compress/build.py": 310,
}
FULL = {
    "tools/bleu_gpu": 16,
    "tools/intrinsic_dim": 17,
    "tools/scale_fit": 15,
    "tools/stack_compress": 13,
}


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_read_in_one_sitting(path):
    name = str(path.relative_to(ROOT))
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONG.get(name, 300)


def test_a_folder_is_taken_in_at_a_glance():
    # a folder `kinds` is a table: one file of a few lines for each kind of artifact, found by its name
    folders = Counter(
        str(path.parent.relative_to(ROOT))
        for path in SOURCES
        if path.name != "__init__.py" and path.parent.name != "kinds"
    )
    crowded = {name: count for name, count in folders.items() if count > FULL.get(name, 12)}
    assert not crowded


def test_a_class_name_means_one_thing_in_core_and_kernels():
    names = Counter(
        node.name
        for room in ("core", "kernels")
        for path in (ROOT / room).rglob("*.py")
        for node in tree_of(path).body
        if isinstance(node, ast.ClassDef)
    )
    assert not [name for name, count in names.items() if count > 1]


def test_steps_and_progress_are_defined_once():
    homes = {
        (name, str(path.relative_to(ROOT)))
        for path in SOURCES
        for node in tree_of(path).body
        for name in (
            [t.id for t in node.targets if isinstance(t, ast.Name)] if isinstance(node, ast.Assign) else []
        )
        if name in ("Progress", "Step")
    }
    # a step of intrinsic-dim is a finished run, and fetch tells names, not counts
    others = {("Step", "tools/intrinsic_dim/execute.py"), ("Progress", "tools/fetch/obtain.py")}
    assert homes - others == {("Progress", "core/progress.py"), ("Step", "core/progress.py")}


@pytest.mark.slow
def test_every_module_can_be_imported():
    """What only a command imports, in its callback, is as sound as the rest."""
    # transformers imports this one when it is imported itself, and its interpreted kernels want a GPU's compiler
    apart = ("bntools.core.resident.transformers_quantizer", "bntools.__main__")
    for module in pkgutil.walk_packages(bntools.__path__, "bntools."):
        if module.name not in apart and not module.name.endswith("_gpu") and not module.name.endswith(".gpu"):
            importlib.import_module(module.name)
