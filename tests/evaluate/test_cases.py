"""Which tokens of a text are hidden, and how: on a planted decoder whose first token carries everything."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxflow import compare
from jaxflow.attribute import Random
from jaxflow.evaluate import erase, masked_value
from jaxflow.zoo._tokenizer import WordTokenizer

WORDS = ("[PAD]", *"abcdefghijklm")
DECISIVE, N_TOKENS = 3, 7
TEXTS = ["a b c d e f g", "b c d e f g h", "c b a d h g f", "m l k j i h g", "e a d g c f b", "h i j k a b c"]
# Of bins 1, 5, 10, 20 and 50% of 6 candidates, 1, 1, 1, 2 and 3 are hidden.
CHANCE = np.mean([1, 1, 1, 2, 3]) / (N_TOKENS - 1)


def tokenizer(**options):
    return WordTokenizer(
        WORDS, model_max_length=16, split=lambda text: list(re.finditer("[a-z]", text)), example="a b", **options
    )


class Sink(nn.Module):
    """A decoder that writes a token by the one at DECISIVE, and nothing if the first token is hidden."""

    eos_token_id: int = 1

    @nn.compact
    def __call__(self, input_ids, attention_mask):
        shown = jnp.asarray(attention_mask, bool) & (input_ids != 0)
        evidence = shown[:, 0] & shown[:, DECISIVE]
        logits = 40.0 * evidence[:, None, None].astype(float) * jax.nn.one_hot(2, len(WORDS))[None, None]
        return jnp.broadcast_to(logits, (*input_ids.shape, len(WORDS)))


class Maskless(nn.Module):
    """The same, without a mask."""

    eos_token_id: int = 1

    @nn.compact
    def __call__(self, input_ids):
        return Sink()(input_ids, jnp.ones_like(input_ids))


class Sorted:
    """Ranks tokens in this order."""

    def __init__(self, *order):
        self.order = order

    def attribute(self, evidence):
        n_tokens = len(evidence.tokens["decoder"])
        return np.array([-self.order.index(i) if i in self.order else -n_tokens for i in range(n_tokens)], float)


RIGHT, FIRST = Sorted(DECISIVE), Sorted(0, 1, 2, 4, 5, 6, DECISIVE)


def test_before_hiding_the_first_token_was_as_good_as_hiding_what_decides():
    """Without `candidates`, as the measures are of any scores."""
    ids = tokenizer()([TEXTS[0]])["input_ids"]
    value = masked_value(
        Sink().bind({}),
        target=lambda logits: jax.nn.softmax(logits)[:, -1, 2],
        input_ids=ids,
        attention_mask=np.ones_like(ids),
    )
    rng = np.random.default_rng(0)
    first, right, *chance = (
        erase(value, scores).aopc_comprehensiveness
        for scores in (np.arange(7)[::-1], np.arange(7) == DECISIVE, *(rng.random(7) for _ in range(300)))
    )
    assert first == pytest.approx(right, abs=1e-3)
    assert first > 0.9
    assert np.mean(chance) > 1.4 * CHANCE


@pytest.mark.parametrize(("module", "hide"), [(Sink(), "mask"), (Sink(), "replace"), (Maskless(), "replace")])
def test_the_first_token_of_a_decoder_stays_and_random_is_chance(module, hide):
    methods = {"right": RIGHT, "first": FIRST} | {f"random {i}": Random(seed=i) for i in range(150)}
    found = compare(
        module.bind({}),
        TEXTS,
        tokenizer=tokenizer(),
        methods=methods,
        metrics=["comprehensiveness", "sufficiency"],
        hide=hide,
    )
    assert all(known.tolist() == [False] + [True] * 6 for known in found.candidates)
    drop = 1 - 1 / len(WORDS)
    comprehensiveness, sufficiency = found.mean.T / drop
    np.testing.assert_allclose(comprehensiveness[:2], [1, 0], atol=1e-3)
    np.testing.assert_allclose(sufficiency[:2], [0, 1], atol=1e-3)
    assert comprehensiveness[2:].mean() == pytest.approx(CHANCE, abs=0.03)  # over 900 draws
    assert sufficiency[2:].mean() == pytest.approx(1 - CHANCE, abs=0.03)


def test_a_special_first_token_is_the_only_one_that_stays():
    words = ("[PAD]", "[BOS]", *WORDS[1:])
    starting = WordTokenizer(
        words, model_max_length=16, split=lambda text: list(re.finditer("[a-z]", text)), example="a b", start="[BOS]"
    )
    found = compare(Sink().bind({}), ["a b c d"], tokenizer=starting, methods=["random"], metrics=["deletion"])
    assert found.candidates[0].tolist() == [False, True, True, True, True]


def test_a_token_that_is_given_stands_in():
    class Counts(nn.Module):
        """The more tokens are `a`, the surer."""

        eos_token_id: int = 1

        def __call__(self, input_ids):
            n_found = (input_ids == 1).astype(float).sum(-1)[:, None, None]
            return jnp.broadcast_to(n_found * jax.nn.one_hot(2, len(WORDS))[None, None], (*input_ids.shape, len(WORDS)))

    found = compare(
        Counts().bind({}), ["a b b b b"], tokenizer=tokenizer(), methods=["leave_one_out"], metrics=["deletion"], hide=1
    )
    assert found.scores[0][0].tolist() == [0, -1, -1, -1, -1]


def test_refusals():
    def refused(match, module=None, read=None, **options):
        with pytest.raises(ValueError, match=match):
            compare(
                (module or Sink()).bind({}),
                TEXTS[:1],
                tokenizer=read or tokenizer(),
                methods=["random"],
                metrics=["deletion"],
                **options,
            )

    refused("hide is 'delete'; expected 'mask', 'replace', or the id of a token", hide="delete")
    refused("hide is True; expected 'mask'", hide=True)
    refused("hide is 14; expected the id of a token, 0 to 13", hide=14)
    refused("hide is -1; expected the id of a token, 0 to 13", hide=-1)
    refused("Maskless takes no attention_mask to hide tokens by: pass hide='replace'", module=Maskless())
    bare = tokenizer()
    bare.pad_token_id = None
    refused(
        "hide='replace' takes the tokenizer's token for masks, .* it has none of these: pass the id",
        read=bare,
        hide="replace",
    )
    with pytest.raises(
        ValueError, match="has 1 tokens that can be hidden, special ones and the first of a decoder excepted"
    ):
        compare(Sink().bind({}), ["a b"], tokenizer=tokenizer(), methods=["random"], metrics=["deletion"])
