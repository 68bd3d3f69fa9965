"""Compiled runs against runs operation by operation: padded, of a model that is trained, and of many examples together."""

import functools
import gc
import weakref

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_models
from flax import nnx

import jaxflow as jf
from jaxflow.capture import _compiled, pull_contributions, pull_gradients, run_capture
from jaxflow.explain import _runs
from jaxflow.explain._runs import ModelRuns
from jaxflow.models import _programs, pad_inputs, padded_length

pytestmark = pytest.mark.usefixtures("standard_promotion")  # models of transformers run here

TEXT_MODELS = [
    *(name for name in tiny_models.ENCODERS if "input_ids" in tiny_models.inputs(name)),
    *tiny_models.DECODERS,
    *(name for name in tiny_models.ENCODER_DECODERS if name != "Whisper"),
]


@pytest.fixture
def no_programs(monkeypatch):
    """Start without programs, and count how often a model is traced."""
    monkeypatch.setattr(_programs, "_programs", type(_programs._programs)())
    monkeypatch.setattr(_programs, "_of_functions", type(_programs._of_functions)())
    counted = []
    trace = _programs.Programs._trace
    monkeypatch.setattr(_programs.Programs, "_trace", lambda *args: counted.append(args[1]) or trace(*args))
    return counted


def text_inputs(name, n_tokens=5):
    rng = np.random.default_rng(n_tokens)
    inputs = {"input_ids": rng.integers(3, 40, (1, n_tokens)), "attention_mask": np.ones((1, n_tokens), int)}
    if name in tiny_models.ENCODER_DECODERS:
        inputs["decoder_input_ids"] = rng.integers(3, 40, (1, n_tokens - 1))
    return inputs


def close(got, expected, **tolerance):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, **{"rtol": 2e-4, "atol": 2e-5} | tolerance)


@pytest.mark.parametrize("name", TEXT_MODELS)
def test_padded_and_compiled_is_the_model(name):
    head = tiny_models.WITH_GENERATION.get(name)
    model = jf.as_model(tiny_models.build(name, f"{head}" if head else None))
    inputs = text_inputs(name)
    runs = ModelRuns(model, (), inputs, [jf.logit(7, position=2)] if head else [])
    padded = pad_inputs(model, (), inputs)
    if "Encoder" in name:  # of T5, whose configuration is that of an encoder-decoder
        assert padded is None
    else:
        assert padded.lengths[model.facts.stacks[0]] == (5, 8)
    outputs, attention = runs.forward(None)
    expected = run_capture(model, (), inputs)
    close(attention, expected[1])
    same = [path for path in ("logits", "last_hidden_state") if hasattr(outputs, path)]
    assert same
    for path in same:
        close(getattr(outputs, path), getattr(expected[0], path), atol=2e-4)
    if head:
        _, _, pull = pull_gradients(model, (), inputs, targets=[jf.logit(7, position=2)])
        close(runs.gradients(0)[1], pull(0), atol=2e-3)
        _, _, pull = pull_contributions(model, (), inputs, targets=[jf.logit(7, position=2)])
        close(runs.contributions(0), pull(0), atol=2e-3)


@pytest.mark.parametrize("name", ["agreement", "agreement-lm"])
def test_lengths_share_a_program(name, no_programs):
    model, tokenizer = jf.load_model(name)
    texts = ["the keys", "the old keys", "the keys to the cabinet"]
    explanations = [jf.explain(model, text, tokenizer=tokenizer, positions=0) for text in texts]
    shapes = {padded_length(len(each.tokens)) for each in explanations}
    assert shapes == {8}
    assert len([job for job in no_programs if job is _compiled._capture_by("mean")]) == 1


@pytest.mark.parametrize(("n_tokens", "limit", "expected"), [(1, None, 8), (8, None, 8), (9, None, 16), (65, None, 96),
                         (9, 12, 12), (13, 12, 13), (300, None, 384), (1100, None, 1280)])  # fmt: skip
def test_padded_lengths(n_tokens, limit, expected):
    assert padded_length(n_tokens, limit) == expected


def test_a_model_that_averages_padding_is_not_padded():
    """A mean over all tokens: padding would change it, and it does not say that it ignores padding."""

    class Averaging(nn.Module):
        @nn.compact
        def __call__(self, input_ids, attention_mask=None):
            x = nn.Embed(9, 8)(input_ids)
            mask = None if attention_mask is None else attention_mask[:, None, None, :].astype(bool)
            return nn.Dense(3)(nn.MultiHeadDotProductAttention(num_heads=2)(x, mask=mask).mean(1))

    ids = np.array([[1, 2, 3]])
    bound = Averaging().bind(Averaging().init(jax.random.key(0), ids))
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    runs = ModelRuns(jf.as_model(bound), (), inputs)
    close(runs.forward(None)[0], bound(**inputs), rtol=1e-5)


