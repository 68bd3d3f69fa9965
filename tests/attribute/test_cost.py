"""Estimates of cost: counts against networks that are built, words, impossible shapes. Times: benchmarks/cost.py."""

import itertools

import jax
import jax.numpy as jnp
import pytest
from strategies import make_attention

from jaxflow import Attention, Capacities, attention_flow, estimate_cost, flow_network, joint_capacities
from jaxflow.attribute import _cost as cost
from jaxflow.solve import _certified as certified

ENCODER = make_attention("softmax", 0, (2, 3, 2, 5, 5))
DECODER = make_attention("causal", 1, (2, 4, 2, 6, 6))
CROSS = make_attention("softmax", 2, (2, 4, 2, 6, 5))
MODELS = {
    "encoder": Attention(encoder=ENCODER),
    "decoder": Attention(decoder=DECODER),
    "both": Attention(encoder=ENCODER, decoder=DECODER, cross=CROSS),
    "decoder that reads": Attention(decoder=DECODER, cross=CROSS),
}


def shapes_of(tree):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


@pytest.mark.parametrize("decoder_layer", ["sublayers", "parallel"])
@pytest.mark.parametrize("outputs", [None, 2, [0, 3, 4]], ids=str)
@pytest.mark.parametrize("attention", MODELS.values(), ids=MODELS)
def test_arcs_and_solves_are_those_of_a_run(attention, outputs, decoder_layer, monkeypatch):
    capacities = joint_capacities(attention)
    options = {"positions": outputs, "decoder_layer": decoder_layer}
    got = estimate_cost(shapes_of(attention), **options)
    network = flow_network(jax.tree.map(lambda leaf: leaf[0], capacities), decoder_layer=decoder_layer)
    assert got.n_arcs == network.senders.size
    flow = attention_flow(capacities, **options)
    assert got.n_solves == (flow.certificate.trivial > 0).sum()
    assert got.n_examples == 2
    assert got.attention_bytes == sum(leaf.nbytes for leaf in jax.tree.leaves(attention))
    stacks = (capacities.encoder, capacities.decoder, capacities.cross)
    assert got.capacities_bytes == sum(stack.nbytes for stack in stacks if stack is not None)
    assert got.streaming_bytes < got.capture_bytes
    same = estimate_cost(attention, **options)
    assert same == got
    without_heads = estimate_cost(shapes_of(capacities), **options)
    assert (without_heads.attention_bytes, without_heads.capture_bytes, without_heads.streaming_bytes) == (0, 0, 0)
    assert (without_heads.n_solves, without_heads.n_arcs, without_heads.seconds) == (
        got.n_solves,
        got.n_arcs,
        got.seconds,
    )


def test_ways_to_say_an_encoder():
    expected = estimate_cost(Attention(encoder=ENCODER))
    for given in (ENCODER, jnp.asarray(ENCODER), shapes_of(ENCODER), ENCODER.shape, list(ENCODER.shape)):
        assert estimate_cost(given) == expected
    narrow = estimate_cost(jax.ShapeDtypeStruct(ENCODER.shape, jnp.bfloat16))
    assert narrow.attention_bytes == expected.attention_bytes // 2
    assert narrow.capacities_bytes == expected.capacities_bytes


def test_configs_of_transformers():
    transformers = pytest.importorskip("transformers", "4", exc_type=ImportError)
    bert = transformers.BertConfig(num_hidden_layers=6, num_attention_heads=12)
    assert estimate_cost(bert, n_tokens=30) == estimate_cost((1, 6, 12, 30, 30))
    gpt2 = transformers.GPT2Config(n_layer=3, n_head=2)
    assert estimate_cost(gpt2, n_tokens=9) == estimate_cost(
        Attention(decoder=jax.ShapeDtypeStruct((1, 3, 2, 9, 9), jnp.float32))
    )
    for config in (
        transformers.MarianConfig(
            encoder_layers=3, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=2, d_model=8
        ),
        transformers.T5Config(num_layers=3, num_decoder_layers=2, num_heads=4),
    ):
        n_heads = 2 if config.model_type == "marian" else 4
        expected = Attention(
            encoder=jax.ShapeDtypeStruct((1, 3, 4, 7, 7), jnp.float32),
            decoder=jax.ShapeDtypeStruct((1, 2, n_heads, 5, 5), jnp.float32),
            cross=jax.ShapeDtypeStruct((1, 2, n_heads, 5, 7), jnp.float32),
        )
        assert estimate_cost(config, n_tokens=7, n_target=5) == estimate_cost(expected)
        with pytest.raises(ValueError, match="give n_tokens, of the encoder, and n_target, of the decoder"):
            estimate_cost(config, n_tokens=7)
    for given in ({}, {"n_tokens": 7, "n_target": 5}):
        with pytest.raises(ValueError, match="a model or config says nothing of lengths: give n_tokens alone"):
            estimate_cost(bert, **given)


