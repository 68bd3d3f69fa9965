"""What moves information from token to token and is no attention: refused, or accepted and said everywhere."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from capture.mixing_models import HARMLESS, MIXING, convolved, poisoned, recurrent
from capture.traced_models import B, D, T, attend, by_hand, causal, layers, norm, parameters, tokens
from flax import nnx

from jaxflow import as_model, attention_gradients, capture, capture_contributions, explain
from jaxflow.network import capture_capacities


def with_mix(mix, *, before=lambda x: x, after=lambda x: x):
    """Three layers of attention; `mix` is added behind each."""

    def model(params, x, kept=None):
        x = before(x)
        for p in layers(params):
            x = x + attend(p, norm(x), kept=kept)
            x = x + mix(x)
        return after(x)

    return model


def nothing(x):
    return jnp.zeros_like(x)


@pytest.mark.parametrize("name", MIXING)
def test_mixing_is_refused_with_its_place(name):
    mix, what = MIXING[name]
    model = with_mix(jax.named_scope("other")(mix))
    with pytest.raises(
        ValueError, match=rf"something other than attention(.|\n)*/other.*({what})(.|\n)*mixing='accept'"
    ):
        capture(model, parameters(3), tokens())


@pytest.mark.parametrize(
    "name", sorted(set(MIXING) - {"callback", "sort", "hard attention", "hard attention by a product"})
)
def test_what_is_refused_does_mix(name):
    """The oracle: a token that is NaN makes others NaN."""
    assert any(poisoned(MIXING[name][0], token).sum() > 1 for token in range(T))


@pytest.mark.parametrize("name", HARMLESS)
def test_what_mixes_nothing_passes(name):
    model, params = with_mix(HARMLESS[name]), parameters(3)
    _, attention = capture(model, params, tokens())
    assert attention.mixing == ()
    np.testing.assert_allclose(attention.encoder, by_hand(model, params, tokens()), atol=1e-5)


def test_queries_and_keys_that_are_one_array():
    def model(x):
        for _ in range(2):
            x = x + jax.nn.softmax(jnp.einsum("bqd,bkd->bqk", x, x)) @ x
        return x

    embedded = capture(lambda table, ids: model(table[ids]), TABLES["words"], IDS)[1]
    assert embedded.mixing == ()


def test_accepted_mixing_is_a_remark():
    model, params = with_mix(recurrent), parameters(3)
    _, attention = capture(as_model(model, mixing="accept"), params, tokens())
    assert attention.mixing == ("a recurrence over tokens (`scan`)",)
    np.testing.assert_allclose(attention.encoder, by_hand(model, params, tokens()), atol=1e-5)
    _, reduced = jax.jit(functools.partial(capture, as_model(model, mixing="accept")))(params, tokens())
    assert reduced.mixing == attention.mixing


@pytest.mark.parametrize("take", [capture, capture_capacities, functools.partial(attention_gradients, target=jnp.sum)])
def test_every_way_to_capture_refuses(take):
    with pytest.raises(ValueError, match="a recurrence over tokens"):
        take(with_mix(recurrent), parameters(3), tokens())


def test_only_refuse_and_accept():
    with pytest.raises(ValueError, match="mixing is 'none'; expected 'refuse' or 'accept'"):
        as_model(with_mix(nothing), mixing="none")


def test_contributions_are_refused_though_accepted():
    model = as_model(with_mix(recurrent), mixing="accept")
    with pytest.raises(
        ValueError, match=r"contributions of model cannot be told(.|\n)*recurrence(.|\n)*LeaveOneOut\(\)"
    ):
        capture_contributions(model, parameters(3), tokens(), target=lambda x: x[:, 0].sum(-1))


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        (convolved, None, "convolution"),
        (recurrent, None, "recurrence"),
        (None, recurrent, "recurrence"),
        (None, functools.partial(jnp.cumsum, axis=1), "running sum"),
    ],
)
def test_before_the_first_layer_and_after_the_last(before, after, what):
    given = {name: f for name, f in (("before", before), ("after", after)) if f is not None}
    with pytest.raises(ValueError, match=what):
        capture(with_mix(nothing, **given), parameters(2), tokens())


@pytest.mark.parametrize(
    "after",
    [
        lambda x: x.mean(1),
        lambda x: x.max(1) @ tokens(D, 2),
        lambda x: jnp.tanh(x[:, 0] @ tokens(D, 2)),
        lambda x: jax.nn.log_softmax(x[..., 0], 1),
        lambda x: x[:, :-1],
        lambda x: (x, x[:, 0], x.mean(1)),
        lambda x: jnp.einsum("bt,btd->bd", jax.nn.softmax(x[..., 0], 1), x),
    ],
    ids=["mean", "maximum", "first", "softmax over tokens", "all but the last", "several", "weighted mean"],
)
def test_pooling_at_the_end_is_no_mixing(after):
    _, attention = capture(with_mix(nothing, after=after), parameters(2), tokens())
    assert attention.encoder.shape[-1] == T


TABLES = {"words": tokens(11, D, seed=2), "positions": tokens(20, D, seed=3), "first": tokens(1, D, seed=4)}
IDS = jnp.arange(B * T).reshape(B, T) % 11


def reading(embed, **parts):
    return lambda ids, mask: with_mix(nothing, **parts)(parameters(2), embed(ids, mask))


def counted(mask):
    return jnp.maximum(jnp.cumsum(mask, 1) - 1, 0)


EMBEDDINGS = {
    "positions that are counted": lambda ids, mask: TABLES["words"][ids] + TABLES["positions"][counted(mask)],
    "RoBERTa": lambda ids, mask: TABLES["words"][ids] + TABLES["positions"][counted((ids != 1).astype(int))],
    "angles of counted positions": lambda ids, mask: (
        TABLES["words"][ids] + jnp.sin(counted(mask)[..., None].astype(jnp.float32))
    ),
    "one-hot": lambda ids, mask: jax.nn.one_hot(ids, 11) @ TABLES["words"],
    "a first token": lambda ids, mask: jnp.concatenate(
        [jnp.broadcast_to(TABLES["first"], (B, 1, D)), TABLES["words"][ids]], 1
    ),
    "shifted to the right": lambda ids, mask: TABLES["words"][jnp.pad(ids[:, :-1], ((0, 0), (1, 0)))],
    "padding set to zero": lambda ids, mask: TABLES["words"][ids] * mask[..., None].astype(jnp.float32),
}


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_embeddings_mix_nothing(name):
    _, attention = capture(reading(EMBEDDINGS[name]), IDS, jnp.ones_like(IDS))
    assert attention.mixing == ()


@pytest.mark.parametrize(
    ("embed", "what"),
    [
        (lambda ids, mask: convolved(TABLES["words"][ids]), "convolution"),
        (lambda ids, mask: convolved(jax.nn.one_hot(ids, 11) @ TABLES["words"]), "convolution"),
        (lambda ids, mask: recurrent(TABLES["words"][ids]), "recurrence"),
        (
            lambda ids, mask: (
                TABLES["words"][ids] + TABLES["positions"][(3 * ids + jnp.pad(ids[:, :-1], ((0, 0), (1, 0)))) % 20]
            ),
            "put to other places",
        ),
    ],
    ids=["convolution", "one-hot", "recurrence", "pairs of words"],
)
def test_words_that_are_mixed_before_the_first_layer(embed, what):
    with pytest.raises(ValueError, match=what):
        capture(reading(embed), IDS, jnp.ones_like(IDS))


def test_patches_of_pixels_and_frames_of_sound_are_no_tokens():
    def patches(pixels):
        x = jax.lax.conv_general_dilated(
            pixels, tokens(2, 2, 3, D), (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return with_mix(nothing)(parameters(2), x.reshape(B, -1, D))

    def frames(sound):
        x = jax.nn.gelu(jax.lax.conv_general_dilated(sound, tokens(3, 3, D), (1,), "SAME", dimension_numbers=WIDE))
        x = jax.lax.conv_general_dilated(x, tokens(3, D, D), (2,), [(1, 1)], dimension_numbers=WIDE)
        return with_mix(nothing)(parameters(2), x)

    assert capture(patches, tokens(B, 4, 6, 3))[1].encoder.shape[-1] == 6
    assert capture(frames, tokens(B, 10, 3))[1].encoder.shape[-1] == 5


WIDE = ("NWC", "WIO", "NWC")


@pytest.mark.parametrize("mix", [nothing, convolved, recurrent, lambda x: jnp.pad(x[:, :-1], ((0, 0), (1, 0), (0, 0)))])
@pytest.mark.parametrize("form", ["scan", "vmap", "remat", "jit"])
def test_loops_and_calls(mix, form):
    def scanned(params, x):
        def layer(x, p):
            x = x + attend(p, norm(x))
            return x + mix(x), None

        return jax.lax.scan(layer, x, params)[0]

    model = {
        "scan": scanned,
        "vmap": jax.vmap(with_mix(lambda x: mix(x[None])[0] if x.ndim == 2 else mix(x)), (None, 0)),
        "remat": with_mix(jax.checkpoint(mix)),
        "jit": jax.jit(with_mix(jax.jit(mix))),
    }[form]
    x = tokens() if form != "vmap" else tokens()[None]
    if mix is nothing:
        capture(model, parameters(2), x)
    else:
        with pytest.raises(ValueError, match="something other than attention"):
            capture(model, parameters(2), x)


def encoder_decoder(params, x, y, *, leak=False):
    for p in layers(params):
        x = x + attend(p, norm(x))
    for p in layers(params):
        y = y + attend(p, norm(y), bias=causal(y.shape[1]))
        y = y + attend(p, norm(y), norm(x))
        y = y + x.mean(1, keepdims=True) if leak else y
    return y


def test_from_one_stack_to_the_other():
    params, x, y = parameters(2), tokens(), tokens(B, 4, D, seed=9)
    assert capture(encoder_decoder, params, x, y)[1].mixing == ()
    with pytest.raises(ValueError, match="goes back to tokens"):
        capture(functools.partial(encoder_decoder, leak=True), params, x, y)


def on_a_grid(params, x, mix):
    for p in layers(params):
        q, k, v = (jnp.einsum("bhwd,dnf->bhwnf", x, p[name]) for name in "qkv")
        z = jnp.einsum("bhwnf,bijnf->bnhwij", q, k)
        w = jax.nn.softmax(z.reshape(*z.shape[:-2], -1)).reshape(z.shape)
        x = x + jnp.einsum("bnhwij,bijnf,nfd->bhwd", w, v, p["o"])
        x = x + mix(x)
    return x


def test_tokens_on_a_grid():
    x = tokens(B, 2, 3, D)
    assert capture(functools.partial(on_a_grid, mix=jnp.tanh), parameters(2), x)[1].mixing == ()

    def mix(x):
        return jax.lax.conv_general_dilated(
            x, tokens(3, 3, 1, D), (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=D
        )

    with pytest.raises(ValueError, match="convolution"):
        capture(functools.partial(on_a_grid, mix=mix), parameters(2), x)


def test_keys_or_values_of_other_tokens():
    """A short convolution over the values alone is a way past the network too."""

    def model(params, x):
        for p in layers(params):
            q, k, v = (jnp.einsum("btd,dhf->bthf", norm(x), p[name]) for name in "qkv")
            v = v + jnp.pad(v[:, :-1], ((0, 0), (1, 0), (0, 0), (0, 0)))
            w = jax.nn.softmax(jnp.einsum("bthf,bshf->bhts", q, k))
            x = x + jnp.einsum("bhts,bshf,hfd->btd", w, v, p["o"])
        return x

    with pytest.raises(ValueError, match="put to other places"):
        capture(model, parameters(2), tokens())


class Linen(nn.Module):
    mixes: bool
    sows: bool = False

    @nn.compact
    def __call__(self, x):
        for _ in range(2):
            if self.sows:  # no softmax: what a trace does not find
                q, k, v = (nn.DenseGeneral((2, 4))(x) for _ in range(3))
                w = nn.sigmoid(jnp.einsum("bthf,bshf->bhts", q, k))
                w = w / w.sum(-1, keepdims=True)
                self.sow("intermediates", "attention_weights", w)
                x = x + jnp.einsum("bhts,bshf->bthf", w, v).reshape(x.shape)
            else:
                x = x + nn.MultiHeadDotProductAttention(num_heads=2)(x)
            if self.mixes:
                x = x + nn.Conv(D, (3,))(x)
        return x


@pytest.mark.parametrize("sows", [False, True])
def test_linen_modules_that_sow(sows):
    x = tokens()
    plain, mixed = Linen(False, sows), Linen(True, sows)
    assert capture(plain, x, variables=plain.init(jax.random.key(0), x))[1].backend == "linen"
    variables = mixed.init(jax.random.key(0), x)
    with pytest.raises(ValueError, match=r"/Linen/Conv_\d: a convolution over tokens"):
        capture(mixed, x, variables=variables)
    accepted = as_model(mixed, variables=variables, mixing="accept")
    _, attention = capture(accepted, x)
    assert attention.backend == "linen"
    assert len(attention.mixing) == 2
    own = mixed.apply(variables, x, mutable="intermediates")[1]["intermediates"] if sows else None
    if sows:
        np.testing.assert_allclose(attention.encoder, jnp.stack(own["attention_weights"], 1), atol=1e-6)


class Nnx(nnx.Module):
    def __init__(self, mixes):
        rngs = nnx.Rngs(0)
        self.attention = nnx.MultiHeadAttention(num_heads=2, in_features=D, decode=False, rngs=rngs)
        self.mix = nnx.Conv(D, D, (3,), rngs=rngs) if mixes else nnx.Linear(D, D, rngs=rngs)

    def __call__(self, x):
        x = x + self.attention(x, sow_weights=True)
        return x + self.mix(x)


def test_nnx_modules_that_sow():
    assert capture(Nnx(False), tokens())[1].backend == "nnx"
    with pytest.raises(ValueError, match="convolution"):
        capture(Nnx(True), tokens())
    _, attention = capture(as_model(Nnx(True), mixing="accept"), tokens())
    assert (attention.backend, len(attention.mixing)) == ("nnx", 1)


@jax.jit
def classify(params, input_ids):
    x = TABLES["words"][input_ids]
    for p in layers(params):
        x = x + attend(p, norm(x))
        x = x + jnp.cumsum(x, 1)
    return x[:, 0] @ tokens(D, 2)


def test_every_view_says_what_is_left_out(tmp_path):
    model = as_model(functools.partial(classify, parameters(2)), mixing="accept", labels=("no", "yes"))
    ids = {"input_ids": np.arange(T)[None]}
    explanation = explain(model, ids)
    assert len(explanation.mixing) == 1
    assert "running sum" in explanation.mixing[0]
    assert "tokens mixed outside of attention" in repr(explanation)
    assert "Left out of all scores by attention: tokens are mixed by something else too" in str(explanation)
    assert "running sum" in explanation.to_json()
    explanation.save(tmp_path / "it.html")
    assert "tokens are mixed by something else too" in (tmp_path / "it.html").read_text()
    assert "cannot be told" in explanation.contributions_refused
    asked = dataclasses.replace(explanation, method="leave_one_out")  # asks the model itself, and leaves nothing out
    assert "Left out of all scores" not in str(asked)


def test_a_program_that_was_accepted_is_still_refused_to_others():
    """Compiled programs are kept by what depends on the model's settings."""
    function, ids = functools.partial(classify, parameters(2)), {"input_ids": np.arange(T)[None]}
    explain(as_model(function, mixing="accept"), ids, "rollout")
    with pytest.raises(ValueError, match="running sum"):
        explain(function, ids, "rollout")


def test_fixed_indices_that_have_no_value_yet():
    """Under jit, an array that a function closes over may be an argument of the program."""
    where = jnp.array([0, 0, 1, 2, 3])

    def capturing(where, x):
        return capture(with_mix(lambda x: x[:, where]), parameters(2), x)[1].encoder

    with pytest.raises(ValueError, match="something other than attention"):
        jax.jit(capturing)(where, tokens())
