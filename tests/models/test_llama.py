"""Llama, Mistral and Gemma compute what their configuration says, or are refused by name; the reference is in NumPy."""

import functools
import gc
import importlib
import json
import threading

import checkpoints
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_models
import transformers
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file

from jaxflow import Attention, Rollout, capture, explain, load_model
from jaxflow.models import as_model, generate, run_once

pytestmark = pytest.mark.usefixtures("standard_promotion")  # models of transformers run here

IDS, MASK = tiny_models.IDS, tiny_models.BOTH_SIDES
CASES = {
    "another base": ("Llama", {"rope_theta": 100_000.0}),
    "as transformers 5 writes it": ("Llama", {"rope_parameters": {"rope_theta": 50.0, "rope_type": "default"}}),
    "one layer, biases": ("Llama", {"rope_theta": 100_000.0, "num_hidden_layers": 1, "attention_bias": True}),
    "one table": ("Llama", {"rope_theta": 300.0, "tie_word_embeddings": True}),
    "a window": ("Mistral", {"rope_theta": 100_000.0, "sliding_window": 3}),
    "no window": ("Mistral", {"rope_theta": 100_000.0, "sliding_window": None}),
    "Mistral with one table": ("Mistral", {"sliding_window": 8, "tie_word_embeddings": True}),
    "Gemma": ("Gemma", {"rope_theta": 100_000.0, "head_dim": 12}),
    "Gemma with two tables": ("Gemma", {"rope_theta": 300.0, "tie_word_embeddings": False}),
}


def plain(name, head="ForCausalLM", **options):
    """A model that knows nothing of jaxflow, and its parameters: those of transformers' class, as a user has it."""
    mended = tiny_models.build(name, head, **{k: v for k, v in options.items() if not isinstance(v, dict)})
    config = type(mended.config)(**{**mended.config.to_dict(), **options})
    return type(mended)(config, _do_init=False), mended.params


