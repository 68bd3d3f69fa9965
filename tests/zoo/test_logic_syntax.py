import numpy as np
import pytest

from jaxflow.zoo.logic._syntax import Formula, parse, parse_with_offsets
from jaxflow.zoo.logic._trace import Trace, read_trace
from jaxflow.zoo.ltl import LANGUAGE as LTL
from jaxflow.zoo.propositional import LANGUAGE as PROPOSITIONAL
from zoo.logic.formulas import canonical, is_held_out, key, random_formula, sample

LTL_KNOWS = {"operators": LTL.operators, "propositions": LTL.propositions}


def test_formulas_are_read_as_they_are_written():
    rng = np.random.default_rng(0)
    for size in range(1, 20):
        formula = random_formula(rng, size, operators=LTL.operators, propositions="abc")
        assert len(formula.symbols()) == size
        assert parse(str(formula)) == formula
        assert parse(str(formula).replace(" ", ""), **LTL_KNOWS) == formula
    assert parse("U a & b X c").parts == (Formula("a"), parse("& b X c"))
    assert parse_with_offsets(" U a\t b", **LTL_KNOWS)[1] == [1, 3, 6]
    assert parse("U a & b X c").depth() == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"The formula is empty: ''; expected one in prefix notation, such as '& a ! b'\."),
        ("  ", r"The formula is empty"),
        ("U a", r"'U a' ends too early, after character 3: U \(until\), at character 1, takes 2 formulas and has 1\."),
        ("& a !", r"'& a !' ends too early, after character 5: ! \(not\), at character 5, takes 1 formula and has 0\."),
        ("a b", r"'a b' is complete after character 1, but goes on with 'b' at character 3\. Operators stand before"),
        ("a U b", r"'a U b' is complete after character 1, but goes on with 'U' at character 3"),
        (
            "U a W b",
            r"'U a W b' has 'W' at character 5, which this model does not know\. Operators are ! \(not\), & \(and\)",
        ),
        ("& a d", r"has 'd' at character 5, .* constants 1 and 0; propositions a, b, c\."),
        ("= a b", r"has '=' at character 1, which this model does not know"),
        ("(a)", r"has '\(' at character 1"),
    ],
)
def test_bad_formulas_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse(text, **LTL_KNOWS)


def test_traces_are_read_as_they_are_written():
    trace = Trace(((("a", True), ("b", False)), (("c", True),), ()), loop=1)
    assert str(trace) == "a !b ; { c ; 1 }"
    assert read_trace(trace.symbols()) == trace
    assert trace.renamed({"a": "b", "b": "a"}).positions[0] == (("b", True), ("a", False))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"it does not end with }"),
        ("a ; { 1", r"it does not end with }"),
        ("a }", r"it has no loop"),
        ("{ a ; { b }", r"at position 2, a second loop begins"),
        ("a ; ; { 1 }", r"position 2 is empty"),
        ("a ; { }", r"position 2 is empty"),
        ("a !a ; { 1 }", r"position 1 has a twice"),
        ("a 1 ; { 1 }", r"at position 1, 1 stands where a proposition belongs"),
        ("a ; b { c }", r"at position 2, { stands where a proposition belongs"),
        ("a ; & ; { c }", r"at position 2, & stands where a proposition belongs"),
        ("e ; { c }", r"at position 1, e stands where a proposition belongs"),
    ],
)
def test_bad_traces_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        LTL.read(text.split())


def test_assignments_have_one_position():
    trace = PROPOSITIONAL.read(["a", "!b"])
    assert PROPOSITIONAL.write(trace) == ["a", "!b"]
    assert PROPOSITIONAL.write(PROPOSITIONAL.read(["1"])) == ["1"]
    with pytest.raises(ValueError, match="; does not belong into an assignment"):
        PROPOSITIONAL.read(["a", ";", "b"])


@pytest.mark.parametrize("language", [LTL, PROPOSITIONAL])
def test_like_formulas_have_one_key_and_others_another(language):
    rng = np.random.default_rng(1)
    keys = {}
    for _ in range(150):
        formula = random_formula(rng, 7, operators=language.operators, propositions=language.propositions)
        order = rng.permutation(list(language.propositions))
        names = dict(zip(language.propositions, map(str, order), strict=True))
        assert key(_swapped(formula).renamed(names), language.propositions) == key(formula, language.propositions)
        keys[key(formula, language.propositions)] = formula
    assert key(parse("> a b"), "abc") != key(parse("> b ! a"), "abc")
    assert key(parse("> a b"), "abc") == key(parse("> b a"), "abc")
    assert key(parse("U a & a b"), "abc") != key(parse("U a & b c"), "abc")
    assert len(keys) > 100


def _swapped(formula):
    parts = [_swapped(part) for part in formula.parts]
    return Formula(formula.symbol, tuple(reversed(parts) if formula.symbol in "&|" else parts))


@pytest.mark.parametrize("held_out", [False, True])
def test_samples_are_new_canonical_and_of_every_size(held_out):
    found = []
    for formula in sample(sizes=range(2, 8), held_out=held_out, seed=0, operators=LTL.operators, propositions="abc"):
        assert is_held_out(formula, "abc") == held_out
        assert canonical(formula, "abc") == formula
        found.append(formula)
        if len(found) == 200:
            break
    assert len(set(found)) == 200
    assert {len(formula.symbols()) for formula in found} >= set(range(3, 8))


def test_samples_end_where_there_are_no_more():
    found = list(sample(sizes=[1, 2], held_out=False, seed=0, operators={"!": 1}, propositions="a"))
    assert {str(formula) for formula in found} <= {"a", "1", "0", "! a", "! 1", "! 0"}
    assert len(found) >= 3
