"""What is done when torch and transformers are imported: they end up as without us, and nothing is imported early."""

from __future__ import annotations

import gc
import importlib
import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from bntools import _transformers
from bntools.core.system import import_hooks
from bntools.core.system.import_hooks import after, around, uncollected

MODULE = "watched"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The name of a module that can be imported; no watch of it is left."""
    (tmp_path / f"{MODULE}.py").write_text("import gc\nsearching = gc.isenabled()\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield MODULE
    sys.modules.pop(MODULE, None)


def test_an_import_is_wrapped_once_however_often_it_was_looked_for_before(module: str):
    seen: list[str] = []
    for _ in range(2):
        after(module, lambda found: seen.append(found.__name__))
    assert importlib.util.find_spec(module) is not None
    assert not seen
    importlib.import_module(module)
    assert seen == [module]
    assert not any(isinstance(f, import_hooks._Watch) and f.name == module for f in sys.meta_path)
    del sys.modules[module]
    importlib.import_module(module)
    assert seen == [module]


def test_other_modules_of_one_loader_are_imported_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with zipfile.ZipFile(tmp_path / "both.zip", "w") as archive:
        for name in ("zipped_one", "zipped_two"):
            archive.writestr(f"{name}.py", "")
    monkeypatch.syspath_prepend(tmp_path / "both.zip")
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    seen: list[str] = []
    after("zipped_one", lambda found: seen.append(found.__name__))
    assert importlib.util.find_spec("zipped_one") is not None
    for name in ("zipped_two", "zipped_one", "zipped_two"):
        importlib.import_module(name)
        del sys.modules[name]
    assert seen == ["zipped_one"]


def test_a_module_that_is_not_there_is_still_not_there(module: str):
    around("watched_and_missing", uncollected())
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("watched_and_missing")


def test_a_module_is_imported_without_searches_for_garbage(module: str):
    around(module, uncollected())
    assert gc.isenabled()
    assert importlib.import_module(module).searching is False
    assert gc.isenabled()


def test_garbage_made_meanwhile_is_found_by_a_full_search_and_what_was_frozen_stays_so():
    class Node:
        alive = 0

        def __init__(self) -> None:
            self.me, Node.alive = self, Node.alive + 1

        def __del__(self) -> None:
            Node.alive -= 1

    with uncollected():
        Node()
        with uncollected():
            Node()
        assert not gc.isenabled()
    assert gc.get_freeze_count() == 0
    gc.collect()
    assert Node.alive == 0
    gc.freeze()
    try:
        before = gc.get_freeze_count()
        with uncollected():
            pass
        assert gc.get_freeze_count() == before
    finally:
        gc.unfreeze()


def test_names_of_every_file_of_models_are_those_that_transformers_finds_itself():
    utilities = pytest.importorskip("transformers.utils.import_utils")
    spec = importlib.util.find_spec("transformers.utils.import_utils")
    assert spec is not None
    assert spec.loader is not None
    plain = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(plain)  # as it is without us: what watches it did its work at its first import
    if not hasattr(plain, "fetch__all__"):
        pytest.skip("this transformers reads its files in another way")
    quick = importlib.util.module_from_spec(spec)
    quick.fetch__all__ = plain.fetch__all__
    _transformers.hasten(quick)
    files = sorted((Path(utilities.__file__).parents[1] / "models").rglob("*.py"))
    texts = [path.read_text(encoding="utf-8") for path in files]
    texts += [
        "",
        '__all__ = ["a"]',
        'x\r\n__all__ = ["a"]\n# __all__\n',
        'y\n__all__ = ["a"]\n\x0c__all__ = ["b"]\n',
    ]
    assert len(files) > 1000
    assert [quick.fetch__all__(text) for text in texts] == [plain.fetch__all__(text) for text in texts]


def test_a_transformers_that_reads_its_files_in_another_way_is_left_as_it_is():
    other = type(sys)("other")
    before = dict(vars(other))
    _transformers.hasten(other)
    assert vars(other) == before


def test_bntools_imports_neither_of_them_and_is_there_when_they_are():
    program = (
        "import sys, bntools\nassert not {'torch', 'transformers', 'numpy'} & set(sys.modules)\n"
        "import torch\nfrom bntools.core.system.import_hooks import _Watch\n"
        "assert 'torch' not in [f.name for f in sys.meta_path if isinstance(f, _Watch)]\n"
        "import gc\nassert gc.isenabled() and torch.ones(2).sum() == 2\n"
        "import transformers.utils.import_utils as found\nfrom transformers import LlamaConfig\n"
        "names = getattr(found, 'fetch__all__', None)\n"
        "assert names is None or names.__module__ == 'bntools._transformers'"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