def reference(config, params, ids, mask):
    """Logits, and attention `[batch, layer, head, query, key]`, in float64, by what the configuration says."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    is_gemma, n = config.model_type == "gemma", ids.shape[1]
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    width = config.head_dim or config.hidden_size // heads
    base = getattr(config, "rope_parameters", {}).get("rope_theta", config.rope_theta)

    def norm(x, scale):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + config.rms_norm_eps) * (scale["weight"] + is_gemma)

    def dense(x, layer):
        return x @ layer["kernel"] + layer.get("bias", 0)

    def turn(x):  # pairs of features as complex numbers
        pairs = x[..., : width // 2] + 1j * x[..., width // 2 :]
        pairs = pairs * np.exp(1j * np.outer(np.arange(n), base ** (-np.arange(width // 2) * 2 / width)))[:, None]
        return np.concatenate([pairs.real, pairs.imag], -1)

    def activate(x):
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) if is_gemma else x / (1 + np.exp(-x))

    window = getattr(config, "sliding_window", None) or n
    distance = np.arange(n)[:, None] - np.arange(n)
    sees = (distance >= 0) & (distance < window) & (mask[:, None, None] > 0)
    table = params["model"]["embed_tokens"]["embedding"]
    x, attention = table[ids] * (config.hidden_size**0.5 if is_gemma else 1), []
    for layer in (params["model"]["layers"][str(i)] for i in range(config.num_hidden_layers)):
        given, own = norm(x, layer["input_layernorm"]), layer["self_attn"]
        query = turn(dense(given, own["q_proj"]).reshape(*ids.shape, heads, width))
        key = turn(dense(given, own["k_proj"]).reshape(*ids.shape, groups, width)).repeat(heads // groups, 2)
        value = dense(given, own["v_proj"]).reshape(*ids.shape, groups, width).repeat(heads // groups, 2)
        scores = np.where(sees, np.einsum("bqhd,bkhd->bhqk", query, key) / np.sqrt(width), np.finfo(np.float32).min)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        attention.append(weights / weights.sum(-1, keepdims=True))
        mixed = np.einsum("bhqk,bkhd->bqhd", attention[-1], value).reshape(*ids.shape, -1)
        x = x + dense(mixed, own["o_proj"])
        given = norm(x, layer["post_attention_layernorm"])
        gate = activate(dense(given, layer["mlp"]["gate_proj"]))
        x = x + dense(gate * dense(given, layer["mlp"]["up_proj"]), layer["mlp"]["down_proj"])
    x = norm(x, params["model"]["norm"])
    logits = x @ (table.T if config.tie_word_embeddings else params["lm_head"]["kernel"])
    return logits, np.stack(attention, 1)


def assert_close(got, expected, tolerance=1e-5):
    np.testing.assert_allclose(got, expected, atol=tolerance, rtol=tolerance)


def assert_seen(got, expected, *, query=1):
    """Compare at tokens that are no padding, which lie along this axis: the rows of padding differ by how a mask is written."""
    got, expected = (np.moveaxis(np.asarray(array), query, 1)[MASK > 0] for array in (got, expected))
    assert_close(got, expected)


@pytest.mark.parametrize("case", CASES)
def test_attention_and_logits_are_those_of_the_configuration(case):
    name, options = CASES[case]
    model, params = plain(name, **options)
    logits, attention = reference(model.config, params, IDS, MASK)
    outputs, got = capture(model, IDS, attention_mask=MASK, params=params)
    assert_seen(outputs.logits, logits)
    assert_seen(got.decoder, attention, query=-2)
    bound = as_model(model).bind(params)
    for run in (bound.call, functools.partial(run_once, bound)):
        assert_seen(run(input_ids=IDS, attention_mask=MASK).logits, logits)


def test_the_class_itself_computes_something_else():
    for name, options in CASES.values():
        model, params = plain(name, **options)
        logits, _ = reference(model.config, params, IDS, np.ones_like(MASK))
        assert np.abs(model(IDS, params=params).logits - logits).max() > 1e-3, name


@pytest.mark.parametrize("case", ["another base", "one table", "a window"])
def test_a_loaded_model_runs_everywhere(case, tmp_path):
    name, options = CASES[case]
    tiny_models.build(name, "ForCausalLM", **options).save_pretrained(tmp_path)
    checkpoints.byte_pairs().save_pretrained(tmp_path)
    model, _ = load_model(tmp_path)
    logits, attention = reference(model.config, model.params, IDS, np.ones_like(MASK))
    full = model(IDS, output_attentions=True)
    assert_close(full.logits, logits)
    assert_close(np.stack(full.attentions, 1), attention)
    assert_close(capture(model, IDS)[1].decoder, attention)
    assert_close(jax.jit(lambda params: model(IDS, params=params).logits)(model.params), logits)
    # What is generated by the cache, and what the reference finds likeliest.
    tokens = IDS[:1, :4]
    for _ in range(5):
        likeliest = reference(model.config, model.params, tokens, np.ones_like(tokens))[0][:, -1].argmax(-1)
        tokens = np.append(tokens, likeliest[:, None], 1)
    options = {"max_new_tokens": 5, "eos_token_id": 49, "pad_token_id": 0, "do_sample": False}
    np.testing.assert_array_equal(model.generate(IDS[:1, :4], **options).sequences, tokens)
    alone, params = plain(name, **CASES[case][1])
    alone.generation_config.eos_token_id = alone.config.eos_token_id = 49
    written, n_given = generate(as_model(alone).bind(params), {"input_ids": IDS[:1, :4]}, max_new_tokens=5)
    np.testing.assert_array_equal(written, tokens[0])
    assert n_given == 4


def test_explain_and_modules():
    model, params = plain("Llama", rope_theta=100_000.0)
    _, attention = reference(model.config, params, IDS[:1], np.ones_like(IDS[:1]))
    explanation = explain(as_model(model).bind(params), {"input_ids": IDS[:1]}, Rollout())
    expected = Rollout()(Attention(decoder=jnp.asarray(attention, jnp.float32)))
    np.testing.assert_allclose(explanation.scores, expected.scores[0], atol=1e-5)

    class Inside(nn.Module):
        @nn.compact
        def __call__(self, ids, mask, positions):
            return type(model.module)(model.config, name="llama")(ids, mask, positions).logits

    places = np.broadcast_to(np.arange(IDS.shape[1]), IDS.shape)
    given, (logits, attention) = (IDS, MASK, places), reference(model.config, params, IDS, MASK)
    for module, variables in ((model.module, params), (Inside(), {"llama": params})):
        outputs, got = capture(module, *map(jnp.asarray, given), variables={"params": variables})
        assert_seen(getattr(outputs, "logits", outputs), logits)
        assert_seen(got.decoder, attention, query=-2)
        adapter = as_model(module, variables={"params": variables})
        names = (
            ("input_ids", "attention_mask", "position_ids") if module is model.module else ("ids", "mask", "positions")
        )
        outputs = adapter.call(**dict(zip(names, given, strict=True)))
        assert_seen(getattr(outputs, "logits", outputs), logits)


def test_nothing_stays_and_other_threads_do_not_notice():
    model, params = plain("Mistral", rope_theta=100_000.0, tie_word_embeddings=True)
    before, module, (logits, _) = model(IDS, params=params).logits, model.module, reference(
        model.config, params, IDS, np.ones_like(MASK)
    )  # fmt: skip
    failures, start = [], threading.Barrier(3)

    def work(run, expected):
        start.wait()
        try:
            for _ in range(4):
                assert_close(run(), np.asarray(expected))
        except BaseException as error:
            failures.append(error)

    runs = [(lambda: capture(model, IDS, params=params)[0].logits, logits)] * 2
    runs += [(lambda: model(IDS, params=params).logits, before)]
    threads = [threading.Thread(target=work, args=each) for each in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]
    assert model.module is module
    assert not nn.module._global_interceptor_stack
    assert np.abs(before - logits).max() > 1e-3


def test_a_class_with_a_table_of_its_own_keeps_it():
    from transformers.models.llama.modeling_flax_llama import FlaxLlamaRotaryEmbedding

    class Own(FlaxLlamaRotaryEmbedding):
        def setup(self):
            self.sincos = jnp.zeros((9, 1, 16))

    config = transformers.LlamaConfig(**tiny_models.LLAMA, rope_theta=100_000.0)
    key = query = jnp.ones((1, 3, 4, 8))

    class Holder(nn.Module):
        @nn.compact
        def __call__(self, key, query):
            return Own(config)(key, query, jnp.arange(3)[None])

    got = as_model(Holder(), variables={}).call(key, query)
    assert np.abs(got[0]).max() == 0


def test_a_checkpoint_without_a_head_takes_its_table(tmp_path):
    saved = tiny_models.build("Llama", "ForCausalLM", tie_word_embeddings=True)
    theirs = {"kernel": "weight", "embedding": "weight"}
    weights = {
        ".".join((*path[:-1], theirs.get(path[-1], path[-1]))): np.asarray(leaf).T.copy() if path[-1] == "kernel" else leaf
        for path, leaf in flatten_dict(saved.params).items()
        if path[0] != "lm_head"
    }  # fmt: skip
    saved.config.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["LlamaForCausalLM"]}))
    checkpoints.byte_pairs().save_pretrained(tmp_path)
    save_file(jax.tree.map(np.asarray, weights), tmp_path / "model.safetensors", metadata={"format": "pt"})
    model, _ = load_model(tmp_path)
    table = saved.params["model"]["embed_tokens"]["embedding"]
    np.testing.assert_array_equal(model.params["lm_head"]["kernel"], table.T)
    assert_close(model(IDS).logits, reference(saved.config, saved.params, IDS, np.ones_like(MASK))[0])


LINEAR = {"rope_type": "linear", "factor": 2.0}
YOURSELF = "Run the model yourself and pass its attention to attention_flow"
REFUSED = [
    ("Llama", {"rope_scaling": LINEAR}, r"rope_scaling of type 'linear' would not.*Expected rope_scaling=None, or the"),
    ("Mistral", {"rope_scaling": {"type": "yarn"}}, r"rope_scaling of type 'yarn' would not.*Expected rope_scaling=None"),
    ("Gemma", {"rope_parameters": {"rope_theta": 9.0} | LINEAR}, r"rope_scaling of type 'linear'.*the type 'default'"),
    ("Llama", {"head_dim": 16}, r"head_dim=16 would have heads of 8, hidden_size / num.*Expected head_dim=8, or None"),
    ("Mistral", {"head_dim": 4}, r"head_dim=4 would have heads of 8, hidden_size / num.*Expected head_dim=8, or None"),
    ("Llama", {"mlp_bias": True}, r"mlp_bias=True would have no such biases.*Expected mlp_bias=False"),
    ("Gemma", {"mlp_bias": True}, r"mlp_bias=True would have no such biases.*Expected mlp_bias=False"),
    ("Mistral", {"attention_bias": True}, r"attention_bias=True would have no.*Expected attention_bias=False"),
    ("Llama", {"hidden_act": "relu2"}, r"hidden_act='relu2' would not run that.*Expected one of gelu, relu, silu"),
    ("GPTJ", {"activation_function": "relu2"}, r"activation_function='relu2' would not run.*Expected one of gelu"),
    ("Gemma", {"hidden_activation": "mish"}, r"hidden_activation='mish' would not run.*Expected one of gelu, relu"),
    (
        "Gemma",
        {"hidden_activation": None, "hidden_act": "silu"},
        r"hidden_act='silu' would not run.*Expected one of gelu, gelu_new, gelu_pytorch_tanh\.",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options", "message"), REFUSED, ids=str)
def test_what_the_class_does_not_read_is_refused(name, options, message, tmp_path):
    config, sizes = tiny_models.CONFIGS[name]
    config = getattr(transformers, f"{config}Config")(**sizes | options, architectures=[f"{name}ForCausalLM"])
    message = rf"(?s)Flax{name}ForCausalLM with {message}.*{YOURSELF}"
    # Made of a config that is in order, since some raise while they are made.
    model = getattr(transformers, f"Flax{name}ForCausalLM")(type(config)(**sizes), _do_init=False)
    model._config = config
    with pytest.raises(ValueError, match=message):
        capture(model, IDS)
    config.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=message):
        load_model(tmp_path)


def test_what_is_refused_does_not_run_by_an_adapter_either():
    model, params = plain("Llama", rope_scaling=LINEAR)
    adapter = as_model(model).bind(params)
    for run in (adapter.call, functools.partial(run_once, adapter)):
        with pytest.raises(ValueError, match="FlaxLlamaAttention with rope_scaling of type 'linear' would not scale"):
            run(input_ids=IDS)
    with pytest.raises(ValueError, match="rope_scaling of type 'linear'"):
        generate(adapter, {"input_ids": IDS[:1]}, max_new_tokens=2)


def test_a_scaling_that_changes_nothing_is_taken():
    model, params = plain("Llama", rope_theta=300.0, rope_scaling={"rope_type": "default"})
    _, attention = capture(model, IDS, params=params)
    assert_close(attention.decoder, reference(model.config, params, IDS, np.ones_like(MASK))[1])


@pytest.mark.parametrize("family", ["Llama", "Mistral", "Gemma"])
def test_masks_are_of_the_tokens_and_positions_are_those_of_the_model(family, monkeypatch):
    """A layer's mask has the tokens that are read; rotations go on to the last position."""
    model = tiny_models.build(family, "ForCausalLM")
    ids = np.array([[5, 6, 7, 8]])
    positions = np.array([[3, 9, 17, model.config.max_position_embeddings - 1]])
    lengths = []
    make = nn.make_causal_mask
    module = importlib.import_module(type(model).__module__)
    monkeypatch.setattr(module, "make_causal_mask", lambda x, **how: lengths.append(x.shape[-1]) or make(x, **how))
    short, attention = capture(model, ids, position_ids=positions)
    assert set(lengths) == {4}
    whole, _ = capture(model, np.concatenate([ids, ids], -1), position_ids=np.concatenate([positions, positions], -1))
    np.testing.assert_allclose(short.logits, whole.logits[:, :4], atol=1e-4)
    other, _ = capture(model, ids)
    assert not np.allclose(short.logits, other.logits, atol=1e-3)
    monkeypatch.undo()
    written = model.generate(ids, max_new_tokens=3, do_sample=False, pad_token_id=0, eos_token_id=None).sequences
    expected = ids
    for _ in range(3):
        logits = capture(model, expected)[0].logits
        expected = np.append(expected, np.asarray(logits)[:, -1:].argmax(-1), axis=-1)
    np.testing.assert_array_equal(written, expected)
    assert attention.decoder.shape[-1] == 4


def test_a_run_leaves_little_behind():
    """Layers of flax refer to each other, so what they hold waits for the collector of cycles."""
    model = tiny_models.build("Llama", "ForCausalLM", max_position_embeddings=2048, tie_word_embeddings=True)
    ids = np.array([[5, 6, 7, 8]])
    capture(model, ids)
    gc.collect()
    gc.disable()
    try:
        before = sum(array.nbytes for array in jax.live_arrays())
        for _ in range(3):
            capture(model, ids)
        grown = sum(array.nbytes for array in jax.live_arrays()) - before
    finally:
        gc.enable()
    assert grown < 2**20  # each mask of all positions is four times that
