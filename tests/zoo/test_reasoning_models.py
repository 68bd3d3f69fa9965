"""The trained reasoning models, as they ship."""

import re
from importlib import import_module, resources

import pytest
import safetensors

from jaxflow import Generate, explain, load_model
from jaxflow.cli._main import main
from jaxflow.zoo._weights import file_of
from zoo.command import _command
from zoo.logic import evaluate
from zoo.logic.data import generate

LEAST = {"ltl": 0.85, "propositional": 0.9}


@pytest.fixture(scope="module", params=LEAST)
def shipped(request):
    model, tokenizer = load_model(request.param)
    return request.param, model, tokenizer


def card(name):
    return (resources.files(f"jaxflow.zoo.{name}") / "README.md").read_text("utf-8")


def test_shipped_model_is_right_on_held_out_formulas(shipped):
    name, model, tokenizer = shipped
    module, variables = model.unbind()
    examples = generate(tokenizer.language, 250, sizes=tokenizer.language.sizes, held_out=True, seed=77)
    formulas = [example.formula for example in examples]
    written = evaluate.answers(module, formulas, tokenizer, params=variables["params"])
    share = evaluate.right(tokenizer.language, examples, written).mean()
    assert share >= LEAST[name]
    (told,) = re.findall(r"\| all \| [\d,]+ \| ([\d.]+) %.*\n", card(name))[:1]
    assert abs(share - float(told) / 100) < 0.06
    assert float(told) / 100 >= LEAST[name]


def test_weights_are_small_and_the_card_says_what_made_them(shipped):
    name, _, _ = shipped
    recipe = import_module(f"zoo.{name}.train").recipe()
    with resources.as_file(resources.files(f"jaxflow.zoo.{name}") / file_of(name)) as path:
        assert path.stat().st_size <= 1.5e6
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata()
        assert f"{path.stat().st_size:,} bytes in float16" in card(name)
    assert metadata["seed"] == str(recipe.settings.seed)
    assert metadata["steps"] == str(recipe.settings.steps)
    # The command of the card, run today, trains with the same settings.
    options = _command(recipe, recipe.settings, "x").split()[4:]
    assert all(option in card(name) for option in options)


@pytest.mark.parametrize(("name", "formula"), [("ltl", "F a"), ("propositional", "& a ! b")])
def test_command_line_explains_and_judges(name, formula, capsys):
    assert main(["explain", "--model", name, formula]) == 0
    out = capsys.readouterr().out
    assert re.search(r"Checked: the (trace|assignment) satisfies the formula\.", out)
    assert f"It read   {formula}\n" in out
    assert "given by, of what it read" in out
    assert main(["explain", "--model", name, "--method", "flow", formula]) == 0
    assert "decided by, of what it read" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ltl", "U a"], "ends too early, after character 3: U (until), at character 1, takes 2 formulas and has 1."),
        (["ltl", "U a d"], "has 'd' at character 5, which this model does not know."),
        (["propositional", "X a"], "has 'X' at character 1, which this model does not know."),
        (["ltl", "& " * 16 + "a " * 17], "The text is 33 tokens long; the model reads 32 at most."),
        (["ltl", "--continuation", "a ; b", "F a"], "it does not end with }"),
    ],
)
def test_command_line_refuses_bad_input(arguments, message, capsys):
    assert main(["explain", "--model", *arguments]) == 1
    assert message in capsys.readouterr().err


def test_unsatisfiable_formulas_are_told(shipped):
    _, model, tokenizer = shipped
    explanation = explain(model, "& a ! a", "raw", generate=Generate(), tokenizer=tokenizer)
    assert explanation.notes[0].startswith("Checked: nothing satisfies this formula")
