"""Whatever a tokenizer or processor of transformers may read travels with a model."""

from __future__ import annotations

import contextlib

import pytest
import transformers
from support import architectures
from support.exports import bntools

from bntools.core.model import side_files
from bntools.core.model.open import open_model


def vocabularies():
    """Names of the files that the tokenizers of transformers read."""
    found = set()
    for name in dir(transformers):
        if name.endswith(("Tokenizer", "TokenizerFast")):
            with contextlib.suppress(ImportError):  # one that wants a library that is not here
                found |= set((getattr(getattr(transformers, name), "vocab_files_names", None) or {}).values())
    return sorted(name for name in found if isinstance(name, str))


PROCESSORS = (
    "preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json", "chat_template.json",
    "additional_chat_templates/tool_use.jinja", "sentencepiece.bpe.model", "spiece.model", "source.spm",
)  # fmt: skip


def test_every_file_of_a_tokenizer_or_processor_is_among_them(tmp_path):
    names = {
        *vocabularies(),
        *PROCESSORS,
        "config.json",
        "README.md",
        "model.safetensors",
        "trainer_state.json",
    }
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    left = {"config.json", "README.md", "model.safetensors", "trainer_state.json"}
    assert names - set(side_files.read(tmp_path)) == left


@pytest.mark.parametrize("to", ["file", "folder/"])
def test_they_come_out_as_they_went_in(to, tmp_path, capsys):
    model = tmp_path / "m"
    architectures.save(architectures.tiny("LlamaForCausalLM"), model)
    (model / "additional_chat_templates").mkdir()
    for name in PROCESSORS:
        (model / name).write_text(f"content of {name}")
    (model / "modeling_own.py").write_text("pass")
    before = open_model(str(model)).files
    for _ in range(2):  # the second time over what is there
        assert bntools("quantize", model, "-f", "-o", f"{tmp_path}/{to}") == 0
    assert "modeling_own.py" in capsys.readouterr().err
    after = open_model(f"{tmp_path}/{to}").files
    assert {name: after.get(name) for name in before} == before
    assert bntools("export", f"{tmp_path}/{to}", "-o", f"{tmp_path}/dense/") == 0
    assert (tmp_path / "dense/additional_chat_templates/tool_use.jinja").read_text() == (
        "content of additional_chat_templates/tool_use.jinja"
    )
