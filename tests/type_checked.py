"""Use every room with jaxflow's annotations checked by beartype: types, ranks, and axes that must agree.

Run by test_types.py in a process of its own, since the check must be there before jaxflow is imported.
"""

import ast
import contextlib
import doctest
import functools
import importlib
import inspect
import io
import pkgutil
import sys
import tempfile
import traceback
from pathlib import Path

import jax
import jaxtyping
import numpy as np
from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int where a float is expected
called = set()
TEXT = "the keys to the cabinet"


def install(package):
    """Check functions and methods of a package. Constructors of PyTrees hold anything while JAX maps over them."""
    jaxtyped = jaxtyping.jaxtyped

    def of_functions(checked=None, **options):
        if checked is None:
            return lambda checked: of_functions(checked, **options)
        if isinstance(checked, str):  # `with jaxtyped("context")`
            return jaxtyped(checked, **options)
        must_be_readable(checked)
        if hasattr(checked, "_flax_dataclass") or checked.__module__ == "jaxflow.solve._kernel":  # Numba compiles it
            return checked
        typed = jaxtyped(checked, **options)
        return counted(typed) if inspect.isfunction(checked) else typed

    jaxtyping.jaxtyped = of_functions
    jaxtyping.install_import_hook(package, "type_checked.check")


def must_be_readable(thing):
    """Refuse annotations that raise when they are evaluated, which would never be checked."""
    for name, annotation in getattr(thing, "__annotations__", {}).items():
        if isinstance(annotation, str):
            with contextlib.suppress(NameError):  # imported for type checkers alone
                try:
                    eval(annotation, vars(sys.modules[thing.__module__]))
                except (AttributeError, TypeError, ValueError) as error:
                    raise TypeError(f"{thing.__qualname__}, {name}: {annotation} is no annotation: {error}") from error


def counted(function):
    """Note that a function was called."""
    name = f"{function.__module__}.{function.__qualname__}"

    @functools.wraps(function)
    def noted(*args, **kwargs):
        called.add(name)
        return function(*args, **kwargs)

    return noted


def attention_of(jf, shape=(2, 3)):
    """Make attention of an encoder-decoder: a batch, 3 layers of 2 heads, 4 source and 5 target tokens."""
    rng = np.random.default_rng(0)
    stacks = {"encoder": (4, 4), "decoder": (5, 5), "cross": (5, 4)}
    logits = {name: rng.normal(size=(*shape, 2, *ends)).astype(np.float32) for name, ends in stacks.items()}
    logits["decoder"] += np.where(np.tri(5, dtype=bool), 0, -np.inf).astype(np.float32)
    return jf.Attention(**{name: np.asarray(jax.nn.softmax(stack, axis=-1)) for name, stack in logits.items()})


def load(jf, name="agreement"):
    """Load a model, and leave it two of its layers: each is compiled anew."""
    model, tokenizer = jf.load_model(name)
    return model.clone(n_layers=2).bind(model.variables), tokenizer


def inputs_of(tokenizer):
    """Read a text as NumPy arrays, which users have more often than JAX's."""
    return {name: np.asarray(values) for name, values in tokenizer([TEXT]).items()}


def use_zoo(jf):
    from jaxflow.zoo import logic, ltl, names, propositional

    for name in names():
        jf.load_model(name)
    for language, text, answer in (
        (ltl.LANGUAGE, "U a & b X c", "b ; c ; { 1 }"),
        (propositional.LANGUAGE, "& a ! b", "a !b"),
    ):
        formula = logic.parse(text, operators=language.operators)
        trace = language.read(answer.split())
        for one in (formula, trace):
            assert one.renamed({"a": "b", "b": "a"}).symbols()
        assert formula.depth() < len(formula.subformulas())
        assert language.is_satisfiable(formula)
        assert language.is_right(formula, trace)
        assert language.verdict(formula, language.write(language.solve(formula)))
    model, tokenizer = jf.load_model("propositional")
    assert tokenizer.get_vocab()
    assert logic.tokenizer_of(model, propositional.LANGUAGE).check("& a ! b", ["a", "!b", logic.END])
    written = jf.explain(model, "& a ! b", tokenizer=tokenizer, generate=jf.Generate(continuation="a !b"))
    assert written.notes
    assert tokenizer.decode(tokenizer("& a ! b")["input_ids"][0])


