"""Rows are the model's own states, in the order of the text, whole or in shards."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from bntools.core.datasets.activations import open_activations
from bntools.core.model.open import open_model
from bntools.core.text.tokens import open_tokenizer

TEXT = "It was a dark night. The sea was high, and the men were few.\n\n" * 12


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "t.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture(scope="module")
def tiny():
    model = open_model("default:")
    return model, model.build(torch.float32)


def embed(run, *words, out):
    done = run("embed", *words, "-o", out, "-f")
    assert done.returncode == 0, done.stderr
    return open_activations(str(out))


def states_of(tiny, window: int) -> list[np.ndarray]:
    """output_hidden_states over the windows of the text, rows in order, one array a layer."""
    model, built = tiny
    tokenizer = open_tokenizer(model.files, model.config, "tiny")
    ids, bos = tokenizer.ids(TEXT), tokenizer.window_bos
    body = window - (bos is not None)
    parts = []
    for start in range(0, len(ids), body):
        row = ([] if bos is None else [bos]) + ids[start : start + body]
        if len(ids) - start >= 2:
            with torch.no_grad():
                parts.append(built(torch.tensor([row]), output_hidden_states=True).hidden_states)
    return [np.concatenate([p[layer][0].numpy() for p in parts]) for layer in range(len(parts[0]))]


def test_rows_are_output_hidden_states(run, text, tiny, tmp_path):
    wanted = states_of(tiny, 32)
    last = len(wanted) - 1
    layers = ",".join(str(layer) for layer in range(last))
    done = run(
        "embed",
        "default:",
        "--text",
        text,
        "--layer",
        layers,
        "--window",
        32,
        "--store",
        "float32",
        "-o",
        tmp_path / "a",
    )
    assert done.returncode == 0, done.stderr
    for layer in range(last):
        with open_activations(f"{tmp_path}/a", f"layer.{layer}" if last > 1 else None) as rows:
            assert np.allclose(rows.load()[0], wanted[layer], atol=2e-4)
            assert rows.facts["layer"] == layer


def test_without_a_layer_rows_are_the_models_output(run, text, tiny, tmp_path):
    with embed(
        run, "default:", "--text", text, "--window", 32, "--store", "float32", out=tmp_path / "a"
    ) as rows:
        assert np.allclose(rows.load()[0], states_of(tiny, 32)[-1], atol=2e-4)


def test_the_sites_of_a_block_add_up_to_its_output(run, text, tmp_path):
    found = {}
    for site, layer in (("resid", 0), ("attn", 1), ("mlp", 1), ("resid", 1)):
        words = ("default:", "--text", text, "--layer", layer, "--site", site, "--store", "float32")
        with embed(run, *words, out=tmp_path / "a") as rows:
            found[site, layer] = rows.load()[0]
    total = found["resid", 0] + found["attn", 1] + found["mlp", 1]
    assert np.allclose(total, found["resid", 1], atol=1e-4)


def test_shards_are_one_run_cut(run, tmp_path):
    (tmp_path / "long.txt").write_text(TEXT * 40)
    words = ("default:", "--text", tmp_path / "long.txt", "--layer", 1, "--window", 16)
    (tmp_path / "parts").mkdir()
    for part in range(3):
        embed(run, *words, "--shard", f"{part}/3", out=tmp_path / "parts" / f"{part}.safetensors").close()
    with embed(run, *words, out=tmp_path / "whole") as whole, open_activations(f"{tmp_path}/parts") as parts:
        assert np.array_equal(whole.load()[0], parts.load()[0])
        for name in ("token", "pos", "doc"):
            assert np.array_equal(whole.column(name), parts.column(name))


def test_columns_say_which_token_of_which_document(run, tiny, tmp_path):
    lines = [{"gloss": "a large house"}, {"gloss": "the sea by night"}]
    (tmp_path / "g.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ("default:", "--text", tmp_path / "g.jsonl", "--field", "gloss", "--layer", 1)
    with embed(run, *words, out=tmp_path / "a") as rows:
        tokenizer = open_tokenizer(tiny[0].files, tiny[0].config, "tiny")
        tokens, docs = rows.column("token"), rows.column("doc")
        second = [t for t, d in zip(tokens, docs, strict=True) if d == 1]
        assert tokenizer.inner.decode(second).strip() == "the sea by night"
        assert rows.column("pos").tolist() == list(range(rows.rows))
    with embed(run, *words, "--per", "document", "--normalize", out=tmp_path / "b") as rows:
        assert rows.rows == 2
        assert np.allclose(np.linalg.norm(rows.load()[0], axis=1), 1, atol=1e-3)
        assert rows.column("names").tolist() == [line["gloss"] for line in lines]


@pytest.fixture(scope="module")
def static(tmp_path_factory, tiny):
    folder = tmp_path_factory.mktemp("static")
    tokenizer = tiny[0].files["tokenizer.json"]
    vocabulary = open_tokenizer(tiny[0].files, tiny[0].config, "tiny").inner.get_vocab_size()
    table = np.random.default_rng(0).standard_normal((vocabulary, 6)).astype(np.float16)
    save_file({"embedding.weight": table}, folder / "model.safetensors")
    (folder / "tokenizer.json").write_bytes(tokenizer)
    (folder / "config.json").write_text('{"model_type": "static-embedding"}')
    return folder, table


def test_a_static_table_gives_the_mean_of_the_token_rows(run, static, tiny, tmp_path):
    folder, table = static
    (tmp_path / "w.txt").write_text("house\nthe dark sea\n")
    with embed(run, folder, "--text", tmp_path / "w.txt", "--store", "float32", out=tmp_path / "a") as rows:
        tokenizer = open_tokenizer(tiny[0].files, tiny[0].config, "tiny")
        for row, word in zip(rows.load()[0], ("house", "the dark sea"), strict=True):
            assert np.allclose(row, table[tokenizer.ids(word)].astype(np.float32).mean(0), atol=1e-6)
        assert rows.facts["site"] == "table"


def test_images_become_rows_with_their_labels(run, tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 255, (50, 8, 8)).astype(np.uint8), rng.integers(0, 3, 50)
    np.savez(tmp_path / "d.npz", train_x=x, train_y=y, test_x=x[:10], test_y=y[:10])
    with embed(
        run,
        "pixels:",
        "--images",
        tmp_path / "d.npz",
        "--split",
        "test",
        "--store",
        "float32",
        out=tmp_path / "a",
    ) as rows:
        assert np.allclose(rows.load()[0], x[:10].reshape(10, -1) / 255, atol=1e-6)
        assert rows.column("label").tolist() == y[:10].tolist()
    image = pytest.importorskip("PIL.Image")
    for name, shade in (("cat", 0), ("dog", 255)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        image.new("L", (40, 30), shade).save(tmp_path / "photos" / name / "1.png")
    with embed(run, "pixels:", "--images", tmp_path / "photos", out=tmp_path / "b") as rows:
        assert rows.facts["classes"] == ["cat", "dog"]
        assert rows.load()[0].mean(1).tolist() == [0, 1]


@pytest.mark.parametrize("kind", ["vit", "clip"])
def test_vision_models_read_images(run, tmp_path, kind):
    import transformers

    transformers.logging.set_verbosity_error()
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
             "image_size": 16, "patch_size": 8}  # fmt: skip
    if kind == "vit":
        model = transformers.ViTModel(transformers.ViTConfig(**small))
    else:
        text = {
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 24,
            "vocab_size": 50,
        }
        model = transformers.CLIPModel(
            transformers.CLIPConfig(text_config=text, vision_config=small, projection_dim=12)
        )
    model.eval().save_pretrained(tmp_path / "m")
    x = np.random.default_rng(0).integers(0, 255, (6, 16, 16)).astype(np.uint8)
    np.savez(tmp_path / "d.npz", train_x=x, train_y=np.arange(6) % 2, test_x=x, test_y=np.arange(6) % 2)
    words = (tmp_path / "m", "--images", tmp_path / "d.npz", "--split", "test", "--store", "float32")
    with embed(run, *words, out=tmp_path / "a") as rows:
        pixels = (torch.from_numpy(x / 255).float()[:, None].expand(-1, 3, -1, -1) - 0.5) / 0.5
        with torch.no_grad():
            if kind == "vit":
                wanted = model(pixel_values=pixels).last_hidden_state.mean(1)
            else:
                out = model.get_image_features(pixel_values=pixels)
                wanted = out if isinstance(out, torch.Tensor) else out.pooler_output
        assert np.allclose(rows.load()[0], wanted.numpy(), atol=1e-4)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("default:",), 2),
        (("default:", "--text", "T", "--images", "T"), 2),
        (("default:", "--text", "absent"), 2),
        (("default:", "--text", "T", "--layer", "99"), 2),
        (("default:", "--text", "T", "--layer", "x"), 2),
        (("default:", "--text", "T", "--layer", "0", "--site", "mlp"), 2),
        (("default:", "--text", "E"), 3),
        (("default:", "--text", "J"), 3),
        (("pixels:", "--images", "absent"), 2),
        (("pixels:", "--images", "D"), 3),
    ],
)
def test_wrong_command_lines_say_what_is_wrong(run, text, tmp_path, words, code):
    (tmp_path / "e.txt").write_text("")
    (tmp_path / "j.jsonl").write_text('{"other": 1}\n')
    names = {"T": text, "E": tmp_path / "e.txt", "J": tmp_path / "j.jsonl", "D": tmp_path}
    done = run("embed", *[names.get(word, word) for word in words], "-o", tmp_path / "out")
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("bntools embed: error:") or "error" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_dictionary_is_scored_by_what_the_model_loses(run, text, tmp_path):
    rows = tmp_path / "x.safetensors"
    embed(run, "default:", "--text", text, "--layer", 1, out=rows).close()
    words = ("--latents", 60, "--k", 8, "--pursuit", 24, "--batch", 64, "--tokens", 6000, "--threads", 1)
    done = run("sparse-code", rows, *words, "-o", tmp_path / "s")
    assert done.returncode == 0, done.stderr
    done = run("eval", tmp_path / "s", "--data", rows, "--model", "default:", "--text", text, "--tokens", 200)
    assert done.returncode == 0, done.stderr
    model = json.loads(done.stdout)["model"]
    assert 0 < model["kl"]["pursuit"]["mean"] < model["kl"]["mean"]["mean"]
    assert model["loss"]["clean"] < model["loss"]["zero"]
    done = run(
        "eval", tmp_path / "s", "--model", "default:", "--set", f"other={tmp_path / 's'}", "--tokens", 40
    )
    assert json.loads(done.stdout)["stability"]["matched_cosine"] > 0.999


def test_states_replaced_by_themselves_change_nothing(tiny):
    from bntools.core.architecture.sites import watching

    _, built = tiny
    ids = torch.arange(2, 30)[None]
    with torch.no_grad():
        clean = built(ids).logits
        with watching(built, [(1, "resid")], lambda index, states: states.clone(), stop=False):
            other = built(ids).logits
    assert torch.equal(clean, other)
