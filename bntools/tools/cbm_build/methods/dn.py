"""Discover-then-name (DN-CBM, arXiv 2407.14499): concepts are the latents of a sparse autoencoder, named afterwards.

A latent is named after the word of a vocabulary whose embedding has the largest cosine with its decoder row; a name
never changes the bottleneck. Faults of the published form: every latent is named however far its word is, and its l1
probe by Adam has no exact zero. Here names below a cosine are left open, with the cosine and the margin to the second
word in the report, and the head is the exactly sparse one; its ridge penalty is sought among larger ones, since codes
have heavy tails.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bntools.core.errors import bad_input
from bntools.core.methods.cbm.bottleneck import Floats, unit
from bntools.core.methods.cbm.inputs import Embeddings, same_width
from bntools.core.progress import Progress
from bntools.tools.cbm_build.banks.bank import Bank, numbered
from bntools.tools.cbm_build.methods import labo
from bntools.tools.cbm_build.settings import Settings
from bntools.tools.cbm_build.training import Head, Training

L2 = (1.0, 0.3, 0.1, 0.03, 0.01)
_BLOCK = 512


class Naming(NamedTuple):
    """words [m, 3] by their index, nearest first, and their cosines [m, 3]."""

    words: NDArray[np.int64]
    cosines: Floats


def fit(training: Training, settings: Settings, progress: Progress) -> Head:
    return labo.sparse(training, settings, progress, L2)


def concept_layer(
    dictionary: Any, vocabulary: Embeddings | None, embeddings: Floats, threshold: float
) -> tuple[Bank, list[dict[str, Any]]]:
    """The latents that any row uses, and of each its nearest words and the share of rows that use it.

    dictionary: of core.methods.sparse_dictionary. Its codes are the encoder's, also where it
    names pursuit. Raises BnError (exit 3) for a gated one, and where widths differ or no latent is used.
    """
    same_width(dictionary.D.shape[1], embeddings.shape[1], (dictionary.label, "the data"))
    vectors, offsets, activation, theta = _encoder(dictionary)
    bank = Bank(vectors, offsets, [str(k) for k in range(len(vectors))], None,
                np.full((len(vectors), 2), np.nan, np.float32), activation, theta)  # fmt: skip
    used = np.zeros(len(vectors))
    for start in range(0, len(embeddings), _BLOCK):
        used += (bank.raw(embeddings[start : start + _BLOCK]) > 0).sum(0)
    live = np.flatnonzero(used)
    if not len(live):
        raise bad_input(
            f"{dictionary.label} has no latent that a row uses", "is it of another encoder or layer?"
        )
    names, quality = _names(dictionary.D[live], vocabulary, live, threshold)
    for entry, count in zip(quality, used[live], strict=True):
        entry["active"] = float(count / len(embeddings))
    bank = bank.at(live)
    return Bank(bank.vectors, bank.offsets, names, None, bank.levels, activation, bank.theta), quality


def _encoder(dictionary: Any) -> tuple[Floats, Floats, str, Floats | None]:
    """z = act(E (x - mean) / scale - E bd + be) as directions of x, offsets, and the activation."""
    method, scale = dictionary.method, np.float32(dictionary.scale)
    if method == "gated":
        hint = "a dictionary of method topk, batchtopk, relu, jumprelu or matryoshka"
        raise bad_input(f"{dictionary.label}: codes of a gated encoder", hint)
    vectors = dictionary.E / scale
    offsets = dictionary.be - dictionary.E @ dictionary.bd - vectors @ dictionary.mean
    if method == "topk":
        return vectors, offsets, f"topk:{dictionary.k}", None
    theta = np.zeros(len(vectors), np.float32) if dictionary.theta is None else dictionary.theta
    return vectors, offsets, "threshold", theta.astype(np.float32)


def nearest(directions: Floats, words: Floats) -> Naming:
    """The three words with the largest cosine with each direction, ties to the earlier one."""
    words, directions = unit(words).astype(np.float32), unit(directions).astype(np.float32)
    order, cosines = [], []
    for start in range(0, len(directions), _BLOCK):
        block = directions[start : start + _BLOCK] @ words.T
        order.append(np.argsort(-block, 1, kind="stable")[:, :3])
        cosines.append(np.take_along_axis(block, order[-1], 1))
    return Naming(np.concatenate(order), np.concatenate(cosines))


def _names(
    directions: Floats, vocabulary: Embeddings | None, live: NDArray[np.int64], threshold: float
) -> tuple[list[str], list[dict[str, Any]]]:
    if vocabulary is None:
        return [f"latent {k}" for k in live], [{"concept": f"latent {k}", "latent": int(k)} for k in live]
    same_width(directions.shape[1], vocabulary.x.shape[1], ("the dictionary", vocabulary.label))
    if len(vocabulary.names) != len(vocabulary.x):
        raise bad_input(
            f"{vocabulary.label} has no names", "bntools embed writes the words beside their embeddings"
        )
    naming = nearest(directions, vocabulary.x)
    words = [[vocabulary.names[i] for i in row] for row in naming.words]
    good = naming.cosines[:, 0] >= threshold
    names = numbered([w[0] if ok else f"latent {k}" for w, ok, k in zip(words, good, live, strict=True)])
    margin = naming.cosines[:, 0] - naming.cosines[:, min(1, naming.cosines.shape[1] - 1)]
    return names, [
        {"concept": name, "latent": int(k), "named": bool(ok), "words": near, "cosine": float(cosine[0]),
         "margin": float(gap)}
        for name, k, ok, near, cosine, gap in zip(names, live, good, words, naming.cosines, margin, strict=True)
    ]  # fmt: skip
