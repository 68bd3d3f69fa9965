import functools

import checkpoints
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxflow import (
    AttentionFlow,
    Example,
    Generate,
    Rollout,
    as_model,
    attention_flow,
    attention_gradients,
    capture,
    contrast,
    explain,
    joint_capacities,
    load_model,
    log_probability,
    logit,
)
from jaxflow.attribute import rollout
from jaxflow.cli._main import main
from jaxflow.explain._targets import sum_of
from jaxflow.models import generate
from jaxflow.models._generation import generate_with
from jaxflow.network import Spans

pytestmark = pytest.mark.usefixtures("standard_promotion")  # models of transformers run here

TEXT = "the keys"
DECODING = {"greedy": {}, "beams": {"num_beams": 3}, "sampled": {"sample": True, "seed": 3}}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    @functools.cache
    def saved(name):
        path = tmp_path_factory.mktemp(name)
        checkpoints.save(path, name)
        if name == "Marian":  # whose random weights would end at once
            model, _ = load_model(path)
            bias = model.params["final_logits_bias"]
            model.params = {**model.params, "final_logits_bias": bias.at[..., model.config.eos_token_id].set(-9.0)}
            model.save_pretrained(path)
        return path

    return saved


@pytest.fixture(scope="module")
def loaded(directory):
    return functools.cache(lambda name: load_model(directory(name)))


def inputs_of(tokenizer):
    return {name: np.asarray(values) for name, values in tokenizer([TEXT]).items() if name != "token_type_ids"}


def generated(model, tokenizer, **options):
    return generate(as_model(model), inputs_of(tokenizer), **options)


def named(tokenizer, ids):
    """The tiny models know more tokens than their tokenizers; a blank before a token is no part of its name."""
    tokens = [word or f"#{i}" for word, i in zip(tokenizer.convert_ids_to_tokens(ids), ids, strict=True)]
    return [token.removeprefix("Ġ") or "␣" for token in tokens]


def step_by_step(model, tokenizer, sequence, position, **options):
    """The attribution of one step from a pass that has seen nothing later."""
    prefix = sequence[None, : position + 1]
    if model.config.is_encoder_decoder:
        _, attention = capture(model, **inputs_of(tokenizer), decoder_input_ids=prefix)
    else:
        _, attention = capture(model, input_ids=prefix)
    return attention_flow(attention, positions=position, **options)


@pytest.mark.parametrize("how", DECODING)
@pytest.mark.parametrize("name", ["GPT2", "Llama", "Marian", "Bart", "T5"])
def test_one_pass_explains_every_step_of_what_was_generated(loaded, name, how):
    model, tokenizer = loaded(name)
    explanation = explain(model, TEXT, tokenizer=tokenizer, generate=Generate(max_new_tokens=4, **DECODING[how]))
    sequence, n_prompt = generated(model, tokenizer, max_new_tokens=4, **DECODING[how])
    given = inputs_of(tokenizer)["input_ids"][0]
    assert n_prompt == (1 if model.config.is_encoder_decoder else len(given))
    assert explanation.decoder_tokens == tuple(named(tokenizer, sequence))
    assert explanation.attribution.positions.tolist() == list(range(n_prompt - 1, len(sequence) - 1))
    if model.config.is_encoder_decoder:
        assert explanation.encoder_tokens == tuple(named(tokenizer, given))
        logits = model(**inputs_of(tokenizer), decoder_input_ids=sequence[None]).logits[0]
    else:
        np.testing.assert_array_equal(sequence[:n_prompt], given)
        logits = model(input_ids=sequence[None]).logits[0]
    probabilities = jax.nn.softmax(logits)
    for row, position in enumerate(explanation.attribution.positions.tolist()):
        prediction = explanation.prediction_of(row)
        assert prediction.label == explanation.decoder_tokens[position + 1]
        assert prediction.probability == pytest.approx(float(probabilities[position, sequence[position + 1]]), rel=1e-3)
        alone = step_by_step(model, tokenizer, sequence, position)
        n_seen = len(explanation.encoder_tokens) + position + 1
        scores = [s[0, 0] for s in (alone.encoder, alone.decoder) if s is not None]
        np.testing.assert_allclose(explanation.scores[row, :n_seen], np.concatenate(scores), atol=2e-5)
        assert not explanation.scores[row, n_seen:].any()