def test_more_work_takes_more_time():
    costs = [estimate_cost((6, 12, n, n)) for n in (22, 82, 242, 1024)]
    assert all(one.seconds < other.seconds for one, other in itertools.pairwise(costs))
    whole, one = estimate_cost((6, 12, 242, 242), solver="ortools"), estimate_cost((6, 12, 242, 242), positions=3)
    assert whole.seconds > 10 * costs[2].seconds
    assert one.n_solves == 242
    assert (
        estimate_cost((6, 12, 242, 242), n_threads=1).seconds
        > 3 * estimate_cost((6, 12, 242, 242), n_threads=4).seconds
    )


def test_threads_are_those_of_the_solver():
    assert estimate_cost((6, 12, 22, 22)).n_threads == certified.n_cores()
    assert estimate_cost((6, 12, 22, 22), solver="ortools").n_threads == 1


def test_it_says_itself(monkeypatch):
    monkeypatch.setattr(cost, "_slowness", lambda: 1.0)
    assert str(estimate_cost((24, 16, 1024, 1024), n_threads=2, positions=0)).splitlines() == [
        "1,024 solves on a network of 25,165,824 arcs",
        "attention 1.5 GiB: capture takes 4.6 GiB at its peak, capture_capacities 512.0 MiB",
        "capacities 96.0 MiB; solving takes 1.7 GiB at its peak",
        "expected time 3.5 s (certified, 2 threads)",
    ]
    assert "attention" not in str(estimate_cost(Capacities(encoder=ENCODER[:, :, 0])))
    assert "expected time 16.5 minutes (ortools)" in str(estimate_cost((6, 12, 242, 242), solver="ortools"))
    assert "2 networks" in str(estimate_cost(ENCODER))


BAD = [
    ((6, 12, 242), {}, r"encoder has shape \(6, 12, 242\); expected \[\*batch, layer, head, query, key\]"),
    ((6, 12, 242, 241), {}, "242 queries and 241 keys"),
    ((6, 0, 22, 22), {}, r"shape \(6, 0, 22, 22\); expected .* each 1 or more"),
    ((6, 12, -22, -22), {}, "each 1 or more"),
    (Attention(), {}, "there is no stack"),
    (Capacities(encoder=ENCODER[0, 0, 0]), {}, r"expected \[\*batch, layer, query, key\]"),
    (Attention(encoder=ENCODER, decoder=DECODER), {}, "nothing that joins them"),
    (Attention(cross=CROSS), {}, "cross-attention without a decoder"),
    (Attention(encoder=ENCODER, decoder=DECODER, cross=CROSS[..., :3]), {}, "do not fit"),
    (Attention(encoder=ENCODER, decoder=DECODER[:1], cross=CROSS), {}, "different batch axes"),
    (ENCODER, {"positions": 5}, "Output 5 does not exist"),
    (ENCODER, {"positions": []}, "positions is"),
    (ENCODER, {"n_tokens": 5}, "n_tokens and n_target are for models and configs"),
    (ENCODER, {"solver": "magic"}, "solver is 'magic'"),
    (ENCODER, {"decoder_layer": "serial"}, "decoder_layer is 'serial'"),
    (ENCODER, {"n_threads": 0}, "n_threads is 0"),
]


@pytest.mark.parametrize(("model", "options", "message"), BAD)
def test_impossible_shapes(model, options, message):
    with pytest.raises(ValueError, match=message):
        estimate_cost(model, **options)


@pytest.mark.parametrize("model", ["bert", (6, 12.5), None])
def test_what_has_no_shape(model):
    with pytest.raises(
        (TypeError, ValueError), match=r"expected an Attention, Capacities, an array or a|there is no stack"
    ):
        estimate_cost(model)