def use_models(jf):
    for name in ("agreement", "agreement-lm"):
        model, tokenizer = load(jf, name)
        inputs = inputs_of(tokenizer)
        adapted = jf.as_model(model)
        adapted.bind(adapted.parameters).call(**inputs)
        assert adapted.arguments((inputs["input_ids"],), {})["input_ids"] is inputs["input_ids"]
        assert adapted.facts.stacks
    jf.models.generate(adapted, inputs, max_new_tokens=2, sample=True)
    function = jf.as_model(lambda state, x: state * x)
    assert function.bind(function.parameters).with_state(function.state_of(2)).call(3) == 6
    assert function.arguments((2,), {"x": 3}) == {"state": 2, "x": 3}


def use_capture(jf):
    model, tokenizer = load(jf)
    inputs = inputs_of(tokenizer)
    jf.capture(model, **inputs)
    jf.capture(lambda x: jax.nn.softmax(x @ x.T / 2) @ x, np.random.default_rng(0).normal(size=(3, 4)))
    outputs, *_ = jf.attention_gradients(model, target=jf.logit(1), **inputs)
    for number in (1, np.int64(1), np.array([1])):
        for target in (jf.logit(number), jf.log_probability(number), jf.contrast(number, 0)):
            assert target(outputs).shape == (1,)
    assert jf.logit(1, position=-1)(np.zeros((2, 3, 4), np.float32)).shape == (2,)
    from jaxflow.capture import TargetSum  # late, as all of jaxflow: what is imported before is not checked

    both = TargetSum((jf.logit(1), jf.contrast(-1, 0))).located(outputs)
    assert both(outputs).shape == (1,)
    _, _, contributions = jf.capture_contributions(model, target=jf.logit(1), **inputs)
    assert contributions.inputs["encoder"].shape == (1, contributions.encoder.shape[-1])
    jf.joint_capacities(contributions)
    jf.ContributionFlow(sign="opposition")(contributions)
    jf.evaluate.knock_out(model, arcs={"encoder": np.asarray(contributions.encoder[0]) > 0}, **inputs)
    for method, position in (("flow", 0), (jf.ContributionFlow(), None)):
        jf.evaluate.cut_effect(model, target=jf.logit(1), method=method, position=position, n_random=1, **inputs)
    query, key = np.random.default_rng(0).normal(size=(2, 2, 5, 2, 4)).astype(np.float32)
    jf.attention_weights(query, key, mask=np.ones((1, 1, 5, 5), bool), causal=True)
    jf.attention_weights(jax.numpy.asarray(query[0]), jax.numpy.asarray(key[0]), window=2)


def use_network(jf):
    attention = attention_of(jf)
    mask = np.arange(4) < np.array([[4], [3]])
    weights = np.full((3, 2), 0.5)
    for heads in ("max", 1, np.int64(1), weights.tolist(), weights):
        jf.joint_capacities(attention, heads=heads)
    for kind in (bool, np.int32, np.float32):
        jf.joint_capacities(attention, encoder_mask=mask.astype(kind))
    jf.joint_capacities(attention, encoder_mask=mask.tolist())
    for residual in (0, np.float32(0.5), jax.numpy.asarray(0.5)):
        capacities = jf.joint_capacities(attention, residual=residual)
    jf.joint_capacities(attention, weighting="attention_gradient", gradients=attention)
    jax.jit(jf.joint_capacities)(attention)
    jax.vmap(jf.joint_capacities)(attention)
    jf.joint_capacities(jf.Attention(encoder=layer[None]) for layer in attention.encoder[0])
    one = jax.tree.map(lambda leaf: np.asarray(leaf)[0] if np.ndim(leaf) else leaf, capacities)
    for options in ({}, {"decoder_layer": "parallel"}, {"feedback": "unrolled", "n_prompt": 2}):
        network = jf.flow_network(one, **options)
    spans = jf.network.span_masks([(0, 2)], 4)
    for positions in (0, [0, 1], np.array([0, 1])):
        jf.network.join_outputs(jf.network.join_inputs(network, encoder_spans=spans), positions)
    model, tokenizer = load(jf)
    for heads in ("max", np.full((2, 4), 0.25)):
        jf.network.capture_capacities(model, heads=heads, **inputs_of(tokenizer))


