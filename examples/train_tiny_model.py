"""Train the language model that ships with bntools as `default:`.

usage: python examples/train_tiny_model.py TEXTS_DIR OUT_DIR [--minutes 25] [--threads 1] [--steps N]

TEXTS_DIR holds train.txt and eval.txt of make_texts.py. A Llama of 1.3 million weights with grouped-query attention and
widths that leave ragged groups (160, 448), a byte-level BPE of 1024 pieces, AdamW under a cosine schedule, seed 0.
Writes a directory in Hugging Face layout (float16) with a model card that records the losses reached.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM

WINDOW, BATCH, PEAK, SEED = 256, 8, 3e-3, 0
CONFIG = {
    "vocab_size": 1024, "hidden_size": 160, "intermediate_size": 448, "num_hidden_layers": 4, "num_attention_heads": 5,
    "num_key_value_heads": 1, "head_dim": 32, "max_position_embeddings": 256, "tie_word_embeddings": True,
    "bos_token_id": 0, "eos_token_id": 1, "rms_norm_eps": 1e-5, "attention_bias": False,
}  # fmt: skip


def train_tokenizer(text: str) -> Tokenizer:
    """Byte-level BPE that puts <s> in front of a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=CONFIG["vocab_size"],
        special_tokens=["<s>", "</s>"],
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text.split("\n\n"), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return tokenizer


def batch(ids: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """BATCH random windows, each behind a <s>."""
    starts = torch.randint(len(ids) - WINDOW + 1, (BATCH,), generator=generator)
    rows = torch.stack([ids[start : start + WINDOW - 1] for start in starts.tolist()])
    return torch.cat([torch.zeros(BATCH, 1, dtype=torch.long), rows], 1)


@torch.no_grad()
def held_out(model: LlamaForCausalLM, ids: torch.Tensor) -> float:
    """Mean loss in nats a token over consecutive windows."""
    rows = ids[: len(ids) // (WINDOW - 1) * (WINDOW - 1)].view(-1, WINDOW - 1)
    rows = torch.cat([torch.zeros(len(rows), 1, dtype=torch.long), rows], 1)
    return sum(float(model(input_ids=row[None], labels=row[None]).loss) for row in rows) / len(rows)


def optimize(
    model: LlamaForCausalLM, ids: torch.Tensor, minutes: float, limit: int | None
) -> tuple[int, float]:
    """Train for a time (the schedule follows the clock) or a number of steps; returns steps and smoothed loss."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK, betas=(0.9, 0.95))
    generator = torch.Generator().manual_seed(SEED)
    began, step, smooth = time.monotonic(), 0, 0.0
    while True:
        done = step / limit if limit else (time.monotonic() - began) / 60 / minutes
        if done >= 1:
            return step, smooth
        rate = PEAK * min(1, (step + 1) / 200) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        rows = batch(ids, generator)
        loss = model(input_ids=rows, labels=rows).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        value = float(loss.detach())
        smooth = value if step == 0 else 0.98 * smooth + 0.02 * value
        step += 1
        if step % 200 == 0:
            print(f"step {step}  loss {smooth:.3f}  {100 * done:.0f} %", flush=True)


def sample(model: LlamaForCausalLM, tokenizer: Tokenizer, prompt: str) -> str:
    torch.manual_seed(SEED)
    ids = torch.tensor([tokenizer.encode(prompt).ids])
    out = model.generate(ids, max_new_tokens=90, do_sample=True, temperature=0.7, top_k=40, pad_token_id=1)
    return tokenizer.decode(out[0].tolist())


def save(model: LlamaForCausalLM, tokenizer: Tokenizer, out: Path, card: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "model_max_length": 256,
    }  # fmt: skip
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    (out / "README.md").write_text(card)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("texts", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(SEED)
    text, unseen = ((given.texts / name).read_text(encoding="utf-8") for name in ("train.txt", "eval.txt"))
    tokenizer = train_tokenizer(text)
    ids, test = (torch.tensor(tokenizer.encode(t, add_special_tokens=False).ids) for t in (text, unseen))
    model = LlamaForCausalLM(LlamaConfig(**CONFIG, architectures=["LlamaForCausalLM"]))
    began = time.monotonic()
    steps, last = optimize(model, ids, given.minutes, given.steps)
    model.eval()
    loss = held_out(model, test)
    bits = loss / math.log(2) * len(test) / len(unseen.encode())
    card = CARD.format(
        weights=sum(p.numel() for p in model.parameters()), tokens=len(ids), steps=steps,
        minutes=(time.monotonic() - began) / 60,
        last=last, loss=loss, ppl=math.exp(loss), bits=bits, batch=BATCH * WINDOW, torch=torch.__version__,
        sample=sample(model, tokenizer, "And when the captain").replace("\n", "\n> "),
    )  # fmt: skip
    save(model, tokenizer, given.out, card)
    print(card)


CARD = """# The embedded model

A Llama of {weights:,} weights, float16, for trying tools at once and offline: not for writing anything. Trained by
`examples/train_tiny_model.py` on {tokens:,} tokens of Moby-Dick and the King James Bible (public domain) without the
chapters and books of `eval.txt` and `calib.txt`. The weights are under the Apache License 2.0.

| | |
|---|---|
| steps of {batch} tokens | {steps} |
| minutes, one CPU thread | {minutes:.1f} |
| seed, torch | 0, {torch} |
| training loss, smoothed | {last:.3f} nats a token |
| held-out loss (eval.txt, windows of 256) | {loss:.3f} nats a token, perplexity {ppl:.1f} |
| held-out bits a byte | {bits:.3f} |

A sample at temperature 0.7:

> {sample}
"""

if __name__ == "__main__":
    main()
