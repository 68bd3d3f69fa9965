"""Nothing that a checkpoint, a tokenizer, a file or an argument holds steers a terminal, ends a line, or stands raw in a page."""

import dataclasses
import io
import json
import re
import warnings

import checkpoints
import numpy as np
import pytest
from example_explanations import attention, explained
from rich.console import Console

from jaxflow import Attention, joint_capacities, load
from jaxflow.cli import main
from jaxflow.explain import Prediction, known_picture
from jaxflow.network import flow_network
from jaxflow.solve import cut_sentence, min_cut
from jaxflow.views.html import methods_page, to_page
from jaxflow.views.plot import plot_flow, plot_layers, plot_matrix

STEERS = (
    "\x1b[2J",  # clears the screen
    "\x1b]0;title\x07",  # sets the window's title
    "\r",  # goes back to the beginning of the line
    "\x9b31m",  # an escape sequence in one letter of C1
    "\x90q\x9c",
    "\u202e",  # turns the direction
    "\u2066",
    "\u200f",
    "\u2028",
    "\x00\x08\x7f",
    "\U000e0041",
    "\ufeff",
)
HOSTILE = "a" + "".join(STEERS) + "b"


def steering(text, *, colours=False):
    """List the characters of a text that are neither printable, nor ends of lines, nor joiners of letters."""
    if colours:
        text = re.sub(r"\x1b\[[\d;]*m", "", text)
    return sorted({letter for letter in text if not letter.isprintable() and letter not in "\n\u200c\u200d"})


@pytest.fixture(scope="module")
def hostile():
    """An explanation of which every text is hostile."""
    names = [f"{HOSTILE}{i}" for i in range(4)]
    one = explained(names, positions=[0, 1], predictions=[Prediction(HOSTILE, 0.5, i) for i in range(4)], model=HOSTILE)
    contributions = dataclasses.replace(one, method="contributions", conventions={"target": HOSTILE})
    words = (tuple((i, i + 1, HOSTILE) for i in range(4)), np.ones((2, 4)))
    return dataclasses.replace(
        one,
        version=HOSTILE,
        method=HOSTILE,
        conventions={"target": HOSTILE, "weighting": "gradient", "solver": None, "joint": None},
        notes=(HOSTILE, HOSTILE),
        picture=known_picture(one.flow_graphs, one.bottleneck, words, contributions),
    )


@pytest.mark.parametrize("attributes", [{}, {"notes": ()}, {"predictions": (Prediction(HOSTILE, 0.5),)}])
def test_every_view_of_an_explanation(hostile, attributes, tmp_path):
    explanation = dataclasses.replace(hostile, **attributes)
    assert not steering(str(explanation))
    assert not steering(repr(explanation))
    assert not steering(explanation.to_json())
    assert not steering(to_page(explanation))
    assert not steering(methods_page({HOSTILE: explanation, "b": explanation}, title=HOSTILE))
    console = Console(file=io.StringIO(), force_terminal=True, width=200, color_system="truecolor")
    console.print(explanation)
    assert not steering(console.file.getvalue(), colours=True)
    for draw in (plot_matrix, plot_flow, plot_layers):
        ax = draw(explanation)
        texts = [text.get_text() for text in ax.figure.findobj(lambda artist: hasattr(artist, "get_text"))]
        assert not steering("\n".join(texts))
    explanation.save(tmp_path / "x.json")
    assert load(tmp_path / "x.json").model == HOSTILE, "a file keeps what it was given"


def test_a_generation_s_table():
    names = [f"{HOSTILE}{i}" for i in range(3)]
    predictions = [Prediction(HOSTILE, 0.5, i) for i in range(3)]
    assert not steering(str(explained(names, names, predictions=predictions, model=HOSTILE)))