@pytest.mark.parametrize("name", ["GPT2", "Marian"])
def test_greedy_takes_the_likeliest_and_draws_depend_on_the_seed(loaded, name):
    model, tokenizer = loaded(name)
    inputs = inputs_of(tokenizer)
    greedy, n_prompt = generated(model, tokenizer, max_new_tokens=5)
    whole = {"input_ids": greedy[None]}
    if name == "Marian":
        whole = {**inputs, "decoder_input_ids": greedy[None]}
    likeliest = np.asarray(model(**whole).logits[0]).argmax(-1)
    free = slice(n_prompt - 1, len(greedy) - 2)  # the last one may be forced to be the end
    np.testing.assert_array_equal(greedy[1:][free], likeliest[free])
    drawn = [tuple(generated(model, tokenizer, max_new_tokens=8, sample=True, seed=seed)[0]) for seed in (0, 0, 1, 2)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1


@pytest.mark.parametrize("name", ["GPT2", "Marian"])
def test_a_continuation_that_is_given(loaded, name):
    model, tokenizer = loaded(name)
    explanation = explain(model, TEXT, generate=Generate(continuation="the key"), tokenizer=tokenizer)
    written = explanation.decoder_tokens[explanation.attribution.positions[0] + 1 :]
    assert [prediction.label for prediction in map(explanation.prediction_of, range(len(written)))] == list(written)
    ids = tokenizer("the key", add_special_tokens=name == "Marian")["input_ids"]
    assert list(written) == named(tokenizer, ids)


def test_unrolled_feedback_leaves_what_was_given_as_inputs(loaded):
    model, tokenizer = loaded("GPT2")
    explanation = explain(
        model,
        TEXT,
        AttentionFlow(feedback="unrolled", correction="uniform"),
        generate=Generate(continuation="the key"),
        tokenizer=tokenizer,
    )
    n_prompt = inputs_of(tokenizer)["input_ids"].shape[-1]
    assert explanation.scores[:, :n_prompt].all()
    assert not explanation.scores[:, n_prompt:].any()
    assert explanation.conventions["n_prompt"] == n_prompt


def test_any_function_of_tokens_and_a_linen_decoder_by_its_own_steps():
    class Decoder(nn.Module):
        @nn.compact
        def __call__(self, tokens):
            x = nn.Embed(11, 16)(tokens)
            for _ in range(2):
                x = x + nn.MultiHeadDotProductAttention(num_heads=2)(x, mask=nn.make_causal_mask(tokens))
            return nn.Dense(11)(x)

    variables = Decoder().init(jax.random.key(0), jnp.ones((1, 3), int))
    step = functools.partial(Decoder().apply, variables)
    sequence = generate_with(step, [3, 4], max_new_tokens=4)
    assert len(sequence) == 6
    for position in range(1, 5):
        assert sequence[position + 1] == np.argmax(step(sequence[None, : position + 1])[0, -1])
    drawn = {tuple(generate_with(step, [3, 4], max_new_tokens=4, sample=True, seed=seed)) for seed in (0, 0, 1, 2)}
    assert 1 < len(drawn) <= 3
    _, attention = capture(Decoder(), sequence[None], variables=variables, roles={"": "decoder"})
    whole = attention_flow(attention)
    for position in range(1, 5):
        _, attention = capture(Decoder(), sequence[None, : position + 1], variables=variables, roles={"": "decoder"})
        alone = attention_flow(attention, positions=position)
        np.testing.assert_allclose(whole.decoder[0, position, : position + 1], alone.decoder[0, 0], atol=1e-5)

    names = [f"word {i}" for i in range(11)]
    explanation = explain(
        as_model(Decoder(), variables=variables, roles={"": "decoder"}, labels=names),
        Example(sequence[None], tokens=[names[i] for i in sequence], produced=np.append(sequence[1:], -1)),
        positions=range(1, 5),
    )
    np.testing.assert_allclose(explanation.attribution.decoder, whole.decoder[0, 1:5], rtol=1e-6)
    probabilities = jax.nn.softmax(step(sequence[None])[0])
    for row, position in enumerate(range(1, 5)):
        prediction = explanation.prediction_of(row)
        assert prediction.label == names[sequence[position + 1]]
        assert prediction.probability == pytest.approx(float(probabilities[position, sequence[position + 1]]), rel=1e-5)


def n_steps(out):
    """Count the written tokens that are explained: a row of one table of an encoder-decoder, a block of a decoder each."""
    _, header, table = out.partition("  it wrote ")
    return table.split("\n\n")[0].count("\n") if header else out.count("\noutput ")


@pytest.mark.parametrize("name", ["GPT2", "Marian"])
def test_the_command_line_does_it_by_itself(capsys, directory, name):
    arguments = ["explain", "--model", str(directory(name)), TEXT]
    assert main([*arguments, "--max-new-tokens", "2"]) == 0
    assert 1 <= n_steps(capsys.readouterr().out) <= 2
    assert main([*arguments, "--continuation", "the key", "--feedback", "unrolled", "--correction", "uniform"]) == 0
    assert n_steps(capsys.readouterr().out) >= 1
    assert main([*arguments, "--max-new-tokens", "0"]) == 2
    assert "1 or more" in capsys.readouterr().err


def test_options_for_writing_need_a_model_that_writes(capsys):
    assert main(["explain", "--continuation", "x", "the keys"]) == 1
    assert "--continuation: for models that generate, and AgreementEncoder does not" in capsys.readouterr().err


def test_an_output_in_the_prompt(loaded):
    model, tokenizer = loaded("GPT2")
    n_prompt = inputs_of(tokenizer)["input_ids"].shape[-1]
    with pytest.raises(
        ValueError, match=f"Output 0 wrote no token: generated are the tokens after positions {n_prompt - 1} to"
    ):
        explain(model, TEXT, generate=Generate(continuation="the key"), tokenizer=tokenizer, positions=0)


def test_a_continuation_longer_than_the_models_positions(loaded):
    model, tokenizer = loaded("GPT2")
    with pytest.raises(ValueError, match=r"has 24 positions"):
        explain(model, TEXT, generate=Generate(continuation="the " * 30), tokenizer=tokenizer)


def test_a_generation_of_nothing(loaded, monkeypatch):
    model, tokenizer = loaded("GPT2")
    first = int(generate(model, inputs_of(tokenizer), max_new_tokens=1)[0][-1])
    monkeypatch.setattr(model.generation_config, "eos_token_id", first)
    with pytest.raises(ValueError, match="ended at once and wrote nothing"):
        explain(model, TEXT, generate=Generate(), tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"continuation": " "}, "continuation is empty"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0; expected 1 or more"),
    ],
)
def test_bad_options(loaded, options, message):
    model, tokenizer = loaded("GPT2")
    with pytest.raises(ValueError, match=message):
        explain(model, TEXT, tokenizer=tokenizer, generate=Generate(**options))


