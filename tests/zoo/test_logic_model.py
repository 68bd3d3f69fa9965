import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxflow import capture
from jaxflow.attribute import gradient_norm
from jaxflow.zoo._weights import file_of
from jaxflow.zoo.logic import ARITY, FormulaTransformer, tokenizer_of
from jaxflow.zoo.logic._loading import load_reasoning
from jaxflow.zoo.logic._model import tree_positions
from jaxflow.zoo.ltl import LANGUAGE as LTL
from jaxflow.zoo.propositional import LANGUAGE as PROPOSITIONAL
from zoo import command, training
from zoo.logic import data, evaluate, train
from zoo.logic.formulas import random_formula
from zoo.ltl.train import recipe
from zoo.training import Settings

SIZES = {"n_source": 16, "n_target": 12, "n_path": 8, "n_encoder_layers": 1, "n_decoder_layers": 1, "n_heads": 2}
TINY = FormulaTransformer(LTL.vocabulary, width=16, hidden=16, **SIZES)
TOKENIZER = tokenizer_of(TINY, LTL)


def test_tree_positions_are_the_paths_to_the_root():
    def paths(formula, path=()):
        yield path
        for i, part in enumerate(formula.parts):
            yield from paths(part, (i, *path))

    rng = np.random.default_rng(0)
    arity, expected = np.zeros((40, 20), np.int32), np.zeros((40, 20, 12))
    for row in range(40):
        formula = random_formula(rng, row % 20 + 1, operators=LTL.operators, propositions="abc")
        for i, (symbol, path) in enumerate(zip(formula.symbols(), paths(formula), strict=True)):
            arity[row, i] = ARITY.get(symbol, 0)
            for step, side in enumerate(path[:6]):
                expected[row, i, 2 * step + side] = 1
    np.testing.assert_array_equal(tree_positions(jnp.asarray(arity), 6), expected)


@pytest.fixture(scope="module")
def bound():
    params = TINY.init(jax.random.key(0), jnp.ones((1, 16), jnp.int32), jnp.ones((1, 12), jnp.int32))
    return TINY.bind(params)


def test_capture_takes_three_stacks(bound):
    inputs = TOKENIZER(["U a & b X c", "F a"])
    logits, attention = capture(bound, **inputs, decoder_input_ids=np.ones((2, 4), np.int32))
    assert logits.shape == (2, 4, len(LTL.vocabulary))
    assert attention.encoder.shape == (2, 1, 2, 6, 6)
    assert attention.decoder.shape == (2, 1, 2, 4, 4)
    assert attention.cross.shape == (2, 1, 2, 4, 6)
    assert not np.triu(attention.decoder, 1).any()
    assert not np.asarray(attention.cross)[1, ..., 2:].any()  # padding is not read


def test_gradients_are_of_both_stacks(bound):
    inputs = TOKENIZER("U a X b") | {"decoder_input_ids": np.array([[1, 14, 20]], np.int32)}
    attribution = gradient_norm(bound, **inputs, target=lambda logits: logits[:, -1, 3])
    assert attribution.encoder.shape == (1, 1, 4)
    assert attribution.decoder.shape == (1, 1, 3)
    assert (np.asarray(attribution.encoder) > 0).all()


def test_padding_and_what_is_not_written_yet_change_nothing(bound):
    ids = TOKENIZER("U a X b")["input_ids"]
    answer = np.array([[1, 14, 20, 21, 12, 22]], np.int32)
    logits = bound(ids, answer)
    padded = bound(np.pad(ids, ((0, 0), (0, 5))), np.pad(answer, ((0, 0), (0, 3)), constant_values=7))
    np.testing.assert_allclose(padded[:, :6], logits, atol=1e-5)


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ((4,), (1, 3), r"input_ids has shape \(4,\); expected \[batch, token\]"),
        ((1, 17), (1, 3), r"input_ids has 17 tokens; the model reads at most 16"),
        ((1, 4), (1, 13), r"decoder_input_ids has 13 tokens; the model reads at most 12"),
    ],
)
def test_model_refuses(bound, source, target, message):
    with pytest.raises(ValueError, match=message):
        bound(np.ones(source, np.int32), np.ones(target, np.int32))


def test_tokenizer_reads_formulas_and_answers():
    inputs = TOKENIZER(["U a & b X c", "F a"], return_offsets_mapping=True)
    assert TOKENIZER.convert_ids_to_tokens(inputs["input_ids"][0]) == ["U", "a", "&", "b", "X", "c"]
    assert inputs["attention_mask"].tolist() == [[1] * 6, [1, 1, 0, 0, 0, 0]]
    assert inputs["offset_mapping"][1].tolist() == [[0, 1], [2, 3], [0, 0], [0, 0], [0, 0], [0, 0]]
    target = TOKENIZER(text_target="a !b ; { 1 }")["input_ids"][0]
    assert TOKENIZER.decode(target) == "a !b ; { 1 } [END]"
    assert TOKENIZER.decode(target, skip_special_tokens=True) == "a !b ; { 1 }"
    assert TOKENIZER.get_vocab()["!c"] == LTL.vocabulary.index("!c")
    with pytest.raises(ValueError, match="There is no formula to read: the list is empty"):
        TOKENIZER([])
    with pytest.raises(ValueError, match="it has no loop"):
        TOKENIZER(text_target="a }")
    with pytest.raises(ValueError, match=r"The formula nests 9 deep; the model reads 8 at most"):
        TOKENIZER("X " * 9 + "a")


