"""Compare: the table's numbers against the measures one by one, and models of every kind."""

import dataclasses
import functools
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxflow import attention_flow, attention_gradients, compare, joint_capacities, load_model, logit
from jaxflow.attribute import METHODS, gradient_norm, leave_one_out
from jaxflow.cli._main import main
from jaxflow.evaluate import BINS, METRICS, Bootstrap, erase, erasure_curves, masked_value, rank_correlation
from jaxflow.evaluate._compare import DEFAULT_METHODS

TEXTS = ["the keys to the old cabinet", "the guards near the door"]


@pytest.fixture(scope="module")
def agreement():
    return load_model("agreement")


class First:
    """A method of the user's own: the earlier a token, the more."""

    def attribute(self, evidence):
        return np.arange(len(evidence.tokens["encoder"]))[::-1]


@pytest.fixture(scope="module")
def compared(agreement):
    model, tokenizer = agreement
    methods = {name: name for name in DEFAULT_METHODS} | {"first": First()}
    return compare(model, TEXTS, tokenizer=tokenizer, methods=methods)


def test_all_methods_and_metrics(compared):
    assert compared.methods == (*DEFAULT_METHODS, "first")
    assert set(METHODS) - set(DEFAULT_METHODS) == {"shapley", "token_shapley"}
    assert compared.metrics == tuple(METRICS)
    assert compared.decisions == ("plural", "plural")
    assert compared.tokens[1] == ("[CLS]", "the", "guards", "near", "the", "door")
    assert [rows.shape for rows in compared.scores] == [(len(compared.methods), n_tokens) for n_tokens in (7, 6)]
    assert not any(known[0] or not known[1:].all() for known in compared.candidates)  # [CLS] is not
    of_flows = ("saturation", "cut_by_capacity", "cut_by_layer")
    others = [i for i, name in enumerate(compared.metrics) if name not in of_flows]
    assert not np.isnan(compared.values[:, :, others]).any()
    for name in of_flows:
        column = compared.values[..., compared.metrics.index(name)]
        assert np.isfinite(column).all(0).tolist() == [
            method.startswith("flow") or method == "contribution_flow" for method in compared.methods
        ]
    found = compared.mean[:, compared.metrics.index("sanity")]
    assert found[compared.methods.index("first")] == 1  # which never looks at the model
    assert compared.mean[compared.methods.index("gradient"), compared.metrics.index("gradient")] == 1
    assert (np.diag(compared.rank_correlations) > 1 - 1e-9).all()
    np.testing.assert_allclose(compared.rank_correlations, compared.rank_correlations.T)


def test_passes_are_counted(compared):
    taken = dict(zip(compared.methods, compared.passes[0].tolist(), strict=True))
    assert taken["flow"] == taken["rollout"] == [1, 0]
    assert taken["flow_gradient"] == taken["gradient_rollout"] == taken["gradient"] == [1, 1]
    assert taken["contributions"] == taken["contribution_flow"] == [1, 1]
    assert taken["integrated_gradients"] == [18, 16]  # two more for what is missing of the sum
    assert taken["leave_one_out"] == [7, 0]  # six tokens that can be hidden
    assert taken["random"] == [0, 0]
    assert "18F+16B" in compared.to_text()
    assert "| contributions | 1F+1B |" in compared.to_markdown()


def test_differences_are_paired(compared):
    text = compared.differences("leave_one_out", width=100)
    mean, lower, upper = compared.difference("flow", "leave_one_out")
    deletion = compared.metrics.index("deletion")
    starred = "*" if lower[deletion] > 0 or upper[deletion] < 0 else ""
    assert f"{mean[deletion]:.2f} [{lower[deletion]:.2f}, {upper[deletion]:.2f}]{starred}" in text
    assert max(map(len, text.splitlines())) <= 100
    with pytest.raises(ValueError, match="was not compared"):
        compared.differences("nothing")


def test_the_first_token_of_a_decoder_is_never_hidden():
    """Without its attention sink a decoder makes no sense of anything."""
    from jaxflow import as_model
    from jaxflow.evaluate._cases import read_text

    model, tokenizer = load_model("agreement-lm")

    class Bare:
        """The same tokenizer, for which no token is special."""

        all_special_ids = ()

        def __getattr__(self, name):
            return getattr(tokenizer, name)

        def __call__(self, texts):
            return tokenizer(texts)

    known = read_text(as_model(model), Bare(), "the keys to the cabinet").candidates
    assert known.tolist() == [False, True, True, True, True, True]


