import subprocess
import sys
from importlib import import_module, resources

import pytest

from jaxflow import zoo
from jaxflow.zoo._weights import file_of
from zoo.command import directory_of


def test_the_zoo_names_its_models():
    assert {"agreement", "agreement-lm"} <= set(zoo.names())
    assert zoo.package_of("agreement-lm") == "jaxflow.zoo.agreement_lm"
    with pytest.raises(ValueError, match="no model 'agreemnt'; it has agreement, agreement-lm"):
        zoo.load("agreemnt")


@pytest.mark.parametrize("name", zoo.names())
def test_a_model_loads_by_its_name_and_ships_its_files(name):
    module, tokenizer = zoo.load(name)
    assert module.scope is not None  # bound
    assert tokenizer.get_vocab()["[PAD]"] == tokenizer.pad_token_id == 0
    with resources.as_file(resources.files(zoo.package_of(name))) as package:
        assert (package / file_of(name)).stat().st_size <= 1_500_000
        card = (package / "README.md").read_text("utf-8")
    assert card.startswith(f"# {name}\n")
    assert f"    python -m zoo.{directory_of(name)}.train --output=" in card


@pytest.mark.parametrize("name", zoo.names())
def test_the_command_that_makes_a_model_anew_has_the_settings_of_its_card(name):
    recipe = import_module(f"zoo.{directory_of(name)}.train").recipe()
    assert recipe.name == name
    card = (resources.files(zoo.package_of(name)) / "README.md").read_text("utf-8")
    settings = recipe.settings
    for option, value in {
        "seed": settings.seed,
        "steps": settings.steps,
        "batch-size": settings.batch_size,
        recipe.examples: settings.n_examples,
        "learning-rate": settings.learning_rate,
        "weight-decay": settings.weight_decay,
    }.items():
        assert f" --{option}={value}" in card


def test_importing_the_zoo_loads_no_model():
    code = "import sys, jaxflow.zoo; print([m for m in sys.modules if m.startswith('jaxflow.zoo.')])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