@pytest.mark.parametrize(
    ("language", "formula", "written", "says"),
    [
        (LTL, "U a b", "b ; { 1 }", ["Checked: the trace satisfies the formula."]),
        (
            LTL, "G a", "a ; { 1 }",
            ["Checked: the trace does not satisfy the formula: not with a ; { !a }. One that does: { a }."],
        ),
        (LTL, "G F a", "{ 1 }", ["Checked: the trace does not satisfy the formula: not with { !a }. One that does: { a }."]),
        (LTL, "F a", "a ; {", ["Checked: what was written is no trace: it does not end with }. One that does: a ; { 1 }."]),
        (LTL, "& G a F ! a", "{ a }", ["Checked: nothing satisfies this formula, so no trace is right."]),
        (PROPOSITIONAL, "& a ! b", "a !b", ["Checked: the assignment satisfies the formula."]),
        (PROPOSITIONAL, "& a ! a", "a", ["Checked: nothing satisfies this formula, so no assignment is right."]),
        (
            LTL, "& a & b & c & a & b & c a", "a b c ; { 1 }",
            ["Checked: the trace satisfies the formula.",
             "Longer than trained on: the formula has 13 symbols, and the model has seen 2 to 10."],
        ),
        (
            LTL, "X " * 15 + "a", "{ a }",
            ["Not checked: the formula has 15 different temporal subformulas; this is decided for 14 at most.",
             "Longer than trained on: the formula has 16 symbols, and the model has seen 2 to 10."],
        ),
    ],
)  # fmt: skip
def test_verdicts(language, formula, written, says):
    module = FormulaTransformer(language.vocabulary, **SIZES | {"n_path": 16})
    assert list(tokenizer_of(module, language).check(formula, [*written.split(), "[END]"])) == says


def test_renaming_is_of_formula_and_answer_alike():
    examples = data.generate(LTL, 30, sizes=range(3, 8), held_out=False, seed=0)
    rows = data.encode(examples, TOKENIZER)
    tables = data.renamings(TOKENIZER)
    assert len(tables) == 6
    batch = next(data.batches(rows, iter([np.arange(30)]), TOKENIZER, seed=0))
    changed = 0
    for ids, answer, (formula, _) in zip(batch.input_ids, batch.answers, examples, strict=True):
        renamed = TOKENIZER._parse(TOKENIZER.decode(ids, skip_special_tokens=True))[0]
        trace = LTL.read(TOKENIZER.decode(answer, skip_special_tokens=True).split())
        assert LTL.is_right(renamed, trace)
        assert LTL.solve(renamed) == trace
        changed += renamed != formula
    assert changed > 10


SHORT = Settings(steps=60, batch_size=16, n_examples=60, learning_rate=1e-2)


def test_training_learns_and_repeats(monkeypatch, standard_promotion):
    monkeypatch.setattr(training, "_BATCHES_SORTED", 1)
    monkeypatch.setattr(train, "_PROGRESS", 4)
    params, losses = train.train(TINY, TOKENIZER, SHORT, show_progress=False)
    assert losses[-10:].mean() < 0.7 * losses[:10].mean()
    again, _ = train.train(TINY, TOKENIZER, SHORT, show_progress=False)
    jax.tree.map(np.testing.assert_array_equal, params, again)


def test_command_writes_weights_card_and_figures(monkeypatch, tmp_path, capsys, standard_promotion):
    monkeypatch.setattr(training, "_BATCHES_SORTED", 1)
    monkeypatch.setattr(train, "_PROGRESS", 4)
    monkeypatch.setattr(train, "_REPORT", 30)
    monkeypatch.setattr(evaluate, "_BATCH", 32)
    command.main(recipe(TINY), ["--steps=2", "--formulas=40", "--batch-size=8", "--output", str(tmp_path)])
    assert "all                                          30 formulas" in capsys.readouterr().out
    card = (tmp_path / "README.md").read_text("utf-8")
    assert "--steps=2 --batch-size=8 --formulas=40" in card
    assert "bytes in float16" in card
    assert "Longer than any that it was trained on" in card
    assert "by the positions of the trace" in card
    model, tokenizer = load_reasoning(TINY, LTL, directory=tmp_path)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(model.variables))
    assert tokenizer.model_max_length == 16
    with pytest.raises(
        ValueError, match=r"ltl.safetensors does not fit the module: .*got float16\[2, 8\], expected float16\[2, 16\]"
    ):
        load_reasoning(FormulaTransformer(LTL.vocabulary, width=32, hidden=16, **SIZES), LTL, directory=tmp_path)
    (tmp_path / "propositional.safetensors").write_bytes((tmp_path / file_of("ltl")).read_bytes())
    with pytest.raises(ValueError, match="has the format 'jaxflow-ltl-1'; expected 'jaxflow-propositional-1'"):
        load_reasoning(TINY, PROPOSITIONAL, directory=tmp_path)


def test_answers_are_judged(bound):
    examples = data.generate(LTL, 8, sizes=range(3, 6), held_out=True, seed=0)
    found = [LTL.write(example.answer) for example in examples]
    assert evaluate.right(LTL, examples, found).all()
    assert not evaluate.right(LTL, examples, [["a"]] * 8).any()
    table = evaluate.accuracy_table(examples, np.arange(8) < 4)
    assert table[0] == ("all", 8, 0.5)
    assert sum(count for _, count, _ in table[1:]) == 8


def test_greedy_answers_are_those_of_generation(bound, monkeypatch):
    from jaxflow.models import generate

    monkeypatch.setattr(evaluate, "_BATCH", 4)
    examples = data.generate(LTL, 3, sizes=[4], held_out=True, seed=1)
    written = evaluate.answers(
        TINY, [example.formula for example in examples], TOKENIZER, params=bound.variables["params"]
    )
    for example, symbols in zip(examples, written, strict=True):
        sequence, _ = generate(bound, TOKENIZER(str(example.formula)))
        answer = TOKENIZER.convert_ids_to_tokens(sequence[1:])
        assert answer[: len(symbols)] == symbols
