import re

import jax
import numpy as np
import pytest

from jaxflow.zoo._weights import file_of, read_weights
from jaxflow.zoo.agreement import NAME, VOCABULARY, AgreementEncoder
from zoo import command, reproduce, training
from zoo.agreement import train
from zoo.card import Run
from zoo.training import Settings

# Optax leans on standard promotion, and so do the tests that train.

TINY = AgreementEncoder(n_layers=1, n_heads=2, width=16, hidden=16)
SHORT = Settings(steps=300, batch_size=32, n_examples=500, learning_rate=1e-2)


def test_training_learns_and_repeats(monkeypatch, standard_promotion):
    monkeypatch.setattr(training, "_BATCHES_SORTED", 1)  # Fewer widths to compile.
    params, losses = train.train(TINY, SHORT, show_progress=False)
    assert losses.shape == (300,)
    assert losses[-20:].mean() < 0.7 * losses[:20].mean()
    again, same = train.train(TINY, SHORT, show_progress=False)
    np.testing.assert_array_equal(losses, same)
    jax.tree.map(np.testing.assert_array_equal, params, again)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(train, "_REPORT", 40)
    monkeypatch.setattr(train, "_PROGRESS", 8)
    monkeypatch.setattr(training, "_BATCHES_SORTED", 1)
    return train.recipe(TINY)


OPTIONS = {"seed": 1, "steps": 3, "batch_size": 16, "sentences": 700, "learning_rate": 0.01, "weight_decay": 0.5}


def test_command_writes_weights_and_card(quick, tmp_path, capsys, monkeypatch, standard_promotion):
    real, asked = train.train, []
    monkeypatch.setattr(train, "train", lambda module, settings: asked.append(settings) or real(module, settings))
    options = [f"--{name.replace('_', '-')}={value}" for name, value in OPTIONS.items()]
    command.main(quick, [*options, f"--output={tmp_path}"])
    assert asked == [Settings(**{name.replace("sentences", "n_examples"): value for name, value in OPTIONS.items()})]
    captured = capsys.readouterr()
    assert re.search(r"^all +40 sentences", captured.out, re.MULTILINE)
    assert captured.err.startswith("generating 700 sentences")
    assert "held_out=" in captured.err
    assert "loss=" in captured.err
    path = tmp_path / file_of(NAME)
    assert "head" in read_weights(TINY, path, name=NAME, vocabulary=VOCABULARY, inputs=[np.ones((1, 25), np.int32)])
    card = (tmp_path / "README.md").read_text("utf-8").splitlines()
    (line,) = (line for line in card if line.startswith("    python -m zoo.agreement.train"))
    assert set(options) < set(line.split())
    assert any(line.startswith("| all | 40 |") for line in card)


def test_reproduction_trains_what_is_named(quick, tmp_path, monkeypatch, capsys, standard_promotion):
    monkeypatch.setattr(train, "recipe", lambda: quick)
    reproduce.main(["agreement", "--output", str(tmp_path), "--steps=2", "--examples=500", "--batch-size=8"])
    card = (tmp_path / "agreement" / "README.md").read_text("utf-8")
    assert f"--output={tmp_path / 'agreement'} --seed=0 --steps=2 --batch-size=8 --sentences=500 --learning" in card
    assert "agreement:" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        reproduce.main(["agreemnt"])
    assert "no model 'agreemnt'; it has agreement" in capsys.readouterr().err


def test_card_says_what_was_measured(quick):
    params = TINY.init(jax.random.key(0), np.ones((1, 25), np.int32))["params"]
    run = Run(
        command="the command",
        settings=Settings(seed=9, steps=1),
        examples="sentences",
        seconds=61.4,
        machine="a machine",
        versions={"jax": "1"},
        n_parameters=7,
        n_bytes=1234,
    )
    card, table = quick.report(params, run)
    name, count, share = table[0]
    assert f"| {name} | {count:,} | {100 * share:.2f} % |" in card
    for piece in ("    the command", "| time | 61 s |", "1,234 bytes", "| seed | 9 |", "| layer 1 |"):
        assert piece in card


def test_command_line_helps_and_refuses(capsys, quick):
    with pytest.raises(SystemExit) as stop:
        command.main(quick, ["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(option in text for option in ("--output", "--seed", "--steps", "--sentences", "default: 0.002"))
    with pytest.raises(SystemExit) as stop:
        command.main(quick, ["--steps", "0"])
    assert stop.value.code == 2
    assert "0 is not at least 1" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command.main(quick, ["--seed", "-1"])
    assert "-1 is negative" in capsys.readouterr().err