def use_solve(jf):
    attention = jax.tree.map(lambda stack: stack[0], attention_of(jf))
    capacities = jf.joint_capacities(attention)
    network = jf.flow_network(capacities)
    first, last = network.inputs[0], network.outputs[-1]
    for solver in ("certified", "ortools"):
        jf.max_flow(network, network.inputs[:, None], network.outputs, solver=solver)
        jf.max_flow(network, int(first), last, solver=solver)
        jf.solve.cut_capacities(network, network.inputs, last, solver=solver)
        jf.solve.bottleneck(network, network.inputs[:, None], network.outputs, solver=solver)
    cut = jf.min_cut(network, network.inputs, last)
    jf.min_cut(network, int(first), last)
    jf.solve.cut_sentence(cut, encoder_tokens=list("abcd"), decoder_tokens=list("abcde"))
    jf.solve.barrier_flow(network, network.inputs, network.outputs[-2:])
    jf.solve.barrier_flow(network, int(first), last)
    for arcs in (None, [3], np.array([3, 4])):
        jf.solve.arc_range(network, first, int(last), arcs=arcs)
    jf.solve.flow_bounds(capacities)
    for value in (jf.solve.flow_value, jf.solve.smooth_flow_value):
        value(capacities, 0, np.int64(4))
        value(capacities, np.arange(4)[:, None], np.array([3, 4]))
    jax.jit(jax.grad(jf.solve.flow_value), static_argnums=(1, 2))(capacities, 0, 4)


def use_attribute(jf):
    attention = attention_of(jf)
    spans = jf.network.Spans(encoder=jf.network.span_masks([(0, 2)], 4), decoder=jf.network.span_masks([(0, 1)], 5))
    for positions in (None, 1, np.int64(1), [0, 2], np.array([0, 2])):
        found = jf.attention_flow(attention, positions=positions, residual=0.3)
    assert found.scores.shape == (2, 2, 9)
    for correction in ("decay", "uniform"):
        jf.AttentionFlow(correction=correction, normalise=True)(attention)
    jf.AttentionFlow(tolerance=0.1, budget_seconds=60)(attention, spans=spans)
    jf.Rollout()(attention)
    jf.RawAttention(layer=-1)(attention)
    jf.SetShapley(precision=0.1, n_permutations=32)(attention, positions=0)
    ablations = [
        jf.attribute.Ablation(0, stack="encoder", layer=1, head=0),
        jf.attribute.Ablation(0.5, stack="cross", key=[0, 1]),
    ]
    jf.attribute.intervene(attention, ablations, positions=0)
    jf.attribute.ablated_capacities(attention, ablations, renormalise=True)
    jf.attribute.random_scores(found)
    jf.estimate_cost(attention)


def use_shapley(jf):
    attention = jax.tree.map(lambda stack: stack[0], attention_of(jf))
    network = jf.flow_network(jf.joint_capacities(attention))
    last = network.outputs[-1]
    for players in (None, network.inputs, [0, np.int64(1)], [[0, 1], [2]], [np.array([0, 1]), network.inputs[2:4]]):
        jf.shapley.set_shapley(network, last, players=players)
    jf.shapley.sample_set_shapley(network, int(last), n_permutations=64)
    flow = jf.solve.barrier_flow(network, network.inputs, last).flow
    for players in (None, network.inputs, [0, 1]):
        jf.shapley.fixed_flow_shapley(network, flow, players=players)


def use_gradients(jf):
    model, tokenizer = load(jf)
    inputs, target = inputs_of(tokenizer), jf.logit(1)
    methods = jf.attribute
    for score in (methods.gradient_norm, methods.input_x_gradient, methods.integrated_gradients, methods.leave_one_out):
        score(model, target=target, **inputs)


