import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_models

from jaxflow import Generate, explain
from jaxflow.models import generate
from jaxflow.models._generation import generate_with
from jaxflow.zoo._layers import Layer, check_ids
from jaxflow.zoo._tokenizer import WordTokenizer

WORDS = ("[PAD]", "[BOS]", "[EOS]", *"abcdefgh")


class Writer(nn.Module):
    """A tiny language model, or with an encoder a tiny translator."""

    has_encoder: bool
    eos_token_id: int = 2
    max_length: int = 9
    labels: tuple[str, ...] = WORDS

    def setup(self):
        self.embed = nn.Embed(len(WORDS), 16)
        self.encoder = Layer(2, 16) if self.has_encoder else None
        self.decoder = Layer(2, 16)
        self.head = nn.Dense(len(WORDS))
        self.positions = nn.Embed(self.max_length, 16)

    def __call__(self, input_ids, attention_mask=None, decoder_input_ids=None):
        memory = ()
        if self.has_encoder:
            mask = jnp.ones(input_ids.shape, bool) if attention_mask is None else jnp.asarray(attention_mask) != 0
            memory = (self.encoder(self.embed(input_ids), mask[:, None, None]), mask[:, None, None])
            input_ids = decoder_input_ids
        check_ids(input_ids, self.max_length)
        x = self.embed(input_ids) + self.positions(jnp.arange(input_ids.shape[1])[None])
        return self.head(self.decoder(x, nn.make_causal_mask(input_ids, dtype=bool), *memory))


class Translator(Writer):
    decoder_start_token_id: int = 1


def build(module):
    ids = jnp.ones((1, 3), int)
    inputs = (ids, None, ids) if module.has_encoder else (ids,)
    # Weights large enough for the tokens to differ.
    return module.bind(jax.tree.map(lambda leaf: 1.5 * leaf, module.init(jax.random.key(1), *inputs)))


MODELS = {"decoder": build(Writer(has_encoder=False)), "encoder-decoder": build(Translator(has_encoder=True))}


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]


class Tokenizer(WordTokenizer):
    def __call__(self, text=None, *, text_target=None, **options):
        if text is not None:
            return super().__call__(text, **options)
        return {"input_ids": np.append(super().__call__(text_target)["input_ids"], 2)}


@pytest.fixture
def tokenizer():
    def split(text):
        return list(re.finditer("[a-z]", text))

    return Tokenizer(WORDS, model_max_length=9, split=split, join="".join, example="abc")


def probabilities_of(model, inputs, sequence):
    read = {**inputs, "decoder_input_ids": sequence[None]} if model.has_encoder else {"input_ids": sequence[None]}
    return np.asarray(jax.nn.softmax(model(**read)[0]))


def test_a_linen_model_writes_what_its_logits_say(model, tokenizer):
    inputs = tokenizer(["abc"])
    sequence, n_prompt = generate(model, inputs)
    assert sequence[:n_prompt].tolist() == ([1] if model.has_encoder else [3, 4, 5])
    likeliest = probabilities_of(model, inputs, sequence).argmax(-1)
    np.testing.assert_array_equal(sequence[n_prompt:], likeliest[n_prompt - 1 : -1])
    assert len(set(sequence[n_prompt:].tolist())) > 1
    assert len(sequence) == model.max_length or sequence[-1] == model.eos_token_id
    shorter, _ = generate(model, inputs, max_new_tokens=2)
    np.testing.assert_array_equal(shorter, sequence[: n_prompt + 2])
    drawn = {tuple(generate(model, inputs, sample=True, seed=seed)[0]) for seed in (0, 0, 1, 2)}
    assert 1 < len(drawn) <= 3


def test_every_token_it_writes_is_explained(model, tokenizer):
    explanation = explain(model, "abc", tokenizer=tokenizer, generate=Generate())
    inputs = tokenizer(["abc"])
    sequence, n_prompt = generate(model, inputs)
    assert explanation.decoder_tokens == tuple(WORDS[i] for i in sequence)
    assert explanation.encoder_tokens == (("a", "b", "c") if model.has_encoder else ())
    assert explanation.attribution.positions.tolist() == list(range(n_prompt - 1, len(sequence) - 1))
    assert (explanation.scores[0] > 0).sum() == len(explanation.encoder_tokens) + n_prompt
    probabilities = probabilities_of(model, inputs, sequence)
    for row, position in enumerate(explanation.attribution.positions.tolist()):
        prediction = explanation.prediction_of(row)
        assert prediction.label == WORDS[sequence[position + 1]]
        assert prediction.probability == pytest.approx(float(probabilities[position].max()), rel=1e-4)


