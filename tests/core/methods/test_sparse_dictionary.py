"""A dictionary comes back from its file, and a row's codes do not depend on the rows beside it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bntools.core.artifact.reader import open_path
from bntools.core.artifact.writer import Writer
from bntools.core.errors import BnError
from bntools.core.methods import saelens, sparse_codes, sparse_probes, sparse_scores
from bntools.core.methods import sparse_dictionary as sd
from bntools.core.methods.sparse_dictionary import Inference

M, D_IN, K = 40, 16, 4
METHODS = ["topk", "batchtopk", "relu", "jumprelu", "gated"]


def make(method: str = "topk", seed: int = 0, scale: float = 2.5) -> sd.Dictionary:
    rng = np.random.default_rng(seed)
    D = rng.standard_normal((M, D_IN)).astype(np.float32)
    D /= np.linalg.norm(D, axis=1, keepdims=True)
    theta = rng.uniform(0.3, 0.8, M).astype(np.float32) if method in sd.THRESHOLDED else None
    gate = rng.standard_normal((2, M)).astype(np.float32) * np.float32(0.1) if method == "gated" else None
    facts = {"method": method, "k": K, "m": M, "d": D_IN, "layer": 1, "site": "resid", "sha256": "ab" * 32}
    return sd.Dictionary(
        D + rng.standard_normal(D.shape).astype(np.float32) * np.float32(0.05),
        rng.standard_normal(M).astype(np.float32) * np.float32(0.1), D,
        rng.standard_normal(D_IN).astype(np.float32) * np.float32(0.1), rng.standard_normal(D_IN).astype(np.float32),
        scale, facts, theta, gate, np.arange(M),
    )  # fmt: skip


def rows(count: int = 60, seed: int = 1):
    return (3 * np.random.default_rng(seed).standard_normal((count, D_IN))).astype(np.float32)


def save(path, dictionary):
    with Writer(str(path), sd.KIND, force=True) as out:
        sd.write(out, dictionary)
    return path


def same(one, other) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_a_dictionary_comes_back_and_encodes_alike(tmp_path, method):
    dictionary = make(method)
    back = sd.read(open_path(save(tmp_path / "s", dictionary)))
    assert back.facts == dictionary.facts
    x = rows()
    assert same(dictionary.encode(x), back.encode(x))
    assert np.array_equal(dictionary.decode(dictionary.encode(x)), back.decode(back.encode(x)))


@pytest.mark.parametrize("how", [Inference(0, K), Inference(12, K)])
def test_a_row_has_the_same_codes_whatever_stands_beside_it(how):
    dictionary, x = make(), rows(70)
    whole = dictionary.encode(x, how)
    for a, b in ((0, 1), (13, 40), (69, 70)):
        part = dictionary.encode(x[a:b], how)
        ends = whole.indptr[a : b + 1]
        assert np.array_equal(part.indptr, ends - ends[0])
        assert np.array_equal(part.latents, whole.latents[ends[0] : ends[-1]])
        assert part.values.tobytes() == whole.values[ends[0] : ends[-1]].tobytes()


def test_pursuit_explains_more_than_the_encoder_at_the_same_number_of_latents():
    dictionary, x = make(), rows(300)
    by = [
        sparse_scores.score(dictionary, x, how)[0]["fvu"]["value"]
        for how in (Inference(0, K), Inference(M - 1, K))
    ]
    assert by[1] < by[0]


def test_decoding_and_encoding_again_finds_the_same_codes():
    dictionary = make()
    dictionary.E, dictionary.be = dictionary.D, np.zeros(M, np.float32)
    codes = dictionary.encode(rows(50), Inference(M - 1, 2))
    again = dictionary.encode(dictionary.decode(codes), Inference(M - 1, 2))
    assert np.array_equal(codes.indptr, again.indptr)
    assert np.allclose(dictionary.decode(codes), dictionary.decode(again), atol=1e-4)


def test_a_complete_orthogonal_dictionary_leaves_nothing():
    dictionary = make()
    q = np.linalg.qr(np.random.default_rng(0).standard_normal((D_IN, D_IN)))[0].astype(np.float32)
    D = np.concatenate([q, -q])
    dictionary.D = dictionary.E = D
    dictionary.be, dictionary.facts = (
        np.zeros(2 * D_IN, np.float32),
        {**dictionary.facts, "k": D_IN, "m": 2 * D_IN},
    )
    x = rows()
    assert sparse_scores.unexplained(x, dictionary.decode(dictionary.encode(x)))["value"] < 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_saelens_layout_gives_the_same_rows(tmp_path, method):
    dictionary = make(method)
    arrays, config = saelens.arrays_of(dictionary)
    with Writer(str(tmp_path / saelens.WEIGHTS), "tensors") as out:
        for name, tensor in arrays.items():
            out.add(name, tensor)
    (tmp_path / saelens.CONFIG).write_bytes(saelens.config_text(config))
    back = saelens.read_folder(tmp_path)
    x = rows()
    ours, theirs = dictionary.encode(x, Inference(0, K)), back.encode(x)
    assert np.allclose(dictionary.decode(ours), back.decode(theirs), atol=1e-4)
    assert np.allclose(ours.values * dictionary.scale, theirs.values, atol=1e-3)


def test_saelens_forward_by_its_own_equations_is_ours():
    dictionary = make("relu")
    arrays, _ = saelens.arrays_of(dictionary)
    x = torch.from_numpy(rows())
    codes = torch.relu((x - arrays["b_dec"]) @ arrays["W_enc"] + arrays["b_enc"])
    theirs = codes @ arrays["W_dec"] + arrays["b_dec"]
    ours = dictionary.decode(dictionary.encode(x.numpy(), Inference(0, K)))
    assert np.allclose(ours, theirs, atol=1e-4)


def test_codes_come_back_with_their_columns(tmp_path):
    dictionary, x = make(), rows(30)
    codes = dictionary.encode(x)
    columns = {"label": np.arange(30), "names": [f"n{i}" for i in range(30)]}
    with Writer(str(tmp_path / "c"), sparse_codes.KIND) as out:
        sparse_codes.write(out, [sparse_codes.CodePiece(codes, columns)], {"a": 1}, K, "float32")
    opened = sparse_codes.Codes(open_path(tmp_path / "c"))
    pieces = list(opened.batches(M, 7))
    assert np.concatenate([p.columns["label"] for p in pieces]).tolist() == list(range(30))
    decoded = np.concatenate([dictionary.decode(p.codes) for p in pieces])
    assert np.allclose(decoded, dictionary.decode(codes), atol=1e-5)
    with pytest.raises(BnError, match="the dictionary has 3"):
        list(opened.batches(3))


@pytest.mark.parametrize(("how", "number"), [("+", 2.0), ("=", 1.5), ("*", 0.0)])
def test_an_edit_changes_one_code_and_nothing_else(how, number):
    dictionary, x = make(), rows()
    codes = dictionary.encode(x)
    decoded = dictionary.decode_normalised(codes)
    full = sparse_probes.dense(codes, np.arange(len(x)), M)
    sparse_codes.edit(decoded, dictionary.D, codes, (7, how, number))
    full[:, 7] = {"+": full[:, 7] + number, "=": np.full(len(x), number), "*": full[:, 7] * number}[how]
    assert np.allclose(decoded, full @ dictionary.D + dictionary.bd, atol=1e-4)


def test_probes_find_a_label_in_its_latent_and_foreign_rows_stand_out():
    dictionary = make()
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 600)
    x = (dictionary.mean + dictionary.scale * (labels[:, None] * 4 * dictionary.D[3])).astype(np.float32)
    x += rng.standard_normal(x.shape).astype(np.float32) * np.float32(0.1)
    codes = dictionary.encode(x)
    report = sparse_probes.probe(dictionary, x, codes, labels)
    assert report["codes"]["1"] > 0.95
    assert report["raw"] > 0.95
    outside = (50 * rng.standard_normal((200, D_IN))).astype(np.float32)
    found = sparse_probes.foreign(dictionary, (x, codes), (outside, dictionary.encode(outside)))
    assert found["mahalanobis"] > 0.99
    assert sparse_probes.auroc(np.zeros(5), np.zeros(4)) == 0.5
    assert sparse_probes.stability(dictionary, dictionary)["matched_cosine"] == pytest.approx(1, abs=1e-5)


def test_damaged_dictionaries_are_refused(tmp_path):
    dictionary = make("batchtopk")
    dictionary.theta = None
    with pytest.raises(BnError, match="lacks its thresholds"):
        sd.read(open_path(save(tmp_path / "s", dictionary)))
    dictionary = make()
    dictionary.D = dictionary.D * np.float32(np.nan)
    with pytest.raises(BnError, match="not finite"):
        sd.read(open_path(save(tmp_path / "s", dictionary)))
    dictionary = make()
    dictionary.be = dictionary.be[:-1]
    with pytest.raises(BnError, match=r"enc\.bias"):
        sd.read(open_path(save(tmp_path / "s", dictionary)))


def test_rows_of_another_place_are_refused_unless_forced():
    dictionary = make()
    for facts, width in (({"layer": 2}, D_IN), ({"site": "mlp"}, D_IN), ({"sha256": "cd"}, D_IN)):
        with pytest.raises(BnError) as error:
            sd.check_fits(dictionary, facts, width, "rows", force=False)
        assert error.value.code == 3
        sd.check_fits(dictionary, facts, width, "rows", force=True)
    with pytest.raises(BnError, match="rows of 7 numbers"):
        sd.check_fits(dictionary, {}, 7, "rows", force=True)
