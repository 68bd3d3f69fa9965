"""ContributionScores and ContributionFlow as methods: targets, positions, spans, sets, Shapley values, certificates."""

import numpy as np
import pytest

import jaxflow as jf
from jaxflow.attribute import AttentionFlow, ContributionFlow, ContributionScores, SetShapley
from jaxflow.attribute._flow import within_budget
from jaxflow.capture import capture_contributions

TEXT = "the keys to the old cabinet"


@pytest.fixture(scope="module")
def agreement():
    return jf.load_model("agreement")


@pytest.fixture(scope="module")
def decoder():
    return jf.load_model("agreement-lm")


def read(tokenizer, text=TEXT):
    return {name: np.asarray(values) for name, values in tokenizer([text]).items()}


def test_scores_are_those_of_capture(agreement):
    model, tokenizer = agreement
    explained = jf.explain(model, TEXT, "contributions", tokenizer=tokenizer, target="plural", positions=0)
    _, _, found = capture_contributions(model, target=jf.logit(1), **read(tokenizer))
    np.testing.assert_allclose(explained.scores[0], found.inputs["encoder"][0], atol=1e-5)
    np.testing.assert_allclose(explained.scores.sum(), found.value[0], rtol=1e-5)
    assert explained.tokens[int(explained.scores.argmax())] == "keys"


def test_a_span_gives_what_its_tokens_give_and_flows_jointly(agreement):
    model, tokenizer = agreement
    spans = [(1, 3, "subject"), (3, 7, "rest")]
    single = jf.explain(model, TEXT, "contributions", tokenizer=tokenizer, positions=0)
    joined = jf.explain(model, TEXT, "contributions", tokenizer=tokenizer, positions=0, spans=spans)
    expected = [single.scores[0, 0], single.scores[0, 1:3].sum(), single.scores[0, 3:].sum()]
    np.testing.assert_allclose(joined.scores[0], expected, atol=1e-6)
    flow = jf.explain(model, TEXT, "contribution_flow", tokenizer=tokenizer, positions=0)
    together = jf.explain(model, TEXT, "contribution_flow", tokenizer=tokenizer, positions=0, spans=spans)
    assert flow.scores[0, 1:3].max() <= together.scores[0, 1] + 1e-6 <= flow.scores[0, 1:3].sum() + 2e-6
    assert together.attribution.certificate.exact.all()


def test_each_written_token_has_its_own(decoder):
    model, tokenizer = decoder
    options = {"tokenizer": tokenizer, "generate": jf.Generate(max_new_tokens=3)}
    explained = jf.explain(model, TEXT, "contributions", **options)
    together = jf.explain(model, TEXT, "contributions", joint=True, **options)
    ids = np.array([[tokenizer.get_vocab()[token] for token in explained.decoder_tokens]])
    for row, position in enumerate(explained.attribution.positions):
        _, _, found = capture_contributions(
            model, ids, target=jf.logit(int(ids[0, position + 1]), position=int(position))
        )
        np.testing.assert_allclose(explained.scores[row], found.inputs["decoder"][0], atol=2e-5)
        assert (explained.scores[row, position + 1 :] == 0).all()
    np.testing.assert_allclose(together.scores[0], explained.scores.sum(0), atol=1e-4)


@pytest.mark.parametrize("sign", ["support", "opposition"])
def test_flow_has_proofs_cuts_and_a_game(agreement, sign):
    model, tokenizer = agreement
    explained = jf.explain(model, TEXT, ContributionFlow(sign=sign), tokenizer=tokenizer, positions=0)
    certificate = explained.attribution.certificate
    assert certificate.exact.all()
    assert (explained.scores <= np.asarray(certificate.trivial) + 1e-9).all()
    np.testing.assert_allclose(explained.bottleneck.sum(), 1)
    by_reference = jf.explain(
        model, TEXT, ContributionFlow(sign=sign, solver="ortools"), tokenizer=tokenizer, positions=0
    )
    np.testing.assert_allclose(explained.scores, by_reference.scores, rtol=1e-5, atol=1e-6)
    game = jf.explain(model, TEXT, SetShapley(contributions=sign), tokenizer=tokenizer, positions=0)
    every = jf.explain(
        model, TEXT, ContributionFlow(sign=sign), tokenizer=tokenizer, positions=0, spans=[(0, 7, "everything")]
    )
    np.testing.assert_allclose(game.scores.sum(), every.scores.sum(), rtol=1e-5)
    assert (game.scores <= explained.scores + 1e-5).all()


def test_an_encoder_decoder_gives_from_both_sides():
    model, tokenizer = jf.load_model("propositional")
    explained = jf.explain(
        model, "& a ! b", "contributions", tokenizer=tokenizer, generate=jf.Generate(max_new_tokens=2)
    )
    flow = jf.explain(
        model, "& a ! b", "contribution_flow", tokenizer=tokenizer, generate=jf.Generate(max_new_tokens=2)
    )
    assert explained.attribution.encoder.shape == flow.attribution.encoder.shape == (2, 4)
    assert explained.scores.argmax(1).tolist() == [1, 3]  # a, and b
    assert flow.scores.argmax(1).tolist() == [1, 3]


def test_options_of_another_network_are_refused():
    with pytest.raises(ValueError, match="residual: of the network of attention"):
        SetShapley(contributions="support", residual=0.2)
    with pytest.raises(ValueError, match="tolerance"):
        ContributionFlow(tolerance=-1.0)
    assert ContributionScores().needs == {"contributions"}


def test_targets_share_the_time(decoder):
    model, tokenizer = decoder
    flow = ContributionFlow(budget_seconds=0.0)
    assert not flow.is_plain  # so no words are solved for behind its back
    explained = jf.explain(model, TEXT, flow, tokenizer=tokenizer, generate=jf.Generate(max_new_tokens=2))
    certificate = explained.attribution.certificate
    assert np.isnan(explained.scores[np.asarray(certificate.trivial) > 0]).any()
    assert "since time ran out" in str(explained)
    left = within_budget(AttentionFlow(budget_seconds=10.0))
    first, second = left().budget_seconds, left().budget_seconds
    assert 10.0 >= first >= second > 0
