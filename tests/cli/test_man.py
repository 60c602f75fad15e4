"""The man pages: complete, in step with the commands, and true where they can be run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import make_model
from safetensors.torch import save_file
from support.entropy_samples import sample

from bntools import _docs
from bntools.core.artifact import header
from bntools.core.artifact.reader import open_path
from bntools.core.errors import BnError
from bntools.core.model.open import open_model
from bntools.core.packing import bitstack, entropy, stack
from bntools.kernels.entropy import dependent_trellis as machine
from bntools.registry import COMMANDS

MAN = Path(__file__).resolve().parents[2] / "man"


def page_path(page):
    """Where `name.section` lies: man/man1, man/man5, man/man7."""
    return MAN / f"man{page[-1]}" / page


PAGES = sorted(path.name for folder in ("man1", "man5", "man7") for path in (MAN / folder).glob("*"))
EVERY_PAGE = {"NAME", "SYNOPSIS", "DESCRIPTION", "ENVIRONMENT", "EXIT STATUS", "EXAMPLES", "SEE ALSO"}
ALSO = {
    "bntools.1": {"INPUT", "THE PIPE", "FILES"},
    "bntools-quantize.1": {"METHOD", "DEFAULTS", "REPORT", "FILES"},
    "bntools-stack-compress.1": {"METHOD", "DEFAULTS", "REPORT"},
    "bntools-eval.1": {"PROTOCOLS", "REFERENCE", "JSON OUTPUT", "TASKS", "DEFAULTS", "FILES"},
    "bntools-bleu-gpu.1": {"JSON OUTPUT"},
    "bntools-scale-fit.1": {"LAWS", "METHOD", "WARNINGS", "JSON OUTPUT", "DEFAULTS"},
    "bntools-data-mix.1": {"METHODS", "JSON OUTPUT", "MEASURED", "DEFAULTS"},
    "bntools-data-dim.1": {"METHOD", "JSON OUTPUT", "DEFAULTS"},
    "bntools-screen.1": {"METHOD", "REPORT", "DEFAULTS"},
    "bntools-sparse-fit.1": {"METHOD", "REPORT", "DEFAULTS"},
    "bntools-mixed-fit.1": {"METHOD", "REPORT", "DEFAULTS"},
    "bntools-kv-compress.1": {"METHOD", "REPORT"},
    "bntools-cbm-build.1": {"METHOD", "REPORT"},
    "bntools-cbm-explain.1": {"REPORT"},
    "bntools-cbm-edit.1": {"REPORT"},
    "bntools-mi.1": {"METHOD", "JSON OUTPUT", "DEFAULTS"},
    "bntools-ib-analyze.1": {"METHOD", "JSON OUTPUT", "DEFAULTS"},
    "bntools-ard-fit.1": {"REPORT", "ARTIFACT", "DEFAULTS"},
    "bntools-info.1": {"JSON OUTPUT"},
    "bntools-export.1": {"FILES"},
    "bntools-fetch.1": {"FILES"},
    "bntools-intrinsic-dim.1": {"METHOD", "JSON OUTPUT", "DEFAULTS", "FILES"},
}
FORMAT_PAGES = {
    "bntools-artifact.5": {
        "NAME", "DESCRIPTION", "BYTE LAYOUT", "METADATA", "SIDE FILES", "ORDER AND ALIGNMENT", "QUANTIZED TENSORS",
        "MANIFEST", "DIRECTORIES", "READING", "WRITING", "EXAMPLES", "SEE ALSO",
    },
    "bntools-entropy.5": {
        "NAME", "DESCRIPTION", "TENSORS", "VALUES", "TRELLIS", "TABLES", "STREAM", "DECODING", "DAMAGE", "EXAMPLES",
        "SEE ALSO",
    },
    "bntools-stack.5": {"NAME", "DESCRIPTION", "LAYOUT", "TENSORS", "VALUES", "METADATA", "READING", "EXAMPLES",
                        "SEE ALSO"},
    "bntools-subspace.5": {"NAME", "DESCRIPTION", "TENSORS", "METADATA", "RANDOM NUMBERS", "SEE ALSO"},
}  # fmt: skip


def read(page: str) -> str:
    return page_path(page).read_text(encoding="utf-8")


def section(page: str, title: str) -> str:
    return read(page).partition(f"\n.Sh {title}\n")[2].partition("\n.Sh ")[0]


def items(text: str) -> set[str]:
    """What the `.It` lines of a text define as literal names."""
    lines = re.findall(r"^\.It Li (.+)$", text, re.MULTILINE)
    return {name for line in lines for name in re.split(r"[ ,]+", line) if name}


def literal_blocks(text: str) -> list[str]:
    """Literal displays with their escapes resolved."""
    blocks = re.findall(r"^\.Bd -literal.*?\n(.*?)^\.Ed$", text, re.MULTILINE | re.DOTALL)
    names = {r"\-": "-", r"\e": "\\", r"\(aq": "'", r"\(dq": '"', r"\&": ""}
    return [re.sub(r"\\(?:[-e&]|\(aq|\(dq)", lambda found: names[found[0]], block) for block in blocks]


def paths(value: object, prefix: str = "") -> Iterator[str]:
    """Dotted paths of the leaves of a report."""
    if not isinstance(value, dict):
        yield prefix
        return
    for key, inner in value.items():
        yield from paths(inner, f"{prefix}.{key}" if prefix else key)


def test_no_page_stands_without_a_command_and_no_command_without_a_page():
    assert {page for page in PAGES if page.endswith(".1")} == {
        "bntools.1",
        *(f"bntools-{n}.1" for n in COMMANDS),
    }
    assert {path.name for path in MAN.iterdir()} <= {"man1", "man5", "man7"}


@pytest.mark.parametrize("page", PAGES)
def test_a_reader_finds_every_section_that_belongs_in_a_page(page):
    found = set(re.findall(r"^\.Sh (.+)$", read(page), re.MULTILINE))
    if page[-1] in "57":
        assert found >= {"NAME", "DESCRIPTION", "SEE ALSO"} | FORMAT_PAGES.get(page, set())
        return
    options = set() if page == "bntools.1" else {"OPTIONS"}
    assert found >= EVERY_PAGE | ALSO.get(page, set()) | options


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed: apt-get install groff")
@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("columns", [80, 100])
def test_groff_shows_every_section_of_a_page_and_says_nothing(page, columns):
    """A word that is a macro, such as the names Li and Bo, can end a page in the middle."""
    done = subprocess.run(
        ["groff", "-mandoc", "-Tutf8", "-ww", "-P-c", f"-rLL={columns}n", str(page_path(page))],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    shown = re.sub(r".\x08", "", done.stdout)
    for title in re.findall(r"^\.Sh (.+)$", read(page), re.MULTILINE):
        assert re.search(rf"^{re.escape(title)}$", shown, re.MULTILINE), title


@pytest.mark.parametrize("page", PAGES)
def test_every_page_a_page_refers_to_exists(page):
    for name, number in re.findall(r"^\.Xr (bntools\S*) (\d)", read(page), re.MULTILINE):
        assert page_path(f"{name}.{number}").is_file()


def test_options_and_completions_are_what_the_commands_say():
    for path, text in _docs.files().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run python -m bntools._docs"


@pytest.mark.parametrize("page", PAGES)
def test_mandoc_finds_nothing_to_warn_of(page):
    if not shutil.which("mandoc"):
        pytest.skip("mandoc is not installed: apt-get install mandoc")
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", str(page_path(page))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout


def test_every_exit_status_a_tool_can_give_is_documented():
    codes = set(re.findall(r"^\.It (\d+)", section("bntools.1", "EXIT STATUS"), re.MULTILINE))
    assert codes >= {"0", "1", "2", "3", "4", "5", "130", "141"}


def test_every_environment_variable_an_option_reads_is_documented():
    text = section("bntools.1", "ENVIRONMENT")
    wanted = {p.envvar for c in COMMANDS.values() for p in c.params if isinstance(p.envvar, str)}
    assert wanted
    assert all(name in text for name in wanted)


@pytest.fixture(scope="module")
def stream(run) -> bytes:
    done = run("quantize", "default:", "--bits", 3, "--dim", "ada")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_every_key_of_an_eval_report_is_documented(run, stream, tmp_path):
    tasks = tmp_path / "few.jsonl"
    lines = [{"question": f"{n} and 1?", "choices": [str(n + 1), "a whale"], "answer": "A"} for n in range(3)]
    tasks.write_text("\n".join(map(json.dumps, lines)))
    known = items(section("bntools-eval.1", "JSON OUTPUT"))
    seen: set[str] = set()
    for protocol, more in (("gptq", ("--tasks", tasks)), ("lmeval", ("--text", page_path("bntools.1")))):
        words = ("eval", "--protocol", protocol, "--tokens", 500, *more)
        done = run(*words, data=stream, XDG_CACHE_HOME=str(tmp_path))
        assert done.returncode == 0, done.stderr
        seen |= set(paths(json.loads(done.stdout)))
    assert seen <= known
    # what no such run shows: several tasks, encoders, and networks scored on data
    unseen = {"tasks.tasks", "sentences", "similarity_rms_error"}
    unseen |= {"rows", "accuracy.value", "accuracy.se", "largest_class", "parameters"}
    unseen |= {"points", "weights_bytes"}  # of --curve, below
    assert {name for name in known - seen if not name.startswith("cosine.")} == unseen


@pytest.mark.slow
def test_every_key_of_a_quantize_report_and_of_its_table_is_documented(stream, tmp_path):
    path = tmp_path / "q.safetensors"
    path.write_bytes(stream)
    model = open_model(str(path))
    report = {key: value for key, value in model.report.items() if key not in ("dims", "skipped", "settings")}
    known = items(section("bntools-quantize.1", "REPORT"))
    assert {*paths(report), "dims", "skipped", "settings"} <= known
    assert set(model.report["settings"]) - {"grid"} <= set(
        page_path("bntools-quantize.1").read_text().split()
    )
    table = json.loads(model.files["quantization.json"])
    format_page = items(section("bntools-artifact.5", "QUANTIZED TENSORS"))
    for spec in table["tensors"].values():
        assert set(paths(spec)) - {"shape"} <= known | format_page
    assert set(model.history[0]) <= items(section("bntools-artifact.5", "METADATA"))


@pytest.mark.slow
def test_every_key_of_an_info_report_is_documented(run, stream):
    report = json.loads(run("info", "--modules", "--tensors", data=stream).stdout)
    known = items(section("bntools-info.1", "JSON OUTPUT"))
    opaque = {"types", "dims", "report"}
    shallow = {key: None if key in opaque else value for key, value in report.items()}
    assert set(paths(shallow)) <= known


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("llama", ("--dim", "oc")),
        ("llama", ("--dim", "ic", "--symmetric")),
        ("gpt2", ("--dim", "oc", "--symmetric")),
        ("gpt2", ("--dim", "ic")),
        ("gpt_oss", ("--dim", "ic")),
        ("gpt_oss", ("--group-size", -1)),
        ("gpt2", ("--balance",)),
        ("gpt_oss", ("--balance",)),
    ],
)
def test_the_python_example_of_the_format_page_reads_what_bntools_reads(run, tmp_path, kind, words):
    """Per-OC and per-IC, transposed storage, stacks of experts: with nothing of bntools imported."""
    make_model(kind, tmp_path / "m", dtype="bfloat16")
    path = tmp_path / "q.safetensors"
    done = run("quantize", tmp_path / "m", "--bits", 3, "--group-size", 24, *words, "-o", path)
    assert done.returncode == 0, done.stderr
    source = next(b for b in literal_blocks(section("bntools-artifact.5", "EXAMPLES")) if "import" in b)
    assert "bntools" not in re.findall(r"^(?:import|from) (\w+)", source, re.MULTILINE)
    names: dict = {}
    exec(compile(source, "bntools-artifact.5", "exec"), names)
    model = open_model(str(path))
    assert len(model.packing) >= 4
    for name in model.packing:
        ours = model.tensor(name, torch.float32)
        assert torch.equal(torch.from_numpy(names["read_weight"](str(path), name).copy()), ours)


@pytest.mark.slow
@pytest.mark.parametrize("trellis", [False, True])
@pytest.mark.parametrize("transposed", [False, True])
def test_the_decoder_of_the_entropy_page_reads_what_bntools_reads(tmp_path, trellis, transposed):
    coded, spec, tables = sample(40, 70, trellis, seed=1, transposed=transposed, lane=13)
    dumped, stream = entropy.dump_tables(tables), entropy.encode(coded, spec, tables)
    tensors = {
        "bntools.file/quantization.json": json.dumps(
            {"version": 1, "tensors": {"w": spec.as_json()}}
        ).encode(),
        entropy.TABLES: dumped,
        spec.part_names("w")[0]: stream,
    }
    path = str(tmp_path / "q.safetensors")
    save_file({n: torch.frombuffer(bytearray(data), dtype=torch.uint8) for n, data in tensors.items()}, path)
    source = next(b for b in literal_blocks(section("bntools-entropy.5", "EXAMPLES")) if "import" in b)
    assert "bntools" not in re.findall(r"^(?:import|from) (\w+)", source, re.MULTILINE)
    names: dict = {}
    exec(compile(source, "bntools-entropy.5", "exec"), names)
    ours = entropy.Decoder(dumped).dense("w", spec, stream, torch.float32)
    assert torch.equal(torch.from_numpy(names["read_weight"](path, "w").copy()), ours)


@pytest.fixture(scope="module")
def stacked(tmp_path_factory) -> Path:
    """A small model with a head of its own, transposed storage and an odd number of inputs in places, as a stack."""
    from click.testing import CliRunner

    from bntools.cli import bntools

    path = tmp_path_factory.mktemp("stacked") / "s.safetensors"
    words = [
        "stack-compress",
        "default:",
        "--calib-tokens",
        "2048",
        "--curve",
        "2",
        "--planes",
        "2",
        "-q",
        "-o",
        str(path),
    ]
    done = CliRunner().invoke(bntools, words, standalone_mode=False)
    assert done.exception is None, done.exception
    return path


def stack_decoder() -> dict:
    """What the example of the stack page defines."""
    names: dict = {}
    for page in ("bntools-entropy.5", "bntools-stack.5"):
        source = next(b for b in literal_blocks(section(page, "EXAMPLES")) if "import" in b)
        assert "bntools" not in re.findall(r"^(?:import|from) (\w+)", source, re.MULTILINE)
        exec(compile(source, page, "exec"), names)
    return names


@pytest.mark.slow
def test_the_decoder_of_the_stack_page_reads_any_prefix_as_bntools_reads_it(stacked):
    names = stack_decoder()
    data = stacked.read_bytes()
    with open_path(stacked) as opened:
        base = opened.header.base_bytes
    for size in (base, (base + len(data)) // 2 + 1, len(data)):
        model = open_model(str(stacked), size)
        for name in ("model.layers.1.self_attn.k_proj.weight", "model.layers.2.mlp.down_proj.weight"):
            ours = model.tensor(name, torch.float32)
            assert torch.equal(torch.from_numpy(names["read_weight"](data[:size], name).copy()), ours)


@pytest.mark.slow
@pytest.mark.parametrize("trellis", [0, 1, 2])
@pytest.mark.parametrize("transposed", [False, True])
def test_the_decoder_of_the_stack_page_reads_planes_of_a_trellis_code(tmp_path, trellis, transposed):
    coded, base, tables = sample(40, 70, False, seed=1, transposed=transposed, lane=13)
    spec, rng = stack.spec(base, planes=4, band=17, trellis=trellis), np.random.default_rng(0)
    table = {"version": 1, "tensors": {"w": spec.as_json()}}
    tensors = {
        "bntools.file/quantization.json": json.dumps(table).encode(),
        entropy.TABLES: entropy.dump_tables(tables),
        "w.stream": entropy.encode(coded, spec, tables),
    }
    for name in spec.block_names("w"):
        rows = len(spec.band_rows(int(name.rpartition("/")[2])))
        tensors[name] = rng.bytes(rows * spec.width)
    ends = np.cumsum([len(data) for data in tensors.values()]).tolist()
    entries = [
        header.Entry(name, "U8", (len(data),), end - len(data), end)
        for (name, data), end in zip(tensors.items(), ends, strict=True)
    ]
    path = tmp_path / "s.safetensors"
    path.write_bytes(header.encode({"bntools.kind": "stack"}, entries) + b"".join(tensors.values()))
    decoder, names = entropy.Decoder(tensors[entropy.TABLES]), stack_decoder()
    whole = stack.Base.of(decoder.coded("w", spec, tensors["w.stream"]), decoder.tables.shrink, spec.octave)
    size = path.stat().st_size
    blocks = size - ends[-1] + ends[2]
    for limit in (*range(blocks, size, (size - blocks) // 5), size):
        with open_path(path, limit) as found:
            parts = {name: found.part(name) for name in found.entries}
        planes = stack.Planes.read("w", spec, lambda name, parts=parts: parts.get(name, b""))
        theirs = names["read_weight"](path.read_bytes()[:limit], "w")
        assert np.array_equal(theirs, whole.dense(planes, torch.float32, transposed).numpy())


@pytest.mark.slow
def test_the_decoder_of_bitstack_s_levels_reads_any_prefix_as_bntools_reads_it(tmp_path):
    from click.testing import CliRunner

    from bntools.cli import bntools

    path = tmp_path / "b.safetensors"
    words = ["stack-compress", "default:", "--codec", "bitstack", "--levels", "3", "--calib-tokens", "2048"]
    done = CliRunner().invoke(bntools, [*words, "--curve", "0", "-q", "-o", str(path)], standalone_mode=False)
    assert done.exception is None, done.exception
    blocks = literal_blocks(section("bntools-stack.5", "EXAMPLES"))
    names: dict = {}
    for source in blocks:
        exec(compile(source, "bntools-stack.5", "exec"), names)
    data = path.read_bytes()
    with open_path(path) as opened:
        base = opened.header.base_bytes
    for size in (base, *range(base + 777, len(data), len(data) // 9), len(data)):
        model = open_model(str(path), size)
        for name in ("model.layers.1.self_attn.k_proj.weight", "model.layers.2.mlp.down_proj.weight"):
            ours = model.tensor(name, torch.float32).numpy()
            assert names["read_levels"](data[:size], name) == pytest.approx(ours, rel=1e-4, abs=1e-6)


def test_every_key_of_a_stack_s_reports_is_documented(stacked):
    from click.testing import CliRunner

    from bntools.cli import bntools

    model = open_model(str(stacked))
    report = {key: value for key, value in model.report.items() if key != "settings"}
    known = items(section("bntools-stack-compress.1", "REPORT"))
    settings = {"base", "planes", "embedding", "sort", "seed", "rank", "levels", "scaling", "paper"}
    assert set(paths(report)) | {"settings"} == known - settings
    table = json.loads(model.files["quantization.json"])
    stacked_ = items(section("bntools-stack.5", "TENSORS"))
    levels = {"levels", "rank", "scaled"}
    for spec in table["tensors"].values():
        assert set(spec) == (stacked_ - levels) | items(section("bntools-entropy.5", "TENSORS"))
    assert set(bitstack.BitstackSpec((1, 1), "F16", False, 1, 1, True).as_json()) == stacked_ - {
        "planes",
        "band",
        "trellis",
    }
    words = ["info", str(stacked), "--budget", "1MB", "--blocks", "--against", "default:", "--json"]
    done = CliRunner().invoke(bntools, words, standalone_mode=False)
    assert done.exception is None, done.exception
    found = json.loads(done.stdout)
    text = section("bntools-info.1", "JSON OUTPUT")
    opaque = {"types", "dims", "report"}
    assert set(paths({key: None if key in opaque else value for key, value in found.items()})) <= items(text)
    for key in ("budgets", "blocks", "errors"):
        for name in found[key][0]:
            assert re.search(rf"\b{name}\b", text), name


def test_the_entropy_page_names_every_key_and_the_true_machine():
    assert items(section("bntools-entropy.5", "TENSORS")) == set(sample(3, 4, True)[1].as_json())
    rows = re.findall(r"^\.It (\d) Ta (\d) Ta (\d) Ta (\d)$", section("bntools-entropy.5", "TRELLIS"), re.M)
    assert [list(map(int, row[1:])) for row in rows] == machine.MACHINE.tolist()
    text = section("bntools-entropy.5", "DAMAGE")
    assert entropy._STEEPEST == 127
    assert "likeliest of its table" in text
    assert "127 octaves" in text


@pytest.mark.slow
def test_the_shell_example_of_the_format_page_prints_the_header(run, stream, tmp_path):
    (tmp_path / "q.safetensors").write_bytes(stream)
    source = next(b for b in literal_blocks(section("bntools-artifact.5", "EXAMPLES")) if "od -An" in b)
    done = subprocess.run(["sh", "-c", source], cwd=tmp_path, capture_output=True, check=True)
    assert header.parse(done.stdout).metadata["bntools.kind"] == "model"


def test_the_format_page_names_every_type_and_the_true_limits(tmp_path):
    text = section("bntools-artifact.5", "BYTE LAYOUT")
    assert set(header.BITS) <= set(re.split(r"[\s,.]+", text))
    assert str(header.MAX_HEADER) in text
    assert header.MAX_METADATA == 64 * 1024
    with pytest.raises(BnError, match="over the limit"):
        header.encode({"x": "y" * header.MAX_METADATA}, [])
    # "readers do not mind"
    save_file({"a": torch.zeros(1)}, tmp_path / "big.safetensors", {"x": "y" * 2 * header.MAX_METADATA})
    assert header.parse((tmp_path / "big.safetensors").read_bytes()[8:-4]).entries["a"].nbytes == 4


def test_the_package_installs_every_page_and_completion():
    import tomllib

    project = tomllib.loads((MAN.parent / "pyproject.toml").read_text())
    shared = project["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    assert {f"{path.parent.name}/{path.name}" for path in (MAN.parent / "completions").iterdir()} <= set(
        shared
    )
    assert {f"man/{path.name}" for path in MAN.iterdir()} <= set(shared)