def test_outputs_of_which_nothing_tells_are_those_of_the_text_alone():
    """An output with two rows for each token: it cannot be told how to cut it, so the model runs without padding."""

    class Doubling(nn.Module):
        ignores_padding = True

        @nn.compact
        def __call__(self, input_ids, attention_mask):
            x = nn.Embed(9, 8)(input_ids)
            x = nn.MultiHeadDotProductAttention(num_heads=2)(x, mask=attention_mask[:, None, None, :].astype(bool))
            return jnp.concatenate([x, x, x], 1)

    ids = np.array([[1, 2, 3]])
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    bound = Doubling().bind(Doubling().init(jax.random.key(0), **inputs))
    outputs, attention = ModelRuns(jf.as_model(bound), (), inputs).forward(None)
    assert outputs.shape == (1, 9, 8)
    assert attention.encoder.shape == (1, 1, 2, 3, 3)
    close(outputs, bound(**inputs), rtol=1e-5)


class Small(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.embed = nnx.Embed(9, 8, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, 8, decode=False, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, deterministic=True)
        self.head = nnx.Linear(8, 3, rngs=rngs)
        self.labels = ("a", "b", "c")

    def __call__(self, ids):
        return self.head(self.dropout(self.attention(self.embed(ids)))[:, 0])


def test_training_never_meets_old_parameters(no_programs):
    model, ids = Small(), np.array([[1, 2, 3, 4]])
    found = []
    for step in range(3):
        model.head.bias.set_value(jnp.asarray([0.0, step, 0.0]))
        model.embed.embedding.set_value(model.embed.embedding.get_value() + 0.1 * step)
        explanation = jf.explain(model, ids, positions=0)
        found.append((explanation.scores, explanation.contributions.scores))
        alone = jf.capture_contributions(model, ids, target=jf.logit(int(np.argmax(model(ids)))))[2]
        close(explanation.contributions.attribution.encoder[0], alone.inputs["encoder"][0], rtol=1e-4)
    assert not np.array_equal(found[0][0], found[2][0])
    assert len(no_programs) == 2, "one program for attention, one for contributions"


def test_what_is_looked_at_later_is_of_the_model_as_it_was():
    model, ids = Small(), np.array([[1, 2, 3, 4]])
    before = jf.capture_contributions(model, ids, target=jf.logit(int(np.argmax(model(ids)))))[2].inputs["encoder"][0]
    explanation = jf.explain(model, ids, positions=0)
    model.embed.embedding.set_value(model.embed.embedding.get_value() * -3)
    close(explanation.contributions.attribution.encoder[0], before, rtol=1e-4)


def test_the_mode_of_a_module_is_a_part_of_its_program():
    model, ids = Small(), np.array([[1, 2, 3, 4]])
    model.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(3), deterministic=True)
    one = jf.explain(model, ids).prediction_of(0).probability
    model.train()
    many = {jf.explain(model, ids).prediction_of(0).probability for _ in range(3)}
    model.eval()
    assert jf.explain(model, ids).prediction_of(0).probability == one
    assert many != {one}


def test_a_function_that_closes_over_what_changes():
    params = {"embed": np.random.default_rng(0).normal(size=(9, 8)).astype("float32")}

    def model(ids):
        x = jnp.asarray(params["embed"])[ids]
        weights = jax.nn.softmax(x @ x.mT)
        return (weights @ x)[:, 0, :3]

    ids = np.array([[1, 2, 3, 4]])

    def scores():
        found = [jf.explain(model, ids, positions=0).scores for _ in range(3)]  # compiled the second time
        np.testing.assert_allclose(found[0], found[1], atol=1e-6)
        np.testing.assert_array_equal(found[1], found[2])
        return found[2]

    first = scores()
    params["embed"] = params["embed"] * 2
    second = scores()
    assert not np.allclose(first, second)
    params["embed"] = params["embed"][:, ::-1] / 2
    np.testing.assert_allclose(scores(), first, atol=1e-6)


