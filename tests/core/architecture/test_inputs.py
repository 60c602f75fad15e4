"""What a model can be fed is known before it is fed, whatever its config calls it."""

from __future__ import annotations

import pytest
import torch
from support import architectures
from support.exports import bntools

from bntools.core.architecture import inputs, linears, output_head

LENGTHS = {
    "LlamaForCausalLM": {"max_position_embeddings": 40}, "GPT2LMHeadModel": {"n_positions": 40},
    "OPTForCausalLM": {"max_position_embeddings": 40}, "WhisperForCausalLM": {"max_target_positions": 40},
    "RobertaForCausalLM": {"max_position_embeddings": 42}, "XLMRobertaForCausalLM": {"max_position_embeddings": 42},
    "BartForCausalLM": {"max_position_embeddings": 40}, "BertLMHeadModel": {"max_position_embeddings": 40},
    "OpenAIGPTLMHeadModel": {"n_positions": 40}, "GPTBigCodeForCausalLM": {"n_positions": 40},
    "BioGptForCausalLM": {"max_position_embeddings": 40}, "TrOCRForCausalLM": {"max_position_embeddings": 40},
}  # fmt: skip


@pytest.mark.parametrize("name", LENGTHS)
def test_the_longest_window_is_one_that_the_model_runs(name):
    """And where positions are learned, one token more is too many."""
    model = architectures.tiny(name, **LENGTHS[name])
    config = model.config.to_dict()
    longest = inputs.longest_window(config, 512)
    assert longest == 40
    ids = torch.arange(4, 5 + longest)[None] % 1000 + 4
    model(ids[:, :longest])
    if inputs._learned(config):
        with pytest.raises((IndexError, RuntimeError)):
            model(ids)


@pytest.mark.parametrize("tool", ["eval", "quantize", "stack-compress"])
def test_a_vocabulary_under_the_ids_of_the_tokenizer_is_named_with_both_sizes(tool, tmp_path, capsys):
    architectures.save(architectures.tiny("LlamaForCausalLM", vocab_size=900), tmp_path / "m")
    words = () if tool == "eval" else ("-o", tmp_path / "out")
    words += ("--method", "gptq") if tool == "quantize" else ()
    assert bntools(tool, tmp_path / "m", *words) == 3
    told = capsys.readouterr().err
    assert "1,024 ids" in told
    assert "900 rows" in told


@pytest.mark.parametrize(("size", "code"), [(1024, 0), (1088, 0), (900, 3)])
def test_models_are_compared_where_they_mean_the_same_by_an_id(size, code, tmp_path, capsys):
    """Rows beyond the tokenizer's ids are padding."""
    architectures.save(architectures.tiny("LlamaForCausalLM"), tmp_path / "m")
    architectures.save(architectures.tiny("LlamaForCausalLM", vocab_size=size), tmp_path / "r")
    words = ("--against", tmp_path / "r", "--tokens", 64, "--window", 32, "--json")
    assert bntools("eval", tmp_path / "m", *words) == code
    if code:
        assert "1,024 ids" in capsys.readouterr().err


PAIRS = ("T5ForConditionalGeneration", "BartForConditionalGeneration", "PegasusForConditionalGeneration")


@pytest.mark.parametrize("name", PAIRS)
def test_what_is_not_run_on_one_text_is_refused_in_words(name, tmp_path, capsys):
    architectures.save(architectures.tiny(name), tmp_path / "m")
    lines = (("eval",), ("quantize", "--method", "gptq"), ("quantize", "--code", "entropy"), ("stack-compress",),
             ("quantize", "--calib", "none", "--method", "gptq"))  # fmt: skip
    for tool, *words in lines:
        words += [] if tool == "eval" else ["-o", tmp_path / "out"]
        assert bntools(tool, tmp_path / "m", *words) in (2, 3)
        assert (
            "is an encoder-decoder" in (told := capsys.readouterr().err) or "no causal language model" in told
        )
    assert bntools("quantize", tmp_path / "m", "-o", tmp_path / "out") == 0


HEADS = ("LlamaForCausalLM", "Llama4ForCausalLM", "CohereForCausalLM", "Gemma2ForCausalLM", "GraniteForCausalLM",
         "OPTForCausalLM", "GPT2LMHeadModel", "BertLMHeadModel", "NanoChatForCausalLM",
         "Mamba2ForCausalLM")  # fmt: skip


@pytest.mark.parametrize("name", HEADS)
def test_logits_of_states_are_those_of_the_model(name):
    """Several positions at a time, also where the model scales, caps or transforms on the way."""
    model = architectures.tiny(name)
    ids = torch.arange(4, 16)[None]
    with torch.no_grad():
        wanted = model(ids).logits.float()
        hidden = output_head.states(model, ids)
        found = torch.cat([output_head.own_logits(model)(hidden[:, at : at + 5]) for at in (0, 5, 10)], 1)
    assert torch.allclose(found, wanted, atol=1e-5)
    assert torch.equal(model(ids).logits.float(), wanted)  # the model is as it was


def test_a_multiplier_that_the_fast_form_does_not_know_changes_no_loss(tmp_path, capsys):
    """The fast form is given up for the model's own."""
    from bntools.core.training import distill
    from bntools.tools.eval.text.head import OwnHead, split

    model = architectures.tiny("LlamaForCausalLM")
    plain, forward = model.forward, model.lm_head.forward
    model.forward = lambda *args, **more: halved(plain(*args, **more))
    ids = torch.arange(4, 16)
    with torch.no_grad():
        wanted = model(ids[None]).logits[0]
        hidden = output_head.states(model, ids[None])[0]
        head = split(model)
        assert isinstance(head, OwnHead)
        assert torch.allclose(head.logits(hidden), wanted, atol=1e-5)
        assert torch.allclose(distill.logits_of(model)(hidden), wanted, atol=1e-5)
        assert torch.allclose(
            distill.logits_of(model, lambda x: 2 * forward(x))(hidden), 2 * wanted, atol=1e-5
        )


def halved(out):
    out.logits = out.logits * 0.5
    return out


def test_numbers_are_decoded_at_any_depth():
    told = {"a": [{"b": {"__float__": "-Infinity"}}], "c": {"__float__": "NaN"}, "d": {"__float__": "none"}}
    found = linears.decoded(told)
    assert found["a"][0]["b"] == float("-inf")
    assert found["c"] != found["c"]
    assert found["d"] == told["d"]