def use_explain(jf):
    model, tokenizer = load(jf)
    decoder, its_tokenizer = load(jf, "agreement-lm")
    for method in (*jf.attribute.METHODS, jf.LeaveOneOut(best=2, by="contributions")):
        explanation = jf.explain(model, TEXT, method, tokenizer=tokenizer, positions=0)
        assert explanation.scores.shape == (1, 6)
        assert explanation.to_json()
    chosen = (
        {"spans": "words"}, {"spans": [(1, 3)], "joint": True}, {"positions": [1, 2]}, {"positions": np.array([1, 2])},
    )  # fmt: skip
    for options in chosen:
        jf.explain(model, TEXT, tokenizer=tokenizer, **options)
    jf.explain(model, jf.Example(inputs_of(tokenizer)), "gradient", target="plural")
    for method in ("flow", "rollout", "raw"):
        assert len(jf.explain(model, [TEXT, "the key"], method, tokenizer=tokenizer, positions=[-1, "[CLS]"])) == 2
    for method in ("contributions", jf.AttentionFlow(weighting="gradient")):  # of several targets at once
        jf.explain(decoder, TEXT, method, tokenizer=its_tokenizer)

    x = np.random.default_rng(0).normal(size=(1, 3, 4)).astype(np.float32)
    for function in (jax.jit(lambda x: jax.nn.softmax(x @ x.mT / 2) @ x), lambda x: jax.nn.softmax(x @ x.mT / 2) @ x):
        jf.explain(function, x)

    class Own:
        needs = frozenset({"attention", "gradients"})

        def attribute(self, evidence):
            whole = evidence.with_spans(jf.network.NO_SPANS)
            assert whole.gradients(0).encoder.shape == whole.attention.encoder.shape
            return np.asarray(whole.attention.encoder)[-1].max(0)[list(evidence.positions)]

    jf.explain(model, TEXT, Own(), tokenizer=tokenizer)
    written = jf.explain(decoder, TEXT, tokenizer=its_tokenizer, generate=jf.Generate(max_new_tokens=2))
    with tempfile.TemporaryDirectory() as directory:
        for ending in ("json", "npz", "html"):
            written.save(Path(directory) / f"x.{ending}")
        assert jf.load(Path(directory) / "x.npz").scores.shape == written.scores.shape


def use_evaluate(jf):
    model, tokenizer = load(jf)
    texts, methods = [TEXT, "the key to the doors"], ["raw", "rollout"]
    found = jf.compare(model, texts, tokenizer=tokenizer, methods=methods, metrics=["deletion"])
    methods = [jf.LeaveOneOut(best=2, by="rollout"), jf.attribute.TokenShapley(n_permutations=4)]
    for hide in ("replace", 3, np.int64(3)):
        jf.compare(model, texts, tokenizer=tokenizer, methods=methods, metrics=["deletion"], hide=hide)
    assert found.to_text(100)
    assert found.to_json(scores=True)
    assert found.to_markdown()
    assert found.difference("raw", "rollout").shape == (3, len(found.metrics))
    assert found.differences("rollout")
    assert found.rank_correlations.shape == (2, 2)
    assert jf.evaluate.next_token().positions(3) == (2,)
    value = jf.evaluate.masked_value(model, target=jf.logit(1), **inputs_of(tokenizer))
    for scores in (np.arange(6), np.linspace(0, 1, 6, dtype=np.float32), [0.5, 0, 1, 2, 3, 4]):
        jf.evaluate.erase(value, scores, candidates=np.arange(6) > 0)
        jf.evaluate.erasure_curves(value, scores, n_steps=2)
        jf.evaluate.rank_correlation(scores, np.arange(6.0))
    parameters = jf.as_model(model).parameters
    cascade = jf.evaluate.layer_groups(parameters)[:2]
    jf.evaluate.sanity_check(
        lambda changed: np.asarray(jax.tree.leaves(changed)[0]).ravel(), parameters, cascade=cascade
    )


def use_training(jf):
    model, tokenizer = load(jf)
    written = {}

    class Writer:
        def write_scalars(self, step, scalars):
            written.update(scalars)

        def write_images(self, step, images):
            written.update(images)

    state = jf.as_model(model).parameters
    with jf.FlowMonitor(model, inputs_of(tokenizer), writer=Writer(), every_steps=1, state=state) as monitor:
        monitor(0, state)
        monitor.flush()
    assert written
    assert jf.training.flow_summary(attention_of(jf), positions=[0, 1]).scalars()