def plain_function(activation=jax.nn.relu):
    rng = np.random.default_rng(0)
    embed, head = rng.normal(size=(9, 8)).astype("float32"), jnp.asarray(rng.normal(size=(8, 3)), jnp.float32)
    state = {"scale": 0.5, "calls": 0}

    def model(ids):
        state["calls"] += 1
        x = jnp.asarray(embed)[ids]
        for _ in range(2):
            heads = x.reshape(*x.shape[:2], 2, 4)
            weights = jax.nn.softmax(state["scale"] * jnp.einsum("bthf,bshf->bhts", heads, heads))
            x = x + activation(jnp.einsum("bhts,bshf->bthf", weights, heads).reshape(x.shape))
        return x[:, 0] @ head

    model.labels = ("a", "b", "c")
    return model, state


def test_a_function_is_compiled_once_it_does_the_same_again(no_programs):
    model, state = plain_function()
    ids = np.array([[1, 2, 3, 4]])
    alone = jf.capture(model, ids)[1]
    found = [jf.explain(model, ids) for _ in range(4)]
    assert len(no_programs) == 1
    given = [each.contributions.scores for each in found]
    for each, contributions in zip(found, given, strict=True):
        expected = jf.attention_flow(alone).scores[0]
        np.testing.assert_allclose(each.scores, expected, atol=1e-6)
        np.testing.assert_allclose(contributions, given[0], atol=1e-4)
    assert len(no_programs) == 2
    state["scale"] = 0.25
    assert not np.allclose(jf.explain(model, ids).scores, found[0].scores)
    assert len(no_programs) == 2  # a number is a part of the program: met once


def test_a_function_with_effects_runs_each_time(no_programs):
    seen = []

    def activation(x):
        jax.debug.callback(lambda x: seen.append(1), x)
        return x

    model, _ = plain_function(activation)
    for _ in range(3):
        jf.explain(model, np.array([[1, 2, 3, 4]]), "flow")
    jax.effects_barrier()
    assert len(seen) >= 6
    assert not no_programs


def test_rules_of_derivatives_are_a_part_of_the_program(no_programs):
    """Programs that differ in them alone are not taken for one another."""
    gradients = {}
    for slope in (1.0, 3.0):
        rule = jax.custom_jvp(lambda x: 0.5 * x)
        rule.defjvp(lambda primals, tangents, s=slope, rule=rule: (rule(*primals), s * tangents[0]))
        model, _ = plain_function(rule)
        method = jf.AttentionFlow(weighting="gradient")
        found = [jf.explain(model, np.array([[1, 2, 3, 4]]), method, positions=0).scores for _ in range(3)]
        np.testing.assert_allclose(found[0], found[2], rtol=1e-4)
        gradients[slope] = found[2]
    assert not np.allclose(gradients[1.0], gradients[3.0])


def test_few_programs_of_functions_are_kept(no_programs, monkeypatch):
    monkeypatch.setattr(_programs, "N_KEPT_OF_FUNCTIONS", 3)
    model, state = plain_function()
    for state["scale"] in (0.1, 0.2, 0.3, 0.4, 0.5):
        for _ in range(2):
            jf.explain(model, np.array([[1, 2, 3, 4]]), "flow")
    assert len(no_programs) == 5
    assert len(_programs._of_functions) == 3


def test_programs_of_functions_hold_no_arrays(no_programs):
    embed = jnp.asarray(np.random.default_rng(0).normal(size=(9, 8)), jnp.float32)
    alive = weakref.ref(embed)

    def model(ids, embed=embed):
        x = embed[ids]
        return (jax.nn.softmax(x @ x.mT) @ x)[:, 0]

    for _ in range(3):
        jf.explain(model, np.array([[1, 2, 3, 4]]), "flow")
    assert len(no_programs) == 1
    del embed, model
    gc.collect()
    assert alive() is None


def jitted_function():
    embed = jnp.asarray(np.random.default_rng(0).normal(size=(9, 8)), jnp.float32)

    def forward(params, ids, *, scale):
        x = embed[ids]
        q, k, v = (jnp.einsum("btd,dhf->bthf", x, params[name]) for name in "qkv")
        weights = jax.nn.softmax(scale * jnp.einsum("bthf,bshf->bhts", q, k))
        return (x + jnp.einsum("bhts,bshf->bthf", weights, v).reshape(x.shape))[:, 0] @ params["head"]

    return jax.jit(forward, static_argnames="scale")