def test_numbers_are_those_of_the_measures(agreement, compared):
    """One text, through the public functions, without padding and without batches of masks."""
    model, tokenizer = agreement
    inputs = {name: np.asarray(values) for name, values in tokenizer([TEXTS[1]]).items()}
    value = masked_value(model, target=lambda logits: jax.nn.softmax(logits)[:, 1], **inputs)
    _, attention, gradients = attention_gradients(model, target=logit(1), **inputs)
    capacities = joint_capacities(attention, weighting="attention_gradient", gradients=gradients)
    gradient = gradient_norm(model, target=logit(1), **inputs).encoder[0, 0]
    words = np.arange(6) > 0
    rows = {
        "flow": attention_flow(attention, positions=0).encoder[0, 0],
        "flow_attention_gradient": attention_flow(capacities, positions=0).encoder[0, 0],
        "gradient": gradient,
        "leave_one_out": np.where(words, leave_one_out(model, target=logit(1), **inputs).encoder[0, 0], 0.0),
    }
    whole = value(np.ones(6, bool))
    lost = np.array([whole - value(np.arange(6) != i) for i in range(1, 6)])
    for name, row in rows.items():
        row = np.asarray(row)
        number = compared.methods.index(name)
        np.testing.assert_allclose(compared.scores[1][number], row, rtol=1e-3, atol=1e-5)
        erased = erase(value, row, bins=BINS, candidates=words)
        curves = erasure_curves(value, row, candidates=words)
        expected = [
            erased.aopc_comprehensiveness, erased.aopc_sufficiency, erased.aopc_log_odds,
            curves.deletion, curves.activation, curves.pruning,
            rank_correlation(np.abs(row)[words], np.abs(lost)), rank_correlation(np.abs(row)[words], np.asarray(gradient)[words]),
        ]  # fmt: skip
        np.testing.assert_allclose(compared.values[1, number, :8], expected, rtol=1e-3, atol=1e-4)


def test_intervals_are_paired_and_seeded():
    rng = np.random.default_rng(0)
    text = rng.normal(size=(40, 1)) * 10
    values = np.concatenate([text, text + 1], axis=1) + rng.normal(size=(40, 2)) * 0.01
    options = {"level": 0.9, "n_resamples": 2000, "seed": 1}
    lower, upper = Bootstrap(**options).interval(values)
    assert lower[0] < values.mean(0)[0] < upper[0]
    expected = 1.645 * values.std(0) / np.sqrt(40)
    np.testing.assert_allclose((upper - lower) / 2, expected, rtol=0.1)
    low, high = Bootstrap(**options).interval(values[:, 1] - values[:, 0])
    assert 0.99 < low < high < 1.01  # though the means are uncertain
    np.testing.assert_array_equal(Bootstrap(**options).interval(values), (lower, upper))
    values[:39, 0] = np.nan
    one = Bootstrap(**options).interval(values)
    np.testing.assert_array_equal(one[:, 0], values[39, 0])
    assert np.isnan(Bootstrap(**options).interval(np.full((3, 1), np.nan))).all()


def test_tables_and_json(compared):
    text = compared.to_text(100)
    assert max(map(len, text.splitlines())) <= 100
    for name in (*compared.methods, *METRICS, "AgreementEncoder: 2 texts, mean and 95% interval"):
        assert name in text
    content = json.loads(compared.to_json(scores=True))
    entry = content["methods"]["rollout"]["deletion"]
    place = compared.methods.index("rollout"), compared.metrics.index("deletion")
    assert entry["mean"] == pytest.approx(compared.mean[place])
    assert entry["interval"] == pytest.approx([compared.interval[end][place] for end in (0, 1)])
    assert entry["n_texts"] == 2
    assert content["methods"]["rollout"]["saturation"]["mean"] is None
    assert content["texts"][0]["scores"]["first"] == [6, 5, 4, 3, 2, 1, 0]
    assert "texts" not in json.loads(compared.to_json())
    assert compared.to_markdown().count("\n") == len(compared.methods) + 1
    mean, low, high = compared.difference("leave_one_out", "first")
    assert (low <= mean + 1e-12)[:9].all()
    assert (mean <= high + 1e-12)[:9].all()
    with pytest.raises(ValueError, match="'shap' was not compared"):
        compared.difference("shap", "flow")