def use_views(jf):
    import treescope

    model, tokenizer = load(jf)
    explanation = jf.explain(model, TEXT, tokenizer=tokenizer)
    signed = jf.explain(model, TEXT, "input_x_gradient", tokenizer=tokenizer, positions=0)
    for one in (explanation, signed, signed.scores, signed.scores[0], [0.5, 1], [[0.5, 1.0], [1, 0]]):
        jf.plot.plot_tokens(one)
        jf.plot.plot_matrix(one)
    for one in (explanation, signed):
        assert str(one)
        assert one._repr_html_()
        assert jf.html.to_page(one)
    jf.plot.plot_flow(explanation, input=2)
    jf.plot.plot_flow(explanation.flow_graph(0))
    for one in (explanation, explanation.flow_graph(0), [0.25, 0.75]):
        jf.plot.plot_layers(one)
    jf.html.methods_page({"flow": explanation, "signed": signed, "scores": signed.scores})
    jf.html.methods_html({"one": [[0.5, 1.0]], "other": np.array([[1, 0]])}, tokens=["a", "b"])
    for one in (attention_of(jf), explanation.attribution):
        assert treescope.render_to_text(one)


def use_cli(jf):
    from jaxflow.cli import main

    with contextlib.redirect_stdout(io.StringIO()):
        assert main(["explain", TEXT, "--method", "rollout"]) == 0


def use_examples(jf):
    """Run what the docstrings show."""
    for found in pkgutil.walk_packages(jf.__path__, "jaxflow."):
        if found.name.endswith("__main__"):
            continue
        module = importlib.import_module(found.name)
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                continue
            names = dict(vars(module))
            for example in doctest.DocTestParser().get_examples(ast.get_docstring(node) or ""):
                raises = contextlib.nullcontext() if example.exc_msg is None else contextlib.suppress(ValueError)
                with raises, contextlib.redirect_stdout(io.StringIO()):
                    exec(compile(example.source, found.name, "single"), names)


ROW = np.zeros(3, np.float32)
PLANTED = {
    "rank": lambda planted: planted.matrix(ROW),
    "elements": lambda planted: planted.numbers(ROW),
    "axes that differ": lambda planted: planted.alike(np.arange(2), ROW),
    "library": lambda planted: planted.on_device(ROW),
    "number": lambda planted: planted.one(np.int64(0)),
    "result": lambda planted: planted.row(ROW[None]),
    "property": lambda planted: planted.Holder(ROW).best,
    "method": lambda planted: planted.Holder(ROW).score_of(0),
    "inner function": lambda planted: planted.with_helper(),
    "cause of another error": lambda planted: planted.with_another_error(),
}
NOT_PLANTED = {
    "true rank": lambda planted: planted.matrix(ROW[None]),
    "axes that agree": lambda planted: planted.alike(np.arange(3), ROW),
    "true library": lambda planted: planted.on_device(jax.numpy.asarray(ROW)),
    "true result": lambda planted: planted.row(ROW),
}
# In two parts, for two processes. Rooms of a part run the same programs, which JAX compiles once.
PARTS = [
    {use.__name__: use for use in (use_capture, use_gradients, use_explain, use_examples)},
    {use.__name__: use for use in (
        use_zoo, use_models, use_network, use_solve, use_attribute, use_shapley, use_evaluate, use_training, use_views, use_cli,
    )},
]  # fmt: skip


def reason(error):
    """Say in one line which annotation is false, or what else went wrong and where."""
    chain = [error]
    while (before := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(before)
    for one in chain:
        if isinstance(one, jaxtyping.TypeCheckError):
            said = str(one).partition("-----")[0].replace("Type-check error whilst checking ", "")
            return " ".join(line[:300] for line in said.splitlines())
    where = [at for at in traceback.extract_tb(error.__traceback__) if "site-packages" not in at.filename][-1]
    return f"{type(error).__name__}: {error} ({Path(where.filename).name}, line {where.lineno})"


def report(package, rooms):
    """Use rooms, each after the other whatever happens.

    Returns:
        What is wrong, by room, and the names of the functions that were called.
    """
    install(package)
    module = importlib.import_module(package)
    wrong = {}
    for name, use in rooms.items():
        try:
            use(module)
        except Exception as error:
            wrong[name] = reason(error)
    return {"wrong": wrong, "called": sorted(called)}


def main():
    """Use all rooms, and print what is wrong in each."""
    wrong = report("jaxflow", PARTS[0] | PARTS[1])["wrong"]
    for room, what in wrong.items():
        print(f"{room}: {what}")
    raise SystemExit(bool(wrong))