def test_a_continuation_that_is_given(model, tokenizer):
    explanation = explain(model, "abc", tokenizer=tokenizer, generate=Generate(continuation="ha"))
    end = ("[EOS]",) if model.has_encoder else ()
    assert explanation.decoder_tokens[-2 - len(end) :] == ("h", "a", *end)
    words = explain(model, "abc", tokenizer=tokenizer, spans="words", generate=Generate(continuation="ha"))
    assert [token for token in words.tokens if not token.startswith("[")] == ["abc", "ha"]


def test_a_text_that_leaves_no_room(tokenizer):
    with pytest.raises(ValueError, match="The text is 9 tokens long, all that Writer reads and writes: shorten it"):
        generate(MODELS["decoder"], tokenizer(["abcdefgha"]))
    assert generate(MODELS["encoder-decoder"], tokenizer(["abcdefgha"]))[1] == 1
    with pytest.raises(ValueError, match="reads at most 9"):
        explain(MODELS["decoder"], "abcdefgh", tokenizer=tokenizer, generate=Generate(continuation="ha"))


def test_a_text_that_has_ended():
    with pytest.raises(ValueError, match="has the token that ends what Writer writes, number 2: leave it out"):
        generate(MODELS["decoder"], {"input_ids": np.array([[3, 4, 2]])})


def test_options_that_it_does_not_take(model, tokenizer):
    with pytest.raises(ValueError, match=r"num_beams is 3; .* takes the likeliest token or draws"):
        generate(model, tokenizer(["abc"]), num_beams=3)
    with pytest.raises(ValueError, match="max_new_tokens is 0; expected 1 or more"):
        generate(model, tokenizer(["abc"]), max_new_tokens=0)


def test_a_module_without_variables(tokenizer):
    with pytest.raises(ValueError, match=r"Writer is unbound.*model\.bind\(variables\)"):
        generate(Writer(has_encoder=False), tokenizer(["abc"]))


def test_a_model_that_ends_at_once(tokenizer):
    def ends(input_ids):
        return jax.nn.one_hot(jnp.full(input_ids.shape, 2), len(WORDS))

    ends.eos_token_id, ends.max_length = 2, 9
    with pytest.raises(ValueError, match="ended at once and wrote nothing"):
        generate(ends, tokenizer(["abc"]))


@pytest.mark.parametrize(
    ("step", "tokens", "options", "message"),
    [
        (None, [], {}, r"shape \(0,\); expected one sequence of at least one token"),
        (None, [1], {"max_new_tokens": 0}, "max_new_tokens is 0"),
        (
            lambda tokens: jnp.zeros((1, 5)),
            [1],
            {},
            r"logits of shape \(1, 5\) for 1 tokens; expected \(1, 1, vocabulary\)",
        ),
    ],
)
def test_bad_steps(step, tokens, options, message):
    with pytest.raises(ValueError, match=message):
        generate_with(step, tokens, **{"max_new_tokens": 2, **options})


@pytest.mark.usefixtures("standard_promotion")  # models of transformers run here
class TestNearTheEnd:
    """Of the positions that a class of transformers has: what fits is written, and a warning says if more was asked for."""

    OPTIONS = ({}, {"num_beams": 2}, {"sample": True})

    @pytest.mark.parametrize("options", OPTIONS, ids=["greedy", "beams", "sample"])
    @pytest.mark.parametrize("end", [None, 2, [2, 3]], ids=["no end", "one end", "two ends"])
    def test_a_decoder(self, options, end):
        model = tiny_models.build("GPT2", "LMHeadModel", n_positions=12)
        model.generation_config.eos_token_id = end
        ids = np.array([[7, 8, 9, 10, 11, 12]])
        sequence, n_given = generate(model, {"input_ids": ids}, **options)
        assert n_given == 6
        assert len(sequence) == 12 or sequence[-1] in np.atleast_1d(end)
        with pytest.warns(UserWarning, match=r"max_new_tokens is 9, and FlaxGPT2LMHeadModel .* there is room for 6"):
            again, _ = generate(model, {"input_ids": ids}, max_new_tokens=9, **options)
        np.testing.assert_array_equal(again, sequence)
        with pytest.raises(
            ValueError, match="The text is 12 tokens long, all that FlaxGPT2LMHeadModel reads and writes"
        ):
            generate(model, {"input_ids": np.arange(5, 17)[None]}, **options)

    @pytest.mark.parametrize("options", OPTIONS, ids=["greedy", "beams", "sample"])
    def test_an_encoder_decoder(self, options):
        model = tiny_models.build("Bart", "ForConditionalGeneration", forced_eos_token_id=None)
        with pytest.warns(UserWarning, match=r"max_new_tokens is 40, .* there is room for 23"):
            sequence, n_given = generate(model, {"input_ids": np.array([[7, 8, 9]])}, max_new_tokens=40, **options)
        assert n_given == 1
        assert len(sequence) <= 24