@pytest.mark.parametrize("is_partial", [False, True], ids=["all inputs", "parameters bound"])
def test_a_jitted_function_is_compiled_once(no_programs, is_partial):
    forward, rng = jitted_function(), np.random.default_rng(1)
    scores = []
    for _ in range(3):
        shapes = dict.fromkeys("qkv", (8, 2, 4)) | {"head": (8, 3)}
        params = {name: rng.normal(size=shape).astype("float32") for name, shape in shapes.items()}
        inputs = {"ids": np.array([[1, 2, 3, 4]]), "scale": 0.5}
        function = functools.partial(forward, params) if is_partial else forward
        inputs = inputs if is_partial else {"params": params, **inputs}
        model = jf.as_model(function, labels=["a", "b", "c"])
        explanation = jf.explain(model, inputs, positions=0)
        _, attention = jf.capture(forward, params, ids=inputs["ids"], scale=0.5)
        np.testing.assert_allclose(
            explanation.scores[0], jf.attention_flow(attention, positions=0).scores.ravel(), rtol=1e-5
        )
        assert explanation.contributions is not None
        scores.append(explanation.scores)
    assert not np.allclose(scores[0], scores[1])
    assert len(no_programs) == 2, "one program for attention, one for contributions"
    jf.explain(model, inputs | {"scale": 0.25}, positions=0)
    assert len(no_programs) == 3, "what is no array is a part of the program"


def test_programs_of_a_function_end_with_it(no_programs):
    forward = jitted_function()
    params = dict.fromkeys("qkv", jnp.ones((8, 2, 4))) | {"head": jnp.ones((8, 3))}
    jf.explain(forward, {"params": params, "ids": np.array([[1, 2]]), "scale": 1.0})
    assert len(_programs._programs) == 1
    del forward
    gc.collect()
    other = jitted_function()
    jf.explain(other, {"params": params, "ids": np.array([[1, 2]]), "scale": 1.0})
    assert len(_programs._programs) == 1


def test_programs_hold_no_arrays_of_a_model(no_programs):
    model = Small()
    jf.explain(model, np.array([[1, 2, 3]])).contributions  # noqa: B018
    kernel = weakref.ref(model.head.kernel.get_value())
    del model
    gc.collect()
    assert kernel() is None
    assert _programs._programs, "the program is still there"


def test_few_structures_have_programs(no_programs):
    for width in range(8, 8 + 2 * (_programs.N_KEPT + 2), 2):

        class Wide(nn.Module):
            width: int

            @nn.compact
            def __call__(self, ids):
                return nn.MultiHeadDotProductAttention(num_heads=2)(nn.Embed(9, self.width)(ids))

        ids = np.array([[1, 2, 3]])
        jf.explain(Wide(width).bind(Wide(width).init(jax.random.key(0), ids)), ids)
    assert len(_programs._programs) == _programs.N_KEPT


def test_a_model_that_cannot_be_compiled_runs_nevertheless():
    class Looking(nn.Module):
        """Looks at its inputs, which compiled code cannot."""

        labels = ("a", "b")

        @nn.compact
        def __call__(self, ids):
            if ids.sum() > 100:
                raise ValueError("these tokens are too many for me")
            return nn.Dense(2)(nn.MultiHeadDotProductAttention(num_heads=2)(nn.Embed(9, 8)(ids))[:, 0])

    ids = np.array([[1, 2, 3]])
    bound = Looking().bind(Looking().init(jax.random.key(0), ids))
    explanation = jf.explain(bound, ids, positions=0)
    _, attention = jf.capture(bound, ids)
    np.testing.assert_allclose(explanation.scores, jf.attention_flow(attention, positions=0).encoder[0], rtol=1e-6)
    with pytest.raises(ValueError, match="these tokens are too many for me"):
        jf.explain(bound, np.array([[100, 2, 3]]))