def test_differences_say_where_0_is_outside(compared):
    rng = np.random.default_rng(0)
    values = np.stack([rng.normal(size=40), rng.normal(size=40)], axis=-1)[:, None] + np.array([[0.0], [0.0], [1.0]])
    values[:, 1, 1] += 0.5 * rng.normal(size=40)
    values[:, 2] += 0.1 * rng.normal(size=(40, 2))
    values[:, 2, 1] = np.nan
    names = {"methods": ("base", "same", "other"), "metrics": ("deletion", "activation")}
    found = dataclasses.replace(compared, values=values, **names)
    head, _, metrics, *rows = found.differences("base").splitlines()
    assert head == "Less base, on the same texts: mean and 95% interval, * 0 is outside"
    assert metrics.split() == ["deletion", "↓", "activation", "↑"]
    mean, low, high = found.difference("other", "base")[:, 0]
    assert rows[1].split() == ["other", f"{mean:.2f}", f"[{low:.2f},", f"{high:.2f}]*", "—"]
    assert rows[0].split()[:4] == ["same", "0.00", "[0.00,", "0.00]"]
    low, high = found.difference("same", "base")[1:, 1]
    assert ("*" in rows[0]) == (low > 0 or high < 0)
    assert max(map(len, found.differences("base", width=30).splitlines()[1:])) <= 40
    with pytest.raises(ValueError, match="'shap' was not compared; expected one of base, same, other"):
        found.differences("shap")
    alone = dataclasses.replace(found, methods=("base",), values=values[:, :1])
    with pytest.raises(ValueError, match="'base' is the only method that was compared"):
        alone.differences("base")


@pytest.mark.parametrize("name", ["GPT2", "Marian"])
def test_models_that_write(tmp_path, standard_promotion, name):
    import checkpoints

    checkpoints.save(tmp_path, name)
    model, tokenizer = load_model(tmp_path)
    methods = ["flow_attention_gradient", "gradient", "leave_one_out"]
    found = compare(model, ["the old keys"], tokenizer=tokenizer, methods=methods, metrics=["deletion", "gradient"])
    ids = np.asarray(tokenizer(["the old keys"])["input_ids"])
    given = {"input_ids": ids}
    if name == "Marian":
        given["decoder_input_ids"] = np.array([[model.config.decoder_start_token_id]])
    position = 0 if name == "Marian" else ids.shape[1] - 1
    written = int(model(**given).logits[0, position].argmax())
    assert found.decisions == (tokenizer.convert_ids_to_tokens([written])[0] or f"#{written}",)
    expected = gradient_norm(model, target=logit(written, position=position), **given)
    expected = expected.encoder if name == "Marian" else expected.decoder
    np.testing.assert_allclose(found.scores[0][1], expected[0, 0], rtol=1e-3)
    assert len(found.tokens[0]) == ids.shape[1]


class Linen(nn.Module):
    @nn.compact
    def __call__(self, input_ids, attention_mask=None):
        x = nn.Embed(200, 8, name="tokens")(input_ids)
        mask = jnp.asarray(attention_mask, bool)[:, None, None]
        x = x + nn.MultiHeadDotProductAttention(2, name="attention")(x, mask=mask)
        return nn.Dense(3, name="head")(x[:, 0])


