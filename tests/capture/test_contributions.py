"""Contributions against derivations in NumPy that go forwards, and against what must hold of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxflow as jf
from jaxflow.capture import capture_contributions

N_TOKENS, WIDTH, N_HEADS, N_GROUPS, HIDDEN, N_LAYERS, N_LABELS = 6, 12, 4, 2, 10, 2, 5
LAST = N_TOKENS - 1


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng([seed, *shape]).normal(size=shape) / np.sqrt(shape[-2]), jnp.float32)


def llama_parameters():
    """Layers of RMSNorm, grouped queries and gated units, without biases."""
    size = WIDTH // N_HEADS
    shapes = {
        "q": (WIDTH, N_HEADS * size), "k": (WIDTH, N_GROUPS * size), "v": (WIDTH, N_GROUPS * size), "o": (N_HEADS * size, WIDTH),
        "gate": (WIDTH, HIDDEN), "up": (WIDTH, HIDDEN), "down": (HIDDEN, WIDTH),
    }  # fmt: skip
    layers = {name: draw(N_LAYERS, *shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}
    return {"layers": layers, "head": draw(WIDTH, N_LABELS, seed=20)}


def rms(x):
    return jnp.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)


def layer(x, p):
    size = WIDTH // N_HEADS
    h = x / rms(x)
    q, k, v = ((h @ p[name]).reshape(*h.shape[:-1], -1, size) for name in ("q", "k", "v"))
    k, v = (jnp.repeat(part, N_HEADS // N_GROUPS, axis=-2) for part in (k, v))
    scores = jnp.einsum("...qhd,...khd->...hqk", q, k) / np.float32(np.sqrt(size))
    scores = jnp.where(jnp.tri(x.shape[-2], dtype=bool), scores, -jnp.inf)
    weights = jax.nn.softmax(scores, axis=-1)
    x = x + jnp.einsum("...hqk,...khd->...qhd", weights, v).reshape(x.shape) @ p["o"]
    h = x * jax.lax.rsqrt((x**2).mean(-1, keepdims=True) + 1e-5)
    return x + (jax.nn.silu(h @ p["gate"]) * (h @ p["up"])) @ p["down"]


def llama(params, x):
    """Return logits, layer by layer."""
    for i in range(N_LAYERS):
        x = layer(x, jax.tree.map(lambda leaf, i=i: leaf[i], params["layers"]))
    return (x / rms(x)) @ params["head"]


def scanned(params, x):
    x, _ = jax.lax.scan(lambda x, p: (jax.checkpoint(layer)(x, p), None), x, params["layers"])
    return (x / rms(x)) @ params["head"]


def decomposed(params, x, weights, label, position):
    """Go forwards with one vector per source token: `[token]`, what each gives to a logit."""
    x = np.asarray(x, np.float64)
    parts = np.eye(len(x))[:, :, None] * x[:, None, :]  # [position, source, width]
    size = WIDTH // N_HEADS
    for i in range(N_LAYERS):
        p = {name: np.asarray(leaf[i], np.float64) for name, leaf in params["layers"].items()}
        norm = np.sqrt((parts.sum(1) ** 2).mean(-1) + 1e-5)[:, None, None]
        v = np.repeat((parts / norm @ p["v"]).reshape(*parts.shape[:2], N_GROUPS, size), N_HEADS // N_GROUPS, axis=2)
        mixed = np.einsum("hqk,kshd->qshd", np.asarray(weights[i], np.float64), v)
        parts = parts + mixed.reshape(*parts.shape[:2], -1) @ p["o"]
        h = parts / np.sqrt((parts.sum(1) ** 2).mean(-1) + 1e-5)[:, None, None]
        gate, up = h @ p["gate"], h @ p["up"]
        whole_gate, whole_up = gate.sum(1, keepdims=True), up.sum(1, keepdims=True)
        sigmoid = 1 / (1 + np.exp(-whole_gate))
        parts = parts + 0.5 * sigmoid * (gate * whole_up + whole_gate * up) @ p["down"]
    norm = np.sqrt((parts.sum(1) ** 2).mean(-1) + 1e-5)[:, None, None]
    return (parts / norm @ np.asarray(params["head"], np.float64))[position, :, label]


@pytest.mark.parametrize("model", [llama, scanned, jax.jit(llama)])
def test_equal_a_forward_decomposition(model):
    params, x = llama_parameters(), draw(2, N_TOKENS, WIDTH, seed=7)
    outputs, attention, found = capture_contributions(model, params, x, target=jf.logit(3, position=LAST))
    if model is llama:
        np.testing.assert_array_equal(outputs, model(params, x))
    else:  # what is compiled rounds as it fuses
        np.testing.assert_allclose(outputs, model(params, x), rtol=1e-4)
    for row in range(2):
        weights = attention.encoder if attention.decoder is None else attention.decoder
        expected = decomposed(params, x[row], weights[row], 3, LAST)
        np.testing.assert_allclose(
            found.inputs["encoder"][row], expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max()
        )
    np.testing.assert_allclose(found.value, outputs[:, LAST, 3], rtol=1e-6)
    np.testing.assert_allclose(found.levels["encoder"].sum(-1), np.tile(found.value[:, None], 3), rtol=1e-5)


def test_of_several_positions_are_the_sum_of_each():
    params, x = llama_parameters(), draw(N_TOKENS, WIDTH, seed=7)
    written = [(2, 1), (3, 4), (5, 0)]
    each = [
        capture_contributions(llama, params, x, target=jf.logit(label, position=position))[2]
        for position, label in written
    ]

    def answer(outputs):
        return sum(outputs[position, label] for position, label in written)

    _, _, whole = capture_contributions(llama, params, x, target=answer)
    for name in ("encoder", "encoder_stay", "outputs", "value"):
        expected = sum(getattr(one, name) for one in each)
        np.testing.assert_allclose(getattr(whole, name), expected, atol=1e-5, err_msg=name)


def test_pooled_outputs_are_the_mean_over_positions():
    params, x = llama_parameters(), draw(2, N_TOKENS, WIDTH, seed=8)

    def pooled(params, x):
        return llama({**params, "head": jnp.eye(WIDTH)}, x).mean(-2) @ params["head"]

    _, _, found = capture_contributions(pooled, params, x, target=jf.logit(2))
    each = [
        capture_contributions(llama, params, x, target=jf.logit(2, position=position))[2].inputs["encoder"]
        for position in range(N_TOKENS)
    ]
    np.testing.assert_allclose(found.inputs["encoder"], np.mean(each, 0), atol=1e-5)
    np.testing.assert_allclose(found.outputs.sum(-1), found.value, rtol=1e-5)


def attend(scores, x):
    """Attend by fixed scores, whatever x is."""
    queries, keys = (part + 0.0 * x[:, :1] for part in (scores, jnp.eye(len(x))))
    return jax.nn.softmax(queries @ keys.T, axis=-1) @ x


def test_of_an_affine_model_are_what_removing_a_token_changes(standard_promotion):
    """Constant attention and no activation: the model adds up its tokens."""
    mixing = np.asarray(jax.nn.softmax(draw(2, 5, 5, seed=1) * 3, axis=-1))
    first, second, head = (np.asarray(draw(4, 4, seed=i)) for i in range(3))

    def model(x, queries):
        for i, matrix in enumerate((first, second)):
            x = x + attend(queries[i], x) @ matrix
        return x @ head

    queries, x = np.log(mixing), np.asarray(draw(5, 4, seed=9))
    _, _, found = capture_contributions(model, x, queries, target=lambda outputs: outputs[1, 2])
    whole = x + mixing[0] @ x @ first
    whole = (whole + mixing[1] @ whole @ second) @ head
    np.testing.assert_allclose(found.value, whole[1, 2], rtol=1e-5)
    for token in range(5):
        without = x.copy()
        without[token] = 0
        np.testing.assert_allclose(
            found.inputs["encoder"][token], whole[1, 2] - np.asarray(model(without, queries))[1, 2], atol=1e-5
        )


def test_gates_are_held_and_activations_keep_their_ratio():
    """Each unit by itself, on what attention gave: y = unit(u) - unit(0), if the unit is 0 at 0 or an offset is taken off."""
    x, matrix = draw(4, 6, seed=3), draw(6, 6, seed=4)
    units = {
        "relu": jax.nn.relu, "gelu": jax.nn.gelu, "gelu by erf": lambda u: jax.nn.gelu(u, approximate=False), "silu": jax.nn.silu,
        "tanh": jnp.tanh, "elu": jax.nn.elu, "squared relu": lambda u: jax.nn.relu(u) ** 2, "mish": jax.nn.mish,
        "soft cap": lambda u: 3.0 * jnp.tanh(u / 3.0), "by hand": lambda u: u / (1 + jnp.exp(-u)), "selu": jax.nn.selu,
        "tanh times sigmoid": lambda u: jnp.tanh(u) * jax.nn.sigmoid(u[::-1]), "norm": lambda u: u / jnp.linalg.norm(u),
        "gated by softmax": lambda u: jax.nn.softmax(u[::-1]) * u, "product": lambda u: u * u[::-1],
        "leaky": jax.nn.leaky_relu, "log softmax": lambda u: u - jax.nn.logsumexp(u) + jax.lax.stop_gradient(jax.nn.logsumexp(u)),
    }  # fmt: skip
    for name, unit in units.items():

        def model(x, unit=unit):
            given = jax.nn.softmax(x @ x.T, axis=-1) @ (x @ matrix)
            return unit(given[0])

        def arcs(x, unit=unit):
            _, _, found = capture_contributions(
                lambda x: model(x, unit), x, target=lambda outputs: (outputs * jnp.arange(6.0)).sum()
            )
            return found.encoder.sum(), found.value

        given, value = arcs(x)
        np.testing.assert_allclose(given, value, rtol=2e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("gated", [True, False])
def test_a_branch_is_frozen_as_it_was_taken(gated):
    x, matrix = draw(4, 6, seed=3), draw(6, 6, seed=4)

    def model(x, gated):
        given = jax.nn.softmax(x @ x.T, axis=-1) @ (x @ matrix)
        return jax.lax.cond(gated, jax.nn.silu, lambda u: jnp.ones_like(u), given)[0]

    _, _, found = capture_contributions(model, x, jnp.asarray(gated), target=lambda outputs: outputs.sum())
    np.testing.assert_allclose(found.encoder.sum(), found.value if gated else 0, rtol=2e-5, atol=1e-6)


def test_nothing_of_padding_and_of_what_no_path_reaches():
    model, tokenizer = jf.load_model("agreement-lm")
    ids = np.asarray(tokenizer(["the keys to the old cabinet"])["input_ids"])
    _, _, found = capture_contributions(model, ids, target=jf.logit(5, position=2))
    assert (found.inputs["decoder"][0, 3:] == 0).all()
    assert (found.inputs["decoder"][0, :3] != 0).all()
    model, tokenizer = jf.load_model("agreement")
    alone = {name: np.asarray(values) for name, values in tokenizer(["the keys of the doors"]).items()}
    both = tokenizer(["the keys of the doors", "the keys to the old cabinets"])
    both = {name: np.asarray(values) for name, values in both.items()}
    n_real = alone["input_ids"].shape[-1]
    _, _, batched = capture_contributions(model, target=jf.contrast(1, 0), **both)
    _, _, single = capture_contributions(model, target=jf.contrast(1, 0), **alone)
    assert (batched.inputs["encoder"][0, n_real:] == 0).all()
    np.testing.assert_allclose(batched.inputs["encoder"][0, :n_real], single.inputs["encoder"][0], atol=2e-5)


def test_a_planted_token_gives_everything(standard_promotion):
    """The head of the first layer copies token 2 to position 0, and nothing else of the stream counts."""
    x = np.zeros((5, 8), np.float32)
    x[:, 5:] = np.random.default_rng(0).normal(size=(5, 3))
    x[2, 0] = 4.0
    look = np.full((5, 5), -50.0, np.float32)
    look[:, 2] = 50.0

    def model(x, look):
        for _ in range(2):
            x = x + attend(look, x) * jnp.asarray([1.0, *[0.0] * 7])
        return x[0, 0]

    _, _, found = capture_contributions(model, x, look, target=lambda y: y)
    np.testing.assert_allclose(found.inputs["encoder"], [0, 0, found.value, 0, 0], atol=1e-6)


def test_pure():
    params, x = llama_parameters(), draw(3, N_TOKENS, WIDTH, seed=5)

    def inputs(params, x):
        return capture_contributions(llama, params, x, target=jf.logit(1, position=LAST))[2].inputs["encoder"]

    expected = inputs(params, x)
    np.testing.assert_allclose(jax.jit(inputs)(params, x), expected, atol=1e-5)
    np.testing.assert_allclose(jax.vmap(inputs, (None, 0))(params, x), expected, atol=1e-5)
    # The gradient is that of the contributions themselves, gates included.
    gradient = jax.grad(lambda x: inputs(params, x)[0, 2])(x)
    step = 1e-2 * np.asarray(draw(3, N_TOKENS, WIDTH, seed=6))
    ends = [inputs(params, x + sign * step)[0, 2] for sign in (1, -1)]
    np.testing.assert_allclose((gradient * step).sum(), (ends[0] - ends[1]) / 2, rtol=2e-2)


def test_half_precision_is_summed_in_float32():
    params, x = llama_parameters(), draw(2, N_TOKENS, WIDTH, seed=7)
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), (params, x))
    target = jf.logit(3, position=LAST)
    with jax.numpy_dtype_promotion("standard"):
        _, _, found = capture_contributions(llama, *half, target=target)
    _, _, exact = capture_contributions(llama, params, x, target=target)
    assert found.encoder.dtype == jnp.float32
    np.testing.assert_allclose(found.inputs["encoder"], exact.inputs["encoder"], atol=0.1)
    np.testing.assert_allclose(found.inputs["encoder"].sum(-1), found.value, rtol=1e-5)


def test_what_cannot_be_frozen_is_refused():
    x = draw(4, 6, seed=3)

    def with_while(x):
        x = jax.nn.softmax(x @ x.T, axis=-1) @ x
        return jax.lax.while_loop(lambda state: state.sum() < 0, lambda state: state + 1, x)

    def with_product(x):
        return jnp.prod(jax.nn.softmax(x @ x.T, axis=-1) @ x, axis=-1)

    for model, operation in ((with_while, "while"), (with_product, "reduce_prod")):
        with pytest.raises(ValueError, match=f"(?s)cannot be told.*{operation}.*AttentionFlow"):
            capture_contributions(model, x, target=lambda outputs: outputs.sum())


def test_positions_that_cannot_be_told_apart_are_refused():
    """Products of all pairs of positions are summed: no position gives a part of its own."""
    x = draw(4, 6, seed=3)

    def model(x):
        given = jax.nn.softmax(x @ x.T, axis=-1) @ x
        return (given @ given.T).sum()

    for captured in (capture_contributions, jax.jit(capture_contributions, static_argnums=0, static_argnames="target")):
        with pytest.raises(ValueError, match=r"(?s)reads several positions of model.*Expected outputs per position"):
            captured(model, x, target=lambda outputs: outputs)


def test_a_target_must_be_one_number_per_example():
    params, x = llama_parameters(), draw(2, N_TOKENS, WIDTH, seed=7)
    with pytest.raises(ValueError, match="one number per example"):
        capture_contributions(llama, params, x, target=lambda outputs: outputs.sum())