def test_a_cut_s_sentence():
    rng = np.random.default_rng(0)
    network = flow_network(joint_capacities(Attention(encoder=attention(rng, 2, 3, 3))))
    cut = min_cut(network, network.encoder_inputs[1], network.outputs[1])
    assert not steering(cut_sentence(cut, encoder_tokens=[HOSTILE] * 3))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint whose labels steer."""
    directory = tmp_path_factory.mktemp("checkpoint")
    checkpoints.save_bert(directory)
    config = json.loads((directory / "config.json").read_text())
    config["id2label"] = {"0": HOSTILE, "1": f"{HOSTILE}1"}
    config["label2id"] = {HOSTILE: 0, f"{HOSTILE}1": 1}
    (directory / "config.json").write_text(json.dumps(config))
    return directory


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize(
    "arguments",
    [
        ["explain", "the keys"],
        ["explain", "the keys", "--json"],
        ["explain", "the keys", "--method", "gradient"],
        ["explain", "the keys", "--method", "gradient", "--target", "dual"],  # the error lists the labels
        ["explain", f"the {HOSTILE}"],
        ["explain", f"the {HOSTILE}", "--json"],
        ["explain", "the keys", "--max-new-tokens", "3"],
        ["explain", "the keys", "--html", f"{HOSTILE}.html"],
        ["explain", "--file", HOSTILE.replace("\x00", "")],
        ["explain", "the keys", HOSTILE],
    ],
    ids=lambda arguments: " ".join(arguments).encode("unicode_escape").decode()[:40],
)
def test_the_command_line_says_nothing_that_steers(checkpoint, arguments, capsys):
    main([*arguments, "--model", str(checkpoint)])
    out, err = capsys.readouterr()
    assert out + err
    assert not steering(out)
    assert not steering(err)


@pytest.mark.usefixtures("standard_promotion")
@pytest.mark.parametrize("options", [[], ["--json", "--scores"]])
def test_a_comparison_says_nothing_that_steers(checkpoint, capsys, tmp_path, options):
    (tmp_path / "texts").write_text(f"the old keys\nthe {HOSTILE} keys\n".replace("\r", " ").replace("\u2028", " "))
    assert (
        main(
            [
                "compare",
                str(tmp_path / "texts"),
                "--model",
                str(checkpoint),
                "--methods",
                "raw",
                "--metrics",
                "deletion",
                *options,
            ]
        )
        == 0
    )
    out, err = capsys.readouterr()
    assert not steering(out + err)


@pytest.mark.usefixtures("standard_promotion")
def test_an_architecture_that_steers_is_named_without_it(checkpoint, tmp_path, capsys):
    for path in checkpoint.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": [HOSTILE]}))
    assert main(["explain", "the keys", "--model", str(tmp_path)]) == 1
    assert not steering(capsys.readouterr().err)


def test_a_warning_is_said_as_an_error_is(capsys, monkeypatch):
    def warn(*arguments):
        warnings.warn(f"beware of {HOSTILE}", UserWarning, stacklevel=1)

    monkeypatch.setattr("jaxflow.cli._main.run_explain", warn)
    before = warnings.showwarning
    assert main(["explain", "the keys"]) == 0
    err = capsys.readouterr().err
    assert err.startswith("jaxflow: beware of a\\x1b[2J")
    assert not steering(err)
    assert warnings.showwarning is before


def test_what_comes_from_the_right_is_apart_on_a_page():
    """Each name is in an element of its own, whose direction leaves the words around it alone."""
    names = ("שלום", "מַפְתֵּחַ", "key")
    page = to_page(
        explained(names, positions=[0, 1], model="דגם", predictions=[Prediction("תווית", 0.5, i) for i in range(3)])
    )
    visible = re.sub(
        r"<(style|svg)\b.*?</\1>", "", page[page.index("<main>") :].partition("<script")[0], flags=re.DOTALL
    )
    outside = re.sub(r"<bdi\b[^>]*>.*?</bdi>", "", visible, flags=re.DOTALL)
    assert "שלום" in visible
    assert not re.findall(r"[\u0590-\u05ff]+", re.sub(r"<[^>]*>", "", outside))