class NNX(nnx.Module):
    """The same model, with the same parameters."""

    def __init__(self, params):
        rngs = nnx.Rngs(0)
        self.tokens = nnx.Embed(200, 8, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(num_heads=2, in_features=8, decode=False, rngs=rngs)
        self.head = nnx.Linear(8, 3, rngs=rngs)
        for path, values in jax.tree_util.tree_leaves_with_path(params):
            *parts, name = (key.key for key in path)
            getattr(functools.reduce(getattr, parts, self), name)[...] = values

    def __call__(self, input_ids, attention_mask=None):
        x = self.tokens(input_ids)
        x = x + self.attention(x, mask=jnp.asarray(attention_mask, bool)[:, None, None], deterministic=True)
        return self.head(x[:, 0])


def test_linen_nnx_and_functions_are_compared_alike(agreement):
    _, tokenizer = agreement
    texts = ["some guards near the door"]  # no word twice: without positions they would tie, up to rounding
    ids = jnp.ones((1, 3), int)
    linen = Linen()
    linen = linen.bind(linen.init(jax.random.key(0), ids, attention_mask=ids))
    model = NNX(linen.variables["params"])
    metrics = [name for name in METRICS if name != "sanity"]  # which shuffles parameters, in their order
    expected, found = (compare(each, texts, tokenizer=tokenizer, metrics=metrics) for each in (linen, model))
    assert found.decisions == expected.decisions
    np.testing.assert_allclose(found.scores[0], expected.scores[0], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-3, atol=1e-4)
    sanity = compare(model, texts, tokenizer=tokenizer, methods=["gradient"], metrics=["sanity"])
    assert abs(sanity.mean[0, 0]) < 0.99

    def function(input_ids, attention_mask):
        return nnx.clone(model)(input_ids, attention_mask)

    methods, metrics = ["flow", "flow_attention_gradient", "rollout", "leave_one_out"], ["deletion", "blank_out"]
    found = compare(function, texts, tokenizer=tokenizer, methods=methods, metrics=metrics)
    places = np.ix_(
        [0], [expected.methods.index(name) for name in methods], [expected.metrics.index(name) for name in metrics]
    )
    np.testing.assert_allclose(found.values, expected.values[places], rtol=1e-3, atol=1e-4)
    with pytest.raises(
        ValueError, match="function holds its parameters itself, so they cannot be shuffled: choose metrics"
    ):
        compare(function, texts, tokenizer=tokenizer, methods=methods, metrics=["sanity"])
    with pytest.raises(ValueError, match="function is a function, and no embedding is seen"):
        compare(function, texts, tokenizer=tokenizer, methods=["gradient"], metrics=["deletion"])


class Headless(nn.Module):
    @nn.compact
    def __call__(self, input_ids, attention_mask=None):
        x = nn.Embed(200, 4, name="tokens")(input_ids)
        return {"hidden": nn.MultiHeadDotProductAttention(1)(x, mask=jnp.asarray(attention_mask, bool)[:, None, None])}


class Maskless(nn.Module):
    @nn.compact
    def __call__(self, input_ids):
        return nn.Dense(2)(nn.Embed(200, 4, name="tokens")(input_ids).sum(1))


class Odd:
    def attribute(self, evidence):
        return [1, 2, 3]


def test_refusals(agreement):
    model, tokenizer = agreement

    def refused(match, model=model, texts=TEXTS, **options):
        with pytest.raises(ValueError, match=match):
            compare(model, texts, tokenizer=tokenizer, **options)

    refused("'shap' is no method; expected one of flow, flow_gradient", methods=["shap"])
    refused("'auc' is no metric; expected some of comprehensiveness", metrics=["auc"])
    refused("No method is to be compared", methods=[])
    refused("expected one or more texts", texts=[])
    refused("expected one or more texts, in a list", texts="the keys")
    refused("The text 'keys' has 1 tokens that can be hidden", texts=["the keys", "keys"])
    with pytest.raises(ValueError, match=r"level is 95 and n_resamples 2000; expected a share in \(0, 1\)"):
        Bootstrap(level=95)
    refused(r"scores of shape \(3,\); expected \(1, 7\)", methods={"odd": Odd()})
    ids = jnp.ones((1, 3), int)
    headless = Headless().bind(Headless().init(jax.random.key(0), ids, attention_mask=ids))
    refused("Headless has no head: it returns dict, and no logits. Pass decision=", model=headless)
    maskless = Maskless().bind(Maskless().init(jax.random.key(0), ids))
    refused("Maskless takes no attention_mask to hide tokens by", model=maskless)


def test_from_a_shell(capsys, tmp_path):
    file = tmp_path / "texts.txt"
    file.write_text(f"{TEXTS[0]}\n\n{TEXTS[1]}\n")
    asked = ["compare", str(file), "--methods", "rollout,random", "--metrics", "deletion"]
    assert main(asked) == 0
    out, err = capsys.readouterr()
    assert "AgreementEncoder: 2 texts" in out
    assert "deletion ↓" in out
    assert err == ""
    assert main([*asked, "--against", "random", "--hide", "replace"]) == 0
    tables = capsys.readouterr().out.split("Less random, on the same texts: mean and 95% interval, * 0 is outside")
    assert [table.count("rollout") for table in tables] == [1, 1]
    assert main([*asked, "--json", "--scores", "--seed", "1"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert list(content["methods"]) == ["rollout", "random"]
    assert len(content["texts"]) == 2


@pytest.mark.parametrize(
    ("content", "arguments", "reason"),
    [
        ("\n", [], "There is no text in"),
        ("the keys\n", ["--methods", "shap"], "'shap' is no method"),
        ("the keys\n", ["--scores"], "--scores are a part of --json"),
        ("the keys\n", ["--json", "--against", "flow"], "--against is a table: leave out --json"),
        ("the keys\n", ["--methods", "random", "--against", "flow"], "--against flow is none of the methods"),
        ("the keys\n\nthe xylophones\n", ["--methods", "random"], "Text 2 of 2, 'the xylophones': "),
        ("the keys\n", ["--model", "nowhere"], "no model 'nowhere'"),
        (None, [], "No such file"),
    ],
)
def test_what_could_not_be_done_exits_with_1(capsys, tmp_path, content, arguments, reason):
    file = tmp_path / "texts.txt"
    if content is not None:
        file.write_text(content)
    assert main(["compare", str(file), *arguments]) == 1
    out, err = capsys.readouterr()
    assert reason in err
    assert "Traceback" not in err
    assert out == ""
