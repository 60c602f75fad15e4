"""Train a tiny policy to answer with BLEU as its only reward, the way GRPO does; the reward is printed as it rises.

A prompt is four letters, the wanted answer is the same letters reversed. The policy sees the prompt and the place
it writes to, samples a group of answers, and every answer is pushed by how much better than its group it scored.
Runs on one CPU core in seconds: python examples/reward_bleu.py
"""

from __future__ import annotations

import json

import torch
from torch import nn

from bntools.tools.bleu_gpu import BleuReward

LETTERS, LENGTH, PROMPTS, GROUP, STEPS = 6, 4, 32, 8, 300


def policy() -> nn.Module:
    """Logits [n, LENGTH, LETTERS] of an answer from the letters [n, LENGTH] of a prompt."""
    inner = nn.Sequential(nn.Linear(LETTERS * LENGTH, 64), nn.ReLU(), nn.Linear(64, LETTERS * LENGTH))
    return nn.Sequential(nn.Flatten(), inner, nn.Unflatten(1, (LENGTH, LETTERS)))


def main() -> None:
    torch.manual_seed(0)
    model, reward = policy(), BleuReward("answer", smoothing="floor")
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    history = []
    for step in range(STEPS):
        prompts = torch.randint(LETTERS, (PROMPTS, LENGTH))
        logits = model(nn.functional.one_hot(prompts, LETTERS).float())
        chosen = torch.distributions.Categorical(logits=logits)
        samples = chosen.sample((GROUP,))  # [GROUP, PROMPTS, LENGTH]
        answers = prompts.flip(1).repeat(GROUP, 1).tolist()
        # exactly the call a trainer makes: one float a completion comes back
        scores = reward(prompts=None, completion_ids=samples.flatten(0, 1).tolist(), answer=answers)
        score = torch.tensor(scores).view(GROUP, PROMPTS)
        advantage = (score - score.mean(0)) / (score.std(0) + 1e-4)
        loss = -(advantage[..., None] * chosen.log_prob(samples)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(float(score.mean()))
        if step % 50 == 49:
            print(f"step {step + 1:4d}  mean BLEU {sum(history[-50:]) / 50:.3f}", flush=True)
    print(
        json.dumps(
            {"first": sum(history[:20]) / 20, "last": sum(history[-20:]) / 20, "reward": reward.signature}
        )
    )


if __name__ == "__main__":
    main()
