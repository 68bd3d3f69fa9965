import re

import jax
import numpy as np
import pytest

from jaxflow.zoo.agreement import FILE, AgreementEncoder, train, weights
from jaxflow.zoo.agreement.card import model_card

# Optax leans on standard promotion, and so do the tests that train.

TINY = AgreementEncoder(n_layers=1, n_heads=2, width=16, hidden=16)
SHORT = train.Settings(steps=300, batch_size=32, n_sentences=500, learning_rate=1e-2)


def test_training_learns_and_repeats(monkeypatch, standard_promotion):
    monkeypatch.setattr(train, "_BATCHES_SORTED", 1)  # Fewer widths to compile.
    params, losses = train.train(TINY, SHORT, show_progress=False)
    assert losses.shape == (300,)
    assert losses[-20:].mean() < 0.7 * losses[:20].mean()
    again, same = train.train(TINY, SHORT, show_progress=False)
    np.testing.assert_array_equal(losses, same)
    jax.tree.map(np.testing.assert_array_equal, params, again)


def test_batches_hold_every_sentence_once_and_whole():
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 26, 320)
    input_ids = (np.arange(25) < lengths[:, None]).astype(np.int32)
    settings = train.Settings(batch_size=20)
    batches = train._batches(input_ids, settings)
    drawn = [next(batches) for _ in range(16)]
    assert sorted(np.concatenate([rows for rows, _ in drawn]).tolist()) == list(range(320))
    assert all(lengths[rows].max() <= n_tokens <= 25 for rows, n_tokens in drawn)
    assert np.mean([n_tokens for _, n_tokens in drawn]) < 20  # Little padding.
    other = next(train._batches(input_ids, train.Settings(seed=1, batch_size=20)))
    assert not np.array_equal(other[0], drawn[0][0])


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(train, "_REPORT", 40)
    monkeypatch.setattr(train, "_PROGRESS", 8)
    monkeypatch.setattr(train, "_BATCHES_SORTED", 1)
    monkeypatch.setattr(train, "AgreementEncoder", lambda: TINY)


OPTIONS = {
    "seed": 1,
    "steps": 3,
    "batch_size": 16,
    "n_sentences": 700,
    "learning_rate": 0.01,
    "weight_decay": 0.5,
}


def test_command_writes_weights_and_card(quick, tmp_path, capsys, monkeypatch, standard_promotion):
    real, asked = train.train, []
    monkeypatch.setattr(train, "train", lambda module, settings: asked.append(settings) or real(module, settings))
    options = [f"--{name.removeprefix('n_').replace('_', '-')}={value}" for name, value in OPTIONS.items()]
    train.main([*options, f"--output={tmp_path}"])
    assert asked == [train.Settings(**OPTIONS)]
    captured = capsys.readouterr()
    assert re.search(r"^all +40 sentences", captured.out, re.MULTILINE)
    assert captured.err.startswith("generating 700 sentences")
    assert "held_out=" in captured.err
    assert "loss=" in captured.err
    assert "head" in weights.read(TINY, tmp_path / FILE)
    card = (tmp_path / "README.md").read_text("utf-8").splitlines()
    (command,) = (line for line in card if line.startswith("    python -m jaxflow.zoo.agreement.train"))
    assert set(options) < set(command.split())
    assert any(line.startswith("| all | 40 |") for line in card)


def test_card_says_what_was_measured(quick):
    params = TINY.init(jax.random.key(0), np.ones((1, 25), np.int32))["params"]
    settings = train.Settings(seed=9, steps=1)
    run = train.measure(TINY, settings, params=params, seconds=61.4, command="the command", n_bytes=1234)
    card = model_card(TINY, run)
    name, count, share = run.table[0]
    assert f"| {name} | {count:,} | {100 * share:.2f} % |" in card
    assert f"| layer 1 | {100 * run.ablations[0][0][2]:.2f} % |" in card
    for piece in ("    the command", "| time | 61 s |", "1,234 bytes", run.samples[0].text, "| seed | 9 |"):
        assert piece in card


def test_command_line_helps_and_refuses(capsys):
    with pytest.raises(SystemExit) as stop:
        train.main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert all(option in text for option in ("--output", "--seed", "--steps", "default: 0.002"))
    with pytest.raises(SystemExit) as stop:
        train.main(["--steps", "0"])
    assert stop.value.code == 2
    assert "0 is not at least 1" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        train.main(["--seed", "-1"])
    assert "-1 is negative" in capsys.readouterr().err
