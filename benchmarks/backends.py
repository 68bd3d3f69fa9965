"""Which models `capture` reaches, by which backend, and at what cost: prints the tables of docs/models.md.

    python benchmarks/backends.py

Of each, `capture_contributions` is run as well: the levels of contributions must sum to the target.

Models of packages that are not installed are left out (penzai, equinox, esm2quinox, dm-haiku, keras-hub, recurrentgemma,
google-tunix; none needs torch). Cost is the time of `jax.jit` around capture, as a multiple of that of `jax.jit` around the model
alone, the median of interleaved runs.
"""

from __future__ import annotations

import functools
import importlib.metadata
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import levels
import numpy as np
from flax import nnx

from jaxflow import Attention, as_model, capture, capture_contributions

N_LAYERS, N_HEADS, WIDTH, N_TOKENS = 6, 8, 256, 128
Take = Callable[..., tuple[Any, ...]]  # `capture`, or `capture_contributions` with a target
Case = tuple[str, Callable[[Take], tuple[Any, ...]]]


class LinenBlock(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + nn.MultiHeadDotProductAttention(num_heads=N_HEADS)(nn.LayerNorm()(x))
        return x + nn.Dense(WIDTH)(nn.gelu(nn.Dense(4 * WIDTH)(nn.LayerNorm()(x))))


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for _ in range(N_LAYERS):
            x = LinenBlock()(x)
        return x


class NnxBlock(nnx.Module):
    def __init__(self, rngs: nnx.Rngs, sow: bool) -> None:
        self.norms = nnx.List([nnx.LayerNorm(WIDTH, rngs=rngs) for _ in range(2)])
        self.attention = nnx.MultiHeadAttention(num_heads=N_HEADS, in_features=WIDTH, decode=False, rngs=rngs)
        self.up, self.down = nnx.Linear(WIDTH, 4 * WIDTH, rngs=rngs), nnx.Linear(4 * WIDTH, WIDTH, rngs=rngs)
        self.sow_weights = sow

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.attention(self.norms[0](x), deterministic=True, sow_weights=self.sow_weights)
        return x + self.down(nnx.gelu(self.up(self.norms[1](x))))


class Nnx(nnx.Module):
    def __init__(self, sow: bool) -> None:
        rngs = nnx.Rngs(0)
        self.blocks = nnx.List([NnxBlock(rngs, sow) for _ in range(N_LAYERS)])

    def __call__(self, x: jax.Array) -> jax.Array:
        for block in self.blocks:
            x = block(x)
        return x


def hidden() -> jax.Array:
    return jax.random.normal(jax.random.key(0), (4, N_TOKENS, WIDTH))


def plain(params: dict[str, jax.Array], x: jax.Array, *, attend: Callable | None = None) -> jax.Array:
    """Layers as a scan, in plain jax.numpy."""

    def layer(x: jax.Array, p: dict[str, jax.Array]) -> tuple[jax.Array, None]:
        q, k, v = (jnp.einsum("btd,dnh->btnh", x, p[name]) for name in "qkv")
        x = x + jnp.einsum("btnh,nhd->btd", (attend or jax.nn.dot_product_attention)(q, k, v), p["o"])
        return x + jax.nn.gelu(x @ p["up"]) @ p["down"], None

    return jax.lax.scan(layer, x, params)[0]


def parameters(n_layers: int = N_LAYERS, width: int = WIDTH) -> dict[str, jax.Array]:
    head = (width, N_HEADS, width // N_HEADS)
    shapes = {
        "q": head,
        "k": head,
        "v": head,
        "o": (*head[1:], width),
        "up": (width, 4 * width),
        "down": (4 * width, width),
    }
    draw = np.random.default_rng(0).normal
    return {name: jnp.asarray(draw(size=(n_layers, *shape)) * 0.05, jnp.float32) for name, shape in shapes.items()}


def bart(size: dict[str, int]) -> Any:
    import transformers

    parts = {f"{part}_{name}": n for part in ("encoder", "decoder") for name, n in size.items()}
    config = transformers.BartConfig(vocab_size=50, d_model=WIDTH, max_position_embeddings=N_TOKENS, **parts)
    return transformers.FlaxBartModel(config)


def bert() -> Any:
    import transformers

    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=WIDTH,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=N_HEADS,
        intermediate_size=4 * WIDTH,
    )
    return transformers.FlaxBertModel(config)


IDS = np.arange(4 * N_TOKENS).reshape(4, N_TOKENS) % 50


def penzai_llama(take: Take) -> tuple[Any, ...]:
    from penzai import pz
    from penzai.models.transformer.variants import llamalike_common as llama

    config = llama.LlamalikeTransformerConfig(
        num_kv_heads=2, query_head_multiplier=2, embedding_dim=32, projection_dim=8, mlp_hidden_dim=40,
        num_decoder_blocks=3, vocab_size=50, mlp_variant="swiglu", tie_embedder_and_logits=False, rope_wavelength=1e4,
        rms_norm_eps=1e-6, attention_type=llama.AttentionTypeGlobalCausal(), parameter_dtype=jnp.float32,
        activation_dtype=jnp.float32,
    )  # fmt: skip
    model = llama.build_llamalike_transformer(config, init_base_rng=jax.random.key(0))
    return take(
        lambda ids: model(ids).unwrap("batch", "seq", "vocabulary"),
        pz.nx.wrap(jnp.asarray(IDS[:, :12]), "batch", "seq"),
    )


def equinox_encoder(take: Take) -> tuple[Any, ...]:
    import equinox as eqx

    keys = jax.random.split(jax.random.key(0), 3)
    layers = [eqx.nn.MultiheadAttention(num_heads=4, query_size=32, key=key) for key in keys]

    def model(layers: list, x: jax.Array) -> jax.Array:
        for layer in layers:
            x = x + jax.vmap(lambda x, layer=layer: layer(x, x, x))(x)
        return x

    return take(eqx.filter_jit(model), layers, hidden()[:, :12, :32])


def tunix_llama(take: Take) -> tuple[Any, ...]:
    from tunix.models.llama3 import model as llama

    config = llama.ModelConfig(
        num_layers=3, vocab_size=50, embed_dim=32, hidden_dim=40, num_heads=4, head_dim=8, num_kv_heads=2,
        rope_theta=10000, norm_eps=1e-6, remat_config=llama.RematConfig.DECODER,
    )  # fmt: skip
    seen = jnp.broadcast_to(jnp.tril(jnp.ones((12, 12), bool)), (4, 12, 12))
    ids, positions = jnp.asarray(IDS[:, :12]), jnp.broadcast_to(jnp.arange(12), (4, 12))
    model = as_model(llama.Llama3(config, rngs=nnx.Rngs(0)), roles={"": "decoder"})
    return take(model, ids, positions, None, seen)


def haiku_encoder(take: Take) -> tuple[Any, ...]:
    import haiku as hk

    def model(ids: jax.Array) -> jax.Array:
        x = hk.Embed(50, 32)(ids)
        for _ in range(3):
            attention = hk.MultiHeadAttention(4, 8, w_init=hk.initializers.VarianceScaling(1.0), model_size=32)
            x = x + attention(x, x, x)
            x = x + hk.Linear(32)(jax.nn.gelu(hk.Linear(64)(x)))
        return x

    transformed, ids = hk.transform(model), jnp.asarray(IDS[:, :12])
    return take(transformed.apply, transformed.init(jax.random.key(0), ids), None, ids)


def esm2(take: Take) -> tuple[Any, ...]:
    import esm2quinox

    model = esm2quinox.ESM2(num_layers=3, embed_size=32, num_heads=4, token_dropout=True, key=jax.random.key(0))
    return take(lambda model, ids: jax.vmap(model)(ids).logits, model, jnp.asarray(IDS[:, :12] % 20))


def keras_hub(name: str, **sizes: Any) -> Callable[[Take], tuple[Any, ...]]:
    def run(take: Take) -> tuple[Any, ...]:
        os.environ["KERAS_BACKEND"] = "jax"
        from keras_hub import models

        small = {"vocabulary_size": 50, "num_layers": 3, "hidden_dim": 32, "intermediate_dim": 64}
        model = getattr(models, name)(**small | sizes)
        ids = IDS[:, :12]
        given = {"token_ids": ids, "padding_mask": np.ones_like(ids), "segment_ids": np.zeros_like(ids)}
        given |= {
            f"{side}_{each}": given[each] for side in ("encoder", "decoder") for each in ("token_ids", "padding_mask")
        }
        trained, others = (
            [v.value for v in kind] for kind in (model.trainable_variables, model.non_trainable_variables)
        )
        inputs = {each: given[each] for each in model.input}

        def called(trained: list, inputs: dict) -> Any:
            outputs = model.stateless_call(trained, others, inputs)[0]
            return (
                outputs.get("sequence_output", outputs.get("decoder_sequence_output"))
                if isinstance(outputs, dict)
                else outputs
            )

        return take(called, trained, inputs)

    return run


def griffin(take: Take, mixing: str = "refuse") -> tuple[Any, ...]:
    import recurrentgemma.jax as griffin
    from recurrentgemma.common import TemporalBlockType

    kinds = (TemporalBlockType.RECURRENT, TemporalBlockType.RECURRENT, TemporalBlockType.ATTENTION)
    config = griffin.GriffinConfig(
        vocab_size=50, width=32, mlp_expanded_width=48, num_heads=4, lru_width=32, embeddings_scale_by_sqrt_dim=True,
        block_types=kinds * 2, attention_window_size=8, logits_soft_cap=30.0,
    )  # fmt: skip
    model, ids = griffin.Griffin(config), jnp.asarray(IDS[:, :12])
    positions = jnp.broadcast_to(jnp.arange(12), ids.shape)
    variables = model.init(jax.random.key(0), ids, positions)
    return take(as_model(model, variables=variables, mixing=mixing), ids, positions)


class MapHead(nn.Module):
    """A ViT of big_vision in its style, `pool_type="map"`, on patches that are embedded already."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for _ in range(3):
            x = LinenBlock()(x)
        probe = self.param("probe", nn.initializers.xavier_uniform(), (1, 1, WIDTH))
        pooled = nn.MultiHeadDotProductAttention(num_heads=N_HEADS)(jnp.tile(probe, (len(x), 1, 1)), nn.LayerNorm()(x))
        return nn.Dense(10)(pooled + nn.Dense(WIDTH)(nn.gelu(nn.Dense(WIDTH)(nn.LayerNorm()(pooled)))))


def map_head(take: Take) -> tuple[Any, ...]:
    return take(MapHead(), hidden(), variables=MapHead().init(jax.random.key(0), hidden()))


def bonsai_layout(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Grouped queries, logits `[B, T, S, K, G]`, softmax over axis 2."""
    b, t, n, h = q.shape
    q = q.reshape(b, t, 2, n // 2, h)
    weights = jax.nn.softmax(jnp.einsum("btkgh,bskh->btskg", q, k[:, :, :2]), axis=2)
    return jnp.einsum("btskg,bskh->btkgh", weights, v[:, :, :2]).reshape(b, t, n, h)


def sinks(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    z = 50 * jnp.tanh(jnp.einsum("btnh,bsnh->bnts", q, k) / 50)
    weights = jax.nn.softmax(jnp.concatenate([z, jnp.zeros((*z.shape[:-1], 1))], -1))[..., :-1]
    return jnp.einsum("bnts,bsnh->btnh", weights, v)


def query_chunks(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    chunks = jnp.moveaxis(q.reshape(q.shape[0], 4, -1, *q.shape[2:]), 1, 0)
    out = jax.lax.map(lambda q: jax.nn.dot_product_attention(q, k, v), chunks)
    return jnp.moveaxis(out, 0, 1).reshape(q.shape)


def flash(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    def step(carry: tuple, block: tuple) -> tuple:
        total, out = carry
        e = jnp.exp(jnp.einsum("btnh,bsnh->bnts", q, block[0]))
        return (total + e.sum(-1), out + jnp.einsum("bnts,bsnh->bnth", e, block[1])), None

    blocks = tuple(jnp.moveaxis(a.reshape(a.shape[0], 4, -1, *a.shape[2:]), 1, 0) for a in (k, v))
    zeros = jnp.zeros_like(jnp.moveaxis(q, 1, 2))
    (total, out), _ = jax.lax.scan(step, (zeros[..., 0], zeros), blocks)
    return jnp.moveaxis(out / total[..., None], 1, 2)


def pallas(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    from jax.experimental import pallas as pl

    def flash_attention(q_ref: Any, k_ref: Any, v_ref: Any, out_ref: Any) -> None:
        out_ref[...] = q_ref[...]

    return pl.pallas_call(flash_attention, out_shape=jax.ShapeDtypeStruct(q.shape, q.dtype), interpret=True)(q, k, v)


def linear(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    q, k = jax.nn.elu(q) + 1, jax.nn.elu(k) + 1
    return jnp.einsum("btnh,bsnh,bsnd->btnd", q, k, v)


def in_a_while_loop(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, plain(params, c[1])), (0, x))[1]


def traced(take: Take, attend: Callable | None = None) -> tuple[Any, ...]:
    return take(functools.partial(plain, attend=attend), parameters(), hidden())


def cases() -> Iterator[Case]:
    small = {"layers": 2, "attention_heads": 4, "ffn_dim": 64}
    yield "transformers, encoder (BERT)", lambda take: take(bert(), IDS)
    yield "transformers, encoder-decoder (BART)", lambda take: take(bart(small), IDS, decoder_input_ids=IDS)
    yield (
        "the same through its module's `apply`",
        lambda take: take(
            (model := bart(small)).module.apply,
            {"params": model.params},
            *([jnp.asarray(IDS), jnp.ones_like(IDS)] * 2),
            IDS,
            IDS,
        ),
    )
    yield (
        "linen, `nn.MultiHeadDotProductAttention`",
        lambda take: take(Linen(), hidden(), variables=Linen().init(jax.random.key(0), hidden())),
    )
    yield (
        "linen, any softmax, through `apply`",
        lambda take: take(Linen().apply, Linen().init(jax.random.key(0), hidden()), hidden()),
    )
    yield "NNX, `sow_weights` passed", lambda take: take(Nnx(sow=True), hidden())
    yield "NNX, not passed", lambda take: take(Nnx(sow=False), hidden())
    yield "plain jax.numpy, `scan` over layers, `jax.nn.dot_product_attention`", traced
    yield (
        "the same in bonsai's style: grouped, `[B, T, S, K, G]`, softmax over axis 2",
        lambda take: traced(take, bonsai_layout),
    )
    yield "the same with soft cap and attention sinks", lambda take: traced(take, sinks)
    yield f"penzai {version('penzai')}, Llama", penzai_llama
    yield f"equinox {version('equinox')}, `nn.MultiheadAttention`, `vmap`, `filter_jit`", equinox_encoder
    yield f"tunix {version('google-tunix')}, Llama 3, grouped queries, remat", tunix_llama
    yield f"esm2quinox {version('esm2quinox')}, ESM-2, `vmap`", esm2
    yield f"dm-haiku {version('dm-haiku')}, `hk.MultiHeadAttention`", haiku_encoder
    hub, grouped = f"keras-hub {version('keras-hub')}", {"num_query_heads": 4, "num_key_value_heads": 2}
    heads = {"num_heads": 4, "max_sequence_length": 12}
    yield f"{hub}, BERT", keras_hub("BertBackbone", **heads)
    yield f"{hub}, RoBERTa", keras_hub("RobertaBackbone", **heads)
    yield f"{hub}, DistilBERT", keras_hub("DistilBertBackbone", **heads)
    yield f"{hub}, DeBERTa 3", keras_hub("DebertaV3Backbone", bucket_size=4, **heads)
    yield f"{hub}, GPT-2", keras_hub("GPT2Backbone", **heads)
    yield f"{hub}, OPT", keras_hub("OPTBackbone", **heads)
    yield f"{hub}, BLOOM", keras_hub("BloomBackbone", num_heads=4)
    yield f"{hub}, Gemma 3", keras_hub("Gemma3Backbone", head_dim=8, image_size=16, **grouped)
    yield f"{hub}, Llama 3", keras_hub("Llama3Backbone", **grouped)
    yield f"{hub}, Mixtral", keras_hub("MixtralBackbone", num_experts=2, top_k=1, **grouped)
    yield f"{hub}, BART", keras_hub("BartBackbone", **heads)
    yield f"{hub}, T5", keras_hub("T5Backbone", num_heads=4, key_value_dim=8)
    yield "a MAP head in big_vision's style (linen)", map_head
    yield f"recurrentgemma {version('recurrentgemma')}, Griffin", griffin
    yield 'the same, `mixing="accept"`', functools.partial(griffin, mixing="accept")
    yield "queries in chunks (`lax.map`)", lambda take: traced(take, query_chunks)
    yield "keys in blocks with a running sum (flash attention in JAX)", lambda take: traced(take, flash)
    yield "a Pallas kernel", lambda take: traced(take, pallas)
    yield "layers in a `while` loop", lambda take: take(in_a_while_loop, parameters(), hidden())
    yield "linear attention", lambda take: traced(take, linear)


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def reached() -> Iterator[str]:
    yield "| model | backend | captured | contributions off by | refused, because |"
    yield "|---|---|---|---:|---|"
    for name, run in cases():
        try:
            _, attention = run(capture)
            shapes = {role: getattr(attention, role) for role in ("encoder", "decoder", "cross")}
            found = ", ".join(f"{role} {list(a.shape)}" for role, a in shapes.items() if a is not None)
        except ImportError as error:
            print(f"left out: {name} ({error})", file=sys.stderr)
            continue
        except ValueError as error:
            yield f"| {name} | | | | {reason(error)} |"
            continue
        try:
            _, _, contributions = run(functools.partial(capture_contributions, target=levels.largest))
            yield f"| {name} | {attention.backend} | {found} | {levels.off_by(contributions):.0e} | |"
        except ValueError as error:
            yield f"| {name} | {attention.backend} | {found} | | contributions: {str(error).splitlines()[0]} |"


def reason(error: ValueError) -> str:
    lines = str(error).splitlines()
    return next((line for line in lines if line.startswith("  ")), lines[0]).strip()


def costs() -> Iterator[str]:
    yield "| backend | model | plain, ms | captured, ms | ratio |"
    yield "|---|---|---:|---:|---:|"
    x, params, variables = hidden(), parameters(), Linen().init(jax.random.key(0), hidden())
    model = bert()
    pairs: list[tuple[str, str, Callable, Callable, tuple]] = [
        (
            "transformers",
            "BERT",
            lambda p: model(IDS, params=p)[0],
            lambda p: capture(model, IDS, params=p),
            (model.params,),
        ),
        ("linen", "linen", Linen().apply, lambda v, x: capture(Linen(), x, variables=v), (variables, x)),
        ("traced", "linen", Linen().apply, lambda v, x: capture(Linen().apply, v, x), (variables, x)),
        ("traced", "plain, scan", plain, functools.partial(capture, plain), (params, x)),
    ]
    for sow in (True, False):
        graph, state = nnx.split(Nnx(sow))
        pairs.append((
            "nnx" if sow else "traced", f"NNX, sow_weights={sow}",
            lambda s, x, g=graph: nnx.merge(g, s)(x), lambda s, x, g=graph: capture(nnx.merge(g, s), x), (state, x),
        ))  # fmt: skip
    for backend, name, alone, with_capture, args in pairs:
        taken: dict[str, list[float]] = {"plain": [], "captured": []}
        both = {"plain": jax.jit(alone), "captured": jax.jit(with_capture)}
        result = jax.block_until_ready([f(*args) for f in both.values()])[1]
        assert isinstance(result[1], Attention)
        assert result[1].backend == backend
        for _ in range(15):
            for kind, function in both.items():
                start = time.perf_counter()
                jax.block_until_ready(function(*args))
                taken[kind].append(time.perf_counter() - start)
        before, after = (1e3 * float(np.median(taken[kind])) for kind in ("plain", "captured"))
        yield f"| {backend} | {name} | {before:.1f} | {after:.1f} | {after / before:.2f} |"


if __name__ == "__main__":
    lines = [f"jax {jax.__version__}, flax {version('flax')}, transformers {version('transformers')}", "", *reached()]
    lines += [
        "",
        f"{N_LAYERS} layers, {N_HEADS} heads, {WIDTH} wide, 4 x {N_TOKENS} tokens, under `jax.jit`, on {jax.default_backend()}:",
        "",
    ]
    lines += costs()
    print("\n".join(lines))
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text("\n".join(lines) + "\n")