def test_a_model_that_does_not_generate():
    model, tokenizer = load_model("agreement")
    for options in ({}, {"continuation": "are"}):
        with pytest.raises(ValueError, match="AgreementEncoder does not generate"):
            explain(model, "the keys", tokenizer=tokenizer, generate=Generate(**options))


def test_feedback_of_what_was_not_generated(loaded):
    model, _ = loaded("GPT2")
    with pytest.raises(ValueError, match="feedback='unrolled' follows what a decoder generated, and nothing was"):
        explain(model, np.array([[3, 4, 5]]), AttentionFlow(feedback="unrolled"))


@pytest.mark.parametrize("name", ["GPT2", "T5"])
def test_words_read_and_words_written(loaded, name):
    model, tokenizer = loaded(name)
    given, written = "the keys", "the old keys"
    options = {"tokenizer": tokenizer, "generate": Generate(continuation=f" {written}")}
    explanation = explain(model, given, spans="words", **options)
    words = [*given.split(), *written.split()]
    assert [token for token in explanation.tokens if token not in ("<pad>", "</s>")] == words
    tokens = explain(model, given, **options)
    assert explanation.attribution.positions.tolist() == tokens.attribution.positions.tolist()
    assert explanation.scores.shape[1] < tokens.scores.shape[1] or name == "T5"  # whose tokens are words
    assert (explanation.scores.sum(1) <= tokens.scores.sum(1) + 1e-9).all()