class TestMany:
    TEXTS = ("the keys", "the old keys to the cabinet", "the guards near the door", "the keys to the cabinets", "the table",
             "the keys near the old cabinet", "the key", "the guards", "the women beside the window")  # fmt: skip

    @pytest.mark.parametrize("name", ["agreement", "agreement-lm", "ltl"])
    def test_a_list_gives_what_its_texts_give(self, name):
        model, tokenizer = jf.load_model(name)
        texts = ["U a b", "X a", "& a b", "| a ! b", "G a"] if name == "ltl" else list(self.TEXTS)
        options = {"tokenizer": tokenizer} | ({"generate": jf.Generate(max_new_tokens=2)} if name == "ltl" else {})
        many = jf.explain(model, texts, **options)
        for text, one in zip(texts, many, strict=True):
            alone = jf.explain(model, text, **options)
            assert (one.tokens, one.output_tokens) == (alone.tokens, alone.output_tokens)
            assert [p.label for p in one.predictions] == [p.label for p in alone.predictions]
            np.testing.assert_allclose(one.scores, alone.scores, atol=2e-6)
            np.testing.assert_allclose(one.contributions.scores, alone.contributions.scores, atol=1e-4)

    def test_most_go_through_the_model_together(self, monkeypatch):
        model, tokenizer = jf.load_model("agreement")
        ran = []
        run = _runs.capture_compiled
        monkeypatch.setattr(
            _runs,
            "capture_compiled",
            lambda *args, **options: ran.append(len(args[2]["input_ids"])) or run(*args, **options),
        )
        jf.explain(model, [*self.TEXTS] * 5, tokenizer=tokenizer, positions=0)
        assert sum(ran) >= 45
        assert max(ran) == 32
        assert len(ran) < 10

    def test_an_error_says_which_one(self):
        model, tokenizer = jf.load_model("agreement")
        with pytest.raises(ValueError, match=r"inputs\[1\]: .*zebra"):
            jf.explain(model, ["the keys", "the zebra"], tokenizer=tokenizer)
        with pytest.raises(ValueError, match=r"inputs\[0\]: Output 5 does not exist"):
            jf.explain(model, ["the keys", "the old keys to the cabinet"], tokenizer=tokenizer, positions=5)

    def test_no_example_gives_none(self):
        model, tokenizer = jf.load_model("agreement")
        assert jf.explain(model, [], tokenizer=tokenizer) == []

    @pytest.mark.parametrize("n_tokens", [3, 100, 220, 600])
    def test_lists_of_long_texts(self, n_tokens):
        """Fewer go together the longer they are; at last each by itself."""
        model = tiny_models.build("GPT2", n_positions=640)
        examples = [{"input_ids": np.arange(n_tokens)[None] % 40 + i} for i in range(5)]
        found = jf.explain(model, examples, jf.Rollout(), positions=n_tokens - 1)
        alone = [jf.explain(model, each, jf.Rollout(), positions=n_tokens - 1) for each in examples]
        for one, other in zip(found, alone, strict=True):
            np.testing.assert_allclose(one.scores, other.scores, rtol=1e-4, atol=1e-7)

    def test_lists_of_images(self):
        model = tiny_models.build("ViT")
        images = [{"pixel_values": tiny_models.PIXELS[i : i + 1]} for i in (0, 1, 0, 1, 0)]
        found = jf.explain(model, images, jf.Rollout())
        np.testing.assert_array_equal(found[0].scores, found[2].scores)
        assert not np.array_equal(found[0].scores, found[1].scores)


@pytest.mark.parametrize("method", ["contributions", jf.AttentionFlow(weighting="attention_gradient")])
@pytest.mark.parametrize(
    ("name", "head"), [("Bert", "ForMaskedLM"), ("GPT2", "LMHeadModel"), ("Bart", "ForConditionalGeneration")]
)
def test_targets_of_one_text_go_back_together(name, head, method, monkeypatch):
    model, inputs = tiny_models.build(name, head), text_inputs(name, 7)
    together = jf.explain(model, inputs, method)
    monkeypatch.setattr(_runs, "AT_ONCE", ())
    alone = jf.explain(model, inputs, method)
    assert len(together.attribution.positions) > 4
    np.testing.assert_allclose(together.attribution.scores, alone.attribution.scores, atol=2e-5)


def test_what_cannot_be_told_of_several_targets_is_told_of_each(monkeypatch):
    """Such as contributions whose position is told by values, which a program for several does not have."""
    model, inputs = tiny_models.build("GPT2", "LMHeadModel"), text_inputs("GPT2", 7)
    expected = jf.explain(model, inputs, "contributions").scores
    asked = []

    def refuse(*args):
        asked.append(args)
        raise ValueError("The target reads several positions")

    monkeypatch.setattr(_runs, "contributions_to_each", refuse)
    np.testing.assert_allclose(jf.explain(model, inputs, "contributions").scores, expected, atol=2e-5)
    assert len(asked) == 1


def test_one_forward_pass_serves_several_targets(no_programs, monkeypatch):
    asked = []
    each = _runs.contributions_to_each
    monkeypatch.setattr(_runs, "contributions_to_each", lambda *args: asked.append(len(args[-1])) or each(*args))
    model = tiny_models.build("GPT2", "LMHeadModel")
    jf.explain(model, text_inputs("GPT2", 7), "contributions")
    assert asked == [4, 4]
    jf.explain(model, text_inputs("GPT2", 24), "contributions")
    assert asked == [4, 4, 16, 4, 4]
