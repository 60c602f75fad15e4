"""Vector indices beside OPQ, PQ, RaBitQ (faiss) and HNSW (hnswlib): recall by bytes, CPU time by recall.

Three sets: 40,000 WordNet noun glosses embedded by all-MiniLM-L6-v2, with lemma names as queries (`lemma`, shifted)
and with other glosses (`ident`, not shifted); the unembedding of SmolLM2-135M with hidden states (`smol`, strongly
shifted). Test queries are never among the learn queries. Everything in one process and thread; times are CPU seconds,
to be read as ratios. `--data DIR` keeps the embedded sets; `--opq` trains OPQ on smol as well (minutes). `lexicon` has
WordNet's lemmas for words; memory is in vec_index_memory.py.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bntools.core.methods.vector_index.exact import InMemory, exact, exact_scores, recalls
from bntools.core.methods.vector_index.index import Hits
from bntools.core.methods.vector_index.searching import search
from bntools.tools.vec_index import Settings, build_index

SETS = {
    "lemma": ("gloss", "lemma_learn", "lemma_test"),
    "ident": ("gloss", "ident_learn", "ident_test"),
    "smol": ("smol", "smol_learn", "smol_test"),
}


def make_data(folder: Path) -> None:
    """Embed the three sets once; fetched models and texts come from `bntools fetch`."""
    from tokenizers import Tokenizer
    from transformers import AutoModel, AutoModelForCausalLM

    from bntools.core.text.documents import default_text
    from bntools.tools.fetch.obtain import fetch

    for name in ("wordnet", "minilm", "smollm2"):
        if not (folder / name).exists():
            fetch(name, folder / name)
    table = (folder / "wordnet" / "glosses.tsv").read_text().splitlines()[1:]
    nouns = [row.split("\t") for row in table if row.split("\t")[1] == "n"]
    order = np.random.default_rng(0).permutation(len(nouns))
    base, other = [nouns[i] for i in order[:40_000]], [nouns[i] for i in order[40_000:42_500]]
    lemmas = list(dict.fromkeys(row[3].split(" ")[0].replace("_", " ") for row in base))[:7000]
    tokenizer = Tokenizer.from_file(str(folder / "minilm" / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(32)
    encoder = AutoModel.from_pretrained(folder / "minilm", dtype=torch.bfloat16).eval()

    def embed(texts: list[str]) -> np.ndarray:
        ids = [tokenizer.encode(text).ids for text in texts]
        rows = np.empty((len(ids), 384), np.float16)
        by_length = np.argsort([len(i) for i in ids], kind="stable")
        for start in range(0, len(ids), 256):
            part = by_length[start : start + 256]
            longest = max(len(ids[i]) for i in part)
            padded = torch.tensor([ids[i] + [0] * (longest - len(ids[i])) for i in part])
            mask = torch.tensor([[1] * len(ids[i]) + [0] * (longest - len(ids[i])) for i in part])
            with torch.inference_mode():
                hidden = encoder(input_ids=padded, attention_mask=mask).last_hidden_state.float()
            mean = (hidden * mask[..., None]).sum(1)
            rows[part] = torch.nn.functional.normalize(mean, dim=1).half().numpy()
        return rows

    names, held, glosses = embed(lemmas), embed([r[5] for r in other]), embed([r[5] for r in base])
    parts = {"gloss": glosses, "lemma_learn": names[:6000], "lemma_test": names[6000:],
             "ident_learn": held[:1500], "ident_test": held[1500:]}  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(folder / "smollm2", dtype=torch.float32).eval()
    parts["smol"] = model.get_output_embeddings().weight.detach().half().numpy()
    words = Tokenizer.from_file(str(folder / "smollm2" / "tokenizer.json"))
    for name, text, count in (("smol_learn", "calib", 3584), ("smol_test", "eval", 1000)):
        ids = words.encode(default_text(text)).ids[:count]
        with torch.inference_mode():
            states = [
                model.model(torch.tensor([ids[i : i + 512]])).last_hidden_state[0]
                for i in range(0, count, 512)
            ]
        parts[name] = torch.cat(states).half().numpy()
    for name, rows in parts.items():
        np.save(folder / f"{name}.npy", rows)


class Task:
    """One set: vectors, learn and test queries, and how good rows are as answers to the test queries."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.base, self.learn, self.test = (
            np.load(folder / f"{f}.npy").astype(np.float32) for f in SETS[name]
        )
        self.truth = exact(InMemory(self.base), self.test, 10, "ip")

    def recall(self, rows: np.ndarray) -> float:
        scores = exact_scores(InMemory(self.base), self.test, rows, "ip")
        return float(recalls(rows, self.truth, scores).mean())

    def show(self, what: str, size: float, rows: np.ndarray, note: str = "") -> None:
        both = self.recall(rows[:, :10]), self.recall(rows[:, :50])
        print(
            f"{self.name:6s} {what:34s} {size:5.0f} bytes  @10 {both[0]:.3f}  in 50 {both[1]:.3f}  {note}",
            flush=True,
        )

    def ours(self, depth: int = 50, note: bool = True, **given: Any) -> tuple[Any, float]:
        began = time.process_time()
        index = build_index(InMemory(self.base), self.learn, Settings(**given), silent)
        seconds = time.process_time() - began
        hits = search(index, self.test, depth)
        self.show(f"{index.facts['method']}, {given.get('code', 'vq')}", index.bytes_per_vector(), hits.rows,
                  f"{seconds:.1f} s" if note else "")  # fmt: skip
        return index, seconds

    def theirs(self, factory: str) -> float:
        import faiss  # pyright: ignore[reportMissingImports]

        faiss.omp_set_num_threads(1)
        began = time.process_time()
        other = faiss.index_factory(self.base.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        other.train(self.base)
        other.add(self.base)
        seconds = time.process_time() - began
        self.show(factory, other.sa_code_size(), other.search(self.test, 50)[1], f"{seconds:.1f} s")
        return seconds


@contextlib.contextmanager
def silent(what: str, total: int) -> Iterator[Callable[[int], None]]:
    yield lambda count: None


def cpu(job: Callable[[], Any], times: int = 3) -> float:
    """Least CPU seconds of a few runs."""
    spent = []
    for _ in range(times):
        began = time.process_time()
        job()
        spent.append(time.process_time() - began)
    return min(spent)


def speed(task: Task) -> None:
    """CPU a query at recall .95: ours with 96 bytes and an lvq8 copy, hnswlib on float32, exact search at once."""
    import hnswlib  # pyright: ignore[reportMissingImports]

    for size in (48, 96):
        along_graph(task, size)
    index, _ = task.ours(bytes=96, method="sphere", second="lvq8", note=False)
    other = hnswlib.Index(space="ip", dim=task.base.shape[1])
    other.init_index(len(task.base), ef_construction=100, M=16)
    other.add_items(task.base, num_threads=1)
    lines = []
    for probe in (0.1, 0.2, 0.3, 0.4, 0.6, 1.0):

        def run(share: float = probe) -> Hits:
            return search(index, task.test, 10, rerank=40, probe=share)

        lines.append((f"ours, probe {probe}", task.recall(run().rows), cpu(run)))
    for ef in (32, 64, 96, 128, 192):
        other.set_ef(ef)
        rows = other.knn_query(task.test, 10, num_threads=1)[0].astype(np.int64)
        lines.append(
            (
                f"hnswlib, ef {ef}",
                task.recall(rows),
                cpu(lambda: other.knn_query(task.test, 10, num_threads=1)),
            )
        )
    lines.append(
        ("exact, one product", 1.0, cpu(lambda: np.argpartition(-(task.test @ task.base.T), 10, axis=1)))
    )
    for what, found, seconds in lines:
        print(
            f"{task.name:6s} {what:34s} @10 {found:.3f}  {1e6 * seconds / len(task.test):7.0f} us a query",
            flush=True,
        )


def along_graph(task: Task, size: int) -> None:
    """CPU a query along the graph, re-ranked by lvq8, map and all."""
    index, seconds = task.ours(bytes=size, method="sphere", second="lvq8", graph=True, note=False)
    links, ef = index.facts["graph_bytes_per_vector"], index.facts["ef"]
    print(
        f"{task.name:6s} graph over {size} bytes: built in {seconds:.1f} s of CPU, {links} bytes of links, ef {ef}"
    )
    for ef in (24, 32, 48, 64, 96, 128, 192, 256):

        def run(kept: int = ef) -> Hits:
            return search(index, task.test, 10, rerank=min(50, kept), ef=kept)

        print(f"{task.name:6s} {f'ours, {size} bytes, ef {ef}':34s} @10 {task.recall(run().rows):.3f}  "
              f"{1e6 * cpu(run) / len(task.test):7.0f} us a query", flush=True)  # fmt: skip


def words(task: Task) -> None:
    """The lexicon of lemmas beside the dense code of as many bytes."""
    from bntools.core.methods.vector_index import lexicon
    from bntools.tools.vec_index.lexicon import LexiconSettings, build_lexicon

    for kept in (16, 32):
        began = time.process_time()
        index = build_lexicon(task.base, task.learn, task.learn, LexiconSettings("ip", kept, kept), silent)
        seconds = time.process_time() - began
        hits = lexicon.search(index, task.test, 50)
        note = f"{seconds:.1f} s, {index.facts['postings_per_query']:.3f} postings a query / n"
        task.show(f"lexicon, {kept} words", index.bytes_per_vector(), hits.rows, note)
        plain = index.facts["untrained"]
        print(f"{task.name:6s} {f'untrained, {kept} words':34s} {plain['bytes_per_vector']:5.0f} bytes  held out @10 "
              f"{plain['recall']:.3f}  {plain['postings_per_query']:.3f} postings a query / n", flush=True)  # fmt: skip
        spent = cpu(lambda found=index: lexicon.search(found, task.test, 10)) / len(task.test)
        print(f"{task.name:6s} {f'lexicon, {kept} words':34s} {1e6 * spent:7.0f} us a query", flush=True)
        task.ours(bytes=round(index.bytes_per_vector()), method="sphere", note=False)


def promises(task: Task) -> None:
    """What --recall promises on queries held out, and what test queries measure."""
    for wanted in (0.8, 0.9):
        index = build_index(InMemory(task.base), task.learn, Settings(recall=wanted, method="sphere"), silent)
        measured = task.recall(search(index, task.test, 10).rows)
        held = index.facts["recall_heldout"]["mean"]
        print(f"{task.name:6s} promised {wanted}  held out {held:.3f}  measured {measured:.3f}  "
              f"{index.bytes_per_vector():.0f} bytes", flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("vectors"))
    parser.add_argument("--parts", default="recall,maps,opq,speed,promises,lexicon")
    parser.add_argument("--opq", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.data.mkdir(exist_ok=True)
    if not (given.data / "smol_test.npy").exists():
        make_data(given.data)
    lemma, ident, smol = (Task(name, given.data) for name in SETS)
    lemma.ours(bytes=16, method="sphere", note=False)  # compile
    parts = given.parts.split(",")
    if "recall" in parts:
        for code in ("bits", "vq"):
            for task, sizes in ((lemma, (48, 96)), (ident, (48, 96)), (smol, (76, 138, 220))):
                for size in sizes:
                    task.ours(bytes=size, code=code, method="sphere")
        for task, names in ((lemma, ("PQ48", "RR384,RaBitQ", "RR384,RaBitQ2")), (ident, ("PQ48", "RR384,RaBitQ")),
                            (smol, ("PQ72", "RR576,RaBitQ", "RR576,RaBitQ2", "RR576,RaBitQ4"))):  # fmt: skip
            for name in names:
                task.theirs(name)
    if "maps" in parts:
        for task in (lemma, smol):
            for method in ("leanvec-id", "leanvec-es", "sphere", "leanvec-fw"):
                task.ours(dims=96 if task is lemma else 128, code="f16", method=method)
            task.ours(bytes=48 if task is lemma else 76, method="leanvec-id")
    if "opq" in parts:
        lemma.ours(bytes=48, method="sphere")
        lemma.theirs("OPQ48,PQ48")
        ident.ours(bytes=48)
        if given.opq:
            smol.theirs("OPQ72,PQ72")
    if "speed" in parts:
        speed(lemma)
    if "lexicon" in parts:
        words(lemma)
    if "promises" in parts:
        promises(lemma)
        promises(smol)


if __name__ == "__main__":
    main()