@pytest.mark.parametrize("feedback", ["prefix", "unrolled"])
def test_how_much_a_paragraph_could_contribute_to_the_answer(loaded, feedback):
    model, tokenizer = loaded("GPT2")
    text = "the keys\n\nthe old\n\nkeys."
    options = {"tokenizer": tokenizer, "generate": Generate(continuation=" the keys")}
    explanation = explain(model, text, AttentionFlow(feedback=feedback), spans="paragraphs", joint=True, **options)
    paragraphs = [explanation.tokens.index(name) for name in ("the keys", "the old", "keys.")]
    assert explanation.scores.shape == (1, len(explanation.tokens))
    assert (explanation.scores[0, paragraphs] > 0).all()
    assert explanation.output_tokens == ("the keys",)
    assert explanation.prediction_of() is None
    sequence = np.array([*tokenizer([text])["input_ids"][0], *tokenizer(" the keys")["input_ids"]])
    _, attention = capture(model, input_ids=sequence[None])
    n_prompt = len(sequence) - 2
    offsets = tokenizer([text], return_offsets_mapping=True)["offset_mapping"][0]
    second = [text.index("the old") < end <= text.index("the old") + len("the old") for _, end in offsets]
    spans = np.zeros((1, 1, len(sequence)), bool)
    spans[0, 0, : len(second)] = second
    outputs = (np.arange(len(sequence)) >= n_prompt - 1) & (np.arange(len(sequence)) < len(sequence) - 1)
    alone = AttentionFlow(feedback=feedback)(
        attention,
        n_prompt=n_prompt if feedback == "unrolled" else None,
        spans=Spans(decoder=spans, outputs=outputs[None]),
    )
    assert explanation.scores[0, paragraphs[1]] == pytest.approx(alone.decoder.item(), rel=1e-6)


def one_by_one(model, given, positions, targets, **options):
    """Each output by a call of its own."""
    for position, target in zip(positions, targets, strict=True):
        _, attention, gradients = attention_gradients(model, target=target, **given)
        capacities = joint_capacities(attention, weighting="attention_gradient", gradients=gradients)
        yield attention_flow(capacities, positions=position, **options)


@pytest.mark.parametrize("name", ["GPT2", "Marian"])
def test_each_written_token_by_gradients_of_its_own(loaded, name):
    model, tokenizer = loaded(name)
    options = {"tokenizer": tokenizer, "generate": Generate(max_new_tokens=2)}
    sequence, n_prompt = generated(model, tokenizer, max_new_tokens=2)
    positions = list(range(n_prompt - 1, len(sequence) - 1))
    given = {"input_ids": sequence[None]}
    if name == "Marian":
        given = {**inputs_of(tokenizer), "decoder_input_ids": sequence[None]}
    explanation = explain(model, TEXT, AttentionFlow(weighting="attention_gradient"), **options)
    targets = [logit(int(sequence[p + 1]), position=p) for p in positions]
    for row, alone in enumerate(one_by_one(model, given, positions, targets)):
        for stack in ("encoder", "decoder") if name == "Marian" else ("decoder",):
            got, expected = getattr(explanation.attribution, stack)[row], getattr(alone, stack)[0, 0]
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-7)
        bound = explanation.attribution.certificate.upper[row]
        np.testing.assert_allclose(bound, alone.certificate.upper[0, 0], rtol=1e-4, atol=1e-7)
    assert "attention x gradients of each token's logit" in str(explanation)


def test_other_targets_of_written_tokens(loaded):
    model, tokenizer = loaded("GPT2")
    options = {"tokenizer": tokenizer, "generate": Generate(max_new_tokens=2), "method": Rollout(weighting="gradient")}
    why = functools.partial(contrast, other=3)
    found = [explain(model, TEXT, target=target, **options) for target in (None, log_probability, why, 3)]
    assert [each.conventions["target"] for each in found] == [
        "each token's logit", "each token's log_probability", "each token's target", 3,
    ]  # fmt: skip
    assert all(np.abs(a.scores - b.scores).max() > 1e-6 for i, a in enumerate(found) for b in found[:i])
    joined = explain(model, TEXT, joint=True, **options)
    sequence, n_prompt = generated(model, tokenizer, max_new_tokens=2)
    positions = list(range(n_prompt - 1, len(sequence) - 1))
    total = sum_of([logit(int(sequence[p + 1]), position=p) for p in positions])
    _, attention, gradients = attention_gradients(model, input_ids=sequence[None], target=total)
    capacities = joint_capacities(attention, weighting="gradient", gradients=gradients)
    expected = rollout(capacities, positions=positions).decoder[0].sum(0)
    np.testing.assert_allclose(joined.scores[0], expected, rtol=1e-4, atol=1e-7)


