"""The demonstration: WordNet definitions and a static encoder as the sources of a build, and as files."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.artifact.writer import Writer
from bntools.core.methods.cbm.inputs import Embeddings, Truth
from bntools.tools.cbm_build.build import Sources
from bntools.tools.cbm_build.demo import wordnet
from bntools.tools.cbm_build.demo.static_encoder import StaticEncoder


class Demo(NamedTuple):
    """Sources of a build, and rows to score it on with their annotations."""

    sources: Sources
    test: Embeddings
    test_truth: Truth


def demo(folder: str, encoder: str, seed: int) -> Demo:
    """The task of a seed, embedded."""
    task, encode = wordnet.read(folder, seed), StaticEncoder(encoder)
    facts = {"encoder": encode.name, "classes": list(wordnet.CLASSES)}
    train, test = (
        Embeddings(encode(rows.texts), rows.y, rows.texts, facts, label)
        for rows, label in ((task.train, "training definitions"), (task.test, "test definitions"))
    )
    concepts = Embeddings(encode(task.concepts), None, task.concepts, facts, "concepts")
    classes = Embeddings(encode(list(wordnet.CLASSES)), None, list(wordnet.CLASSES), facts, "class names")
    sources = Sources(train, concepts, task.owner, Truth(task.train_truth, task.hypernyms), classes, None)
    return Demo(sources, test, Truth(task.test_truth, task.hypernyms))


def write_files(demo: Demo, folder: str, *, force: bool) -> list[str]:
    """train, test, concepts, classes, train-truth and test-truth as .safetensors in a folder; their paths."""
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    sources = demo.sources
    rows = {
        "train": sources.data,
        "test": demo.test,
        "concepts": sources.concepts,
        "classes": sources.class_embeddings,
    }
    paths = []
    for name, data in rows.items():
        assert data is not None
        paths.append(str(root / f"{name}.safetensors"))
        with Writer(paths[-1], "activations", force=force) as out:
            out.add_raw("x", "F32", data.x.shape, np.ascontiguousarray(data.x, np.float32).tobytes())
            if data.labels is not None:
                out.add_raw("label", "I64", data.labels.shape, data.labels.astype(np.int64).tobytes())
            if name == "concepts" and sources.owner is not None:
                out.add_raw("owner", "I64", sources.owner.shape, sources.owner.tobytes())
            out.files["names.txt"] = "\n".join(data.names).encode()
            out.describe("activations", data.facts)
    for name, truth in (("train-truth", sources.truth), ("test-truth", demo.test_truth)):
        assert truth is not None
        paths.append(str(root / f"{name}.safetensors"))
        _write_truth(paths[-1], truth.present, truth.names, force)
    return paths


def _write_truth(path: str, present: NDArray[np.int8], names: list[str], force: bool) -> None:
    with Writer(path, "annotations", force=force) as out:
        out.add_raw("concept", "I8", present.shape, np.ascontiguousarray(present).tobytes())
        out.files["concepts.txt"] = "\n".join(names).encode()
