import numpy as np
import pytest
from lasso_words import cost, traces, unrolled, value, words

from jaxflow.zoo.logic._search import counterexample, find_trace
from jaxflow.zoo.logic._semantics import MAX_TEMPORAL, satisfiable, satisfies, some_word
from jaxflow.zoo.logic._syntax import ARITY, Formula, parse
from jaxflow.zoo.logic._trace import Trace, read_trace
from zoo.logic.formulas import random_formula

ALL = dict.fromkeys(ARITY, 1.0)
PURE = dict.fromkeys("!&|>", 1.0)


def formulas(n, sizes, *, propositions="ab", operators=ALL, seed=0):
    rng = np.random.default_rng(seed)
    return [
        random_formula(rng, int(rng.choice(sizes)), operators=operators, propositions=propositions) for _ in range(n)
    ]


def random_trace(rng, *, names="ab", values=(True, False), n_positions=4):
    n = int(rng.integers(1, n_positions + 1))
    letters = [[(name, values[rng.integers(len(values))]) for name in names] for _ in range(n)]
    cubes = tuple(tuple(literal for literal in letter if literal[1] is not None) for letter in letters)
    return Trace(cubes, int(rng.integers(n)))


def test_words_are_judged_as_the_definitions_say():
    rng = np.random.default_rng(1)
    n_true = 0
    for formula in formulas(600, range(1, 9)):
        word = random_trace(rng)
        expected = value(formula, word) == 1
        assert satisfies(word, formula) == expected, (str(formula), str(word))
        assert some_word(word, formula) == expected
        n_true += expected
    assert 200 < n_true < 400


@pytest.mark.parametrize(
    ("formula", "trace", "holds"),
    [
        ("X a", "{ a }", True),  # a loop of one position is its own next
        ("X a", "{ a ; !a }", False),
        ("X ! a", "a ; { !a }", True),
        ("X X a", "{ a ; !a }", True),  # across the seam
        ("X X a", "a ; { !a ; !a }", False),  # which does not lead to the first position
        ("G X a", "!a ; { a }", True),
        ("G > a X ! a", "{ a ; !a }", True),
        ("G > a X ! a", "{ a ; !a ; a }", False),  # a, then a again
        ("U a b", "{ a }", False),  # forever put off
        ("U a b", "{ a !b ; b }", True),
        ("U a b", "a !b ; !a !b ; { b }", False),
        ("R a b", "{ b }", True),  # forever
        ("R a b", "b !a ; b a ; { !b }", True),
        ("R a b", "b !a ; !b a ; { b }", False),
        ("U a U b c", "a ; b !c ; c ; { 1 }", True),
        ("R U a b G c", "{ c }", True),
        ("U G a b", "{ a !b }", False),
        ("G F a", "{ !a ; a }", True),
        ("F G a", "{ !a ; a }", False),
        ("G F a", "{ 1 }", False),
        ("| F G a G F ! a", "{ 1 }", True),  # of words that are no lassos, too
        ("| a ! a", "{ 1 }", True),  # more than Kleene's tables see
        ("1", "{ 1 }", True),
        ("0", "{ 1 }", False),
    ],
)
def test_edges(formula, trace, holds):
    assert satisfies(read_trace(trace.split()), parse(formula)) == holds


def test_symbolic_traces_are_judged_by_all_their_words():
    rng = np.random.default_rng(2)
    judged = []
    for formula in formulas(250, range(2, 7), seed=3):
        trace = random_trace(rng, values=(True, False, None), n_positions=2)
        # A loop may be filled in anew each time: for formulas of this size, four times show whatever there is to see.
        right = all(value(formula, word) == 1 for word in words(unrolled(trace, 3), "ab"))
        assert satisfies(trace, formula) == right, (str(formula), str(trace))
        if value(formula, trace) == 1:
            assert right  # Kleene's tables are sound
        judged.append(right)
    assert 50 < sum(judged) < 200


def test_satisfiable_is_having_a_word():
    for formula in formulas(150, range(2, 6), seed=4):
        has_word = any(value(formula, word) == 1 for n in (1, 2, 3) for word in traces("ab", n))
        assert satisfiable(formula) == has_word, str(formula)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("F a", "U 1 a"), ("G a", "R 0 a"), ("U a b", "| b & a X U a b"), ("R a b", "& b | a X R a b"),
        ("! U a b", "R ! a ! b"), ("! X a", "X ! a"), ("U a U a b", "U a b"), ("F F a", "F a"),
        ("X U a b", "U X a X b"), ("G F G a", "F G a"),
    ],
)  # fmt: skip
def test_identities_hold_in_all_words(one, other):
    for a, b in ((parse(one), parse(other)), (parse(other), parse(one))):
        assert not satisfiable(Formula("&", (a, Formula("!", (b,)))))


def test_what_is_too_large_is_refused():
    formula = parse("X " * (MAX_TEMPORAL + 1) + "a")
    with pytest.raises(ValueError, match=r"has 15 different temporal subformulas; this is decided for 14 at most"):
        satisfiable(formula)
    assert satisfiable(formula.parts[0])


def test_search_finds_the_least_that_surely_holds():
    for formula in formulas(120, range(1, 7), seed=5):
        found = find_trace(formula, max_positions=2)
        candidates = [
            trace for n in (1, 2) for trace in traces("ab", n, (True, False, None)) if value(formula, trace) == 1
        ]
        if found is None:
            assert not candidates, str(formula)
            continue
        assert value(formula, found) == 1
        assert satisfies(found, formula)
        assert cost(found) == min(map(cost, candidates)), (str(formula), str(found))


def test_search_finds_nothing_only_where_no_lasso_of_that_length_is():
    for formula in formulas(60, range(5, 9), seed=6):
        has_word = any(value(formula, word) == 1 for n in (1, 2) for word in traces("ab", n))
        assert (find_trace(formula, max_positions=2) is not None) == has_word, str(formula)


def test_renamed_formulas_have_renamed_traces():
    for formula in formulas(40, range(4, 10), propositions="abc", seed=7):
        names = dict(zip("abc", "cab", strict=True))
        found, renamed = (find_trace(one, max_positions=4) for one in (formula, formula.renamed(names)))
        assert renamed == (found and found.renamed(names))


def test_counterexample_is_one():
    rng = np.random.default_rng(8)
    n_found = 0
    for formula in formulas(100, range(2, 9), seed=9):
        trace = random_trace(rng, values=(True, False, None), n_positions=3)
        names = formula.propositions()
        wrong = [word for word in words(trace, names) if value(formula, word) != 1]
        found = counterexample(formula, trace)
        assert (found is not None) == bool(wrong), (str(formula), str(trace))
        if found is not None:
            assert value(formula, found) == 0
            assert found.loop == trace.loop
            for cube, letter in zip(trace.positions, found.positions, strict=True):
                assert {name: v for name, v in cube if name in names}.items() <= dict(letter).items()
            n_found += 1
    assert n_found > 20


def test_search_of_propositional_formulas_is_complete():
    for formula in formulas(60, range(2, 10), propositions="abc", operators=PURE, seed=10):
        has_word = any(value(formula, word) == 1 for word in traces("abc", 1))
        assert (find_trace(formula, max_positions=1) is not None) == has_word