def test_gradients_of_a_generation_from_a_shell(capsys, directory):
    arguments = ["explain", "--model", str(directory("GPT2")), TEXT, "--max-new-tokens", "2", "--weighting", "gradient"]
    assert main(arguments) == 0
    assert "gradients of each token's logit" in capsys.readouterr().out
    assert main([*arguments, "--target", "3", "--method", "rollout"]) == 0
    assert "gradients of 3" in capsys.readouterr().out


def test_targets_that_do_not_fit(loaded):
    model, tokenizer = loaded("GPT2")
    with pytest.raises(ValueError, match="target is given, but the method 'flow' is the same for every target"):
        explain(model, TEXT, "flow", generate=Generate(), tokenizer=tokenizer, target=log_probability)
    with pytest.raises(ValueError, match="2 targets are given for 3 outputs; expected one for each"):
        explain(
            model,
            np.array([[3, 4, 5]]),
            AttentionFlow(weighting="gradient"),
            target=[logit(1, position=0), logit(1, position=1)],
        )


def gpt2(directory):
    return load_model(directory("GPT2"))


def test_a_continuation_is_read_as_one_text_with_its_prompt(directory):
    model, tokenizer = gpt2(directory)
    for text, continuation in (("the key", " the keys"), ("the k", " col"), ("the key.", "the")):
        written = explain(model, text, "flow", generate=Generate(continuation=continuation), tokenizer=tokenizer)
        whole = tokenizer(text + continuation)["input_ids"]
        n_prompt = len(tokenizer(text)["input_ids"])
        assert len(written.decoder_tokens) == len(whole)
        expected = explain(
            model, text + continuation, "flow", tokenizer=tokenizer, positions=range(n_prompt - 1, len(whole) - 1)
        )
        np.testing.assert_allclose(written.scores, expected.scores, atol=1e-6)


def test_a_continuation_that_goes_on_with_a_word_is_said_to(directory):
    model, tokenizer = gpt2(directory)
    with pytest.warns(
        UserWarning, match=r"goes on with the last word of the prompt, 'thecol'.*put a blank before it: ' col'"
    ):
        explain(model, "the", "flow", generate=Generate(continuation="col"), tokenizer=tokenizer)


def test_a_continuation_that_joins_with_the_prompt_is_read_apart(directory):
    model, tokenizer = gpt2(directory)
    with pytest.warns(
        UserWarning, match="As one text, prompt and continuation would have other tokens where they meet"
    ):
        found = explain(model, "the ke", "flow", generate=Generate(continuation="ys"), tokenizer=tokenizer)
    assert found.decoder_tokens[-2:] == ("y", "s")


def test_a_target_after_a_blank_begins_a_word(directory):
    model, tokenizer = gpt2(directory)
    vocabulary = tokenizer.get_vocab()
    for target, token in ((" key", "Ġkey"), ("key", "Ġkey"), ("ke", "ke"), (" c", "Ġc")):
        by_name = explain(model, "the keys", "contributions", tokenizer=tokenizer, positions=0, target=target)
        by_number = explain(
            model, "the keys", "contributions", tokenizer=tokenizer, positions=0, target=vocabulary[token]
        )
        np.testing.assert_array_equal(by_name.scores, by_number.scores)
    with pytest.raises(ValueError, match="target is ' ke', which is no token"):
        explain(model, "the keys", "contributions", tokenizer=tokenizer, positions=0, target=" ke")


def test_inputs_that_a_class_of_transformers_does_not_take(directory):
    model, _ = gpt2(directory)
    ids = np.array([[5, 6]])
    with pytest.raises(
        TypeError, match=r"takes no token_type_ids, pixels; of arrays it takes input_ids, attention_mask, position_ids"
    ):
        capture(model, input_ids=ids, token_type_ids=ids, pixels=ids)
