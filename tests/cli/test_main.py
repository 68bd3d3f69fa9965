import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import checkpoints
import numpy as np
import pytest

from jaxflow import Explanation, explain, load, load_model
from jaxflow.cli._main import main

TEXT = "the keys to the old cabinet"

pytestmark = pytest.mark.usefixtures("standard_promotion")  # models of transformers run here


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(scope="module")
def explanation():
    model, tokenizer = load_model("agreement")
    return explain(model, TEXT, tokenizer=tokenizer, positions=0)


def test_it_prints_prediction_scores_saturation_and_bottleneck(capsys, explanation):
    assert main(["explain", TEXT]) == 0
    out, err = capsys.readouterr()
    assert "Predicted: plural, " in out
    for token, score in zip(explanation.tokens, explanation.attribution.encoder[0], strict=True):
        assert f"{token:<7}  {score:.3f} " in out
    assert f"Saturated: {explanation.attribution.saturation:.0%}" in out
    assert f"layer {explanation.bottleneck.argmax() + 1} holds {explanation.bottleneck.max():.0%}" in out
    assert err == ""


@pytest.mark.parametrize(
    ("environment", "is_coloured"),
    [
        ({}, True),
        ({"NO_COLOR": "1"}, False),
        ({"TERM": "dumb"}, False),
    ],
)
def test_a_terminal_gets_colours_unless_its_user_wants_none(capsys, monkeypatch, environment, is_coloured):
    main(["explain", TEXT])
    piped = capsys.readouterr().out
    assert "\x1b" not in piped
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert main(["explain", TEXT]) == 0
    shown = sys.stdout.getvalue()
    assert ("\x1b[" in shown) == is_coloured
    assert is_coloured or shown == piped


@pytest.mark.parametrize("how", ["file", "standard input", "dash"])
def test_text_from_elsewhere(capsys, monkeypatch, tmp_path, how):
    main(["explain", TEXT])
    expected = capsys.readouterr().out
    (tmp_path / "text.txt").write_text(f"{TEXT}\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{TEXT}\n"))
    arguments = {"file": ["--file", str(tmp_path / "text.txt")], "standard input": [], "dash": ["-"]}[how]
    assert main(["explain", *arguments]) == 0
    assert capsys.readouterr().out == expected


@pytest.mark.parametrize(
    ("content", "options", "expected"),
    [
        ("the keys\n", [], "the keys"),
        ("the keys\r\n", [], "the keys"),
        ("  the keys\n\n", [], "  the keys\n"),
        ("the keys \n", ["--exact"], "the keys \n"),
        ("\nthe keys", ["--exact"], "\nthe keys"),
    ],
)
def test_a_text_is_read_as_it_is_but_for_one_line_break_at_its_end(monkeypatch, tmp_path, content, options, expected):
    read = []
    monkeypatch.setattr("jaxflow.cli._main.run_explain", lambda arguments, text: read.append(text))
    (tmp_path / "text.txt").write_bytes(content.encode())
    assert main(["explain", *options, "--file", str(tmp_path / "text.txt")]) == 0
    monkeypatch.setattr(sys, "stdin", io.StringIO(content))
    assert main(["explain", *options]) == 0
    assert read == [expected, expected]


def test_json_is_what_save_writes(capsys, tmp_path, explanation):
    assert main(["explain", "--json", TEXT]) == 0
    (tmp_path / "x.json").write_text(capsys.readouterr().out)
    loaded = load(tmp_path / "x.json")
    np.testing.assert_array_equal(loaded.attribution.encoder, explanation.attribution.encoder)


def test_every_option_has_its_effect(capsys, tmp_path):
    def scores(*options):
        assert main(["explain", "--json", *options, TEXT]) == 0
        content = json.loads(capsys.readouterr().out)["content"]["attribution"]["encoder"]
        return np.array(content["data"]).reshape(content["shape"])

    default = scores()
    assert default.shape == (1, 7)
    assert scores("--output", "all").shape == (7, 7)
    np.testing.assert_array_equal(scores("--output", "2")[0], scores("--output", "all")[2])
    np.testing.assert_allclose(scores("--normalise").sum(), 1)
    variants = [
        ["--heads", "max"], ["--heads", "0"], ["--residual", "0.1"], ["--method", "rollout"], ["--method", "raw"],
        ["--weighting", "gradient", "--target", "plural"], ["--weighting", "attention_gradient", "--target", "plural"],
        ["--weighting", "attention_gradient", "--target", "0"],
    ]  # fmt: skip
    results = [default, *(scores(*variant) for variant in variants)]
    assert all(np.abs(a - b).max() > 1e-3 for i, a in enumerate(results) for b in results[:i])


def test_a_page_holds_all_outputs(capsys, tmp_path):
    page = tmp_path / "x.html"
    assert main(["explain", "--html", str(page), TEXT]) == 0
    assert page.read_text().count('<tr><th scope="row"><bdi>') == 7
    assert "<svg" in page.read_text()
    assert "output 0 ([CLS])" in capsys.readouterr().out
    assert main(["explain", "--html", str(page), "--output", "0", TEXT]) == 0
    assert '<tr><th scope="row"><bdi>' not in page.read_text(), "one output needs no matrix"


def test_a_checkpoint_directory(capsys, tmp_path):
    checkpoints.save_bert(tmp_path)
    assert main(["explain", "--model", str(tmp_path), "the old keys"]) == 0
    assert "FlaxBertForSequenceClassification" in capsys.readouterr().out


@pytest.mark.weights
def test_real_weights_by_their_directory(capsys, minilm_directory):
    assert main(["explain", "--model", str(minilm_directory), "--json", f"{TEXT} are on the table"]) == 0
    out, err = capsys.readouterr()
    content = json.loads(out)["content"]
    assert content["encoder_tokens"][:4] == ["[CLS]", "the", "keys", "to"]
    assert content["attribution"]["encoder"]["shape"] == [1, 12]
    assert err == ""


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["explain", "--model", "nowhere", TEXT], "no model 'nowhere'"),
        (["explain", ""], "text is empty"),
        (["explain", "the xylophones"], "xylophones"),
        (["explain", "--output", "7", TEXT], "Output 7 does not exist: outputs are positions 0 to 6"),
        (["explain", "--heads", "9", TEXT], "has 4 heads"),
        (
            ["explain", "--method", "raw", "--residual", "0.5", TEXT],
            "--residual: not of the method 'raw', whose options are layer, heads, normalise",
        ),
        (["explain", "--weighting", "gradient", "--target", "dual", TEXT], "expected one of 'singular', 'plural'"),
        (
            ["explain", "--method", "flow", "--target", "plural", TEXT],
            "target is given, but the method 'flow' is the same for every target",
        ),
        (["explain", "--file", "nowhere.txt"], "No such file"),
        (["explain", "--html", "/nowhere/x.html", TEXT], "--html /nowhere/x.html: there is no directory /nowhere"),
        (["explain", "--html", "x.pdf", TEXT], "--html x.pdf: expected a name that ends in .html, such as x.html"),
        (["explain", "--html", "page", TEXT], "expected a name that ends in .html, such as page.html"),
        (["explain", "the keys \udce9"], "The text is no UTF-8"),
    ],
)
def test_what_could_not_be_done_exits_with_1(capsys, arguments, reason):
    assert main(arguments) == 1
    out, err = capsys.readouterr()
    assert reason in err
    assert "Traceback" not in err
    assert out == ""


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "required: command"),
        (["explain", "--heads", "most", TEXT], "'most'; expected mean, max or the index of a head"),
        (["explain", "--residual", "2", TEXT], "'2'; expected a number from 0 to 1"),
        (["explain", "--residual", "half", TEXT], "'half'; expected a number from 0 to 1"),
        (["explain", "--method", "shap", TEXT], "invalid choice: 'shap'"),
        (["explain", "--file", "x", TEXT], "both given"),
    ],
)
def test_wrong_usage_exits_with_2(capsys, arguments, reason):
    assert main(arguments) == 2
    assert reason in capsys.readouterr().err


def test_without_a_text_on_a_terminal_it_says_so_instead_of_waiting(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Terminal())
    assert main(["explain"]) == 2
    assert "no text: give one in quotes" in capsys.readouterr().err


def test_help_and_version(capsys):
    assert main(["--help"]) == 0
    assert main(["explain", "--help"]) == 0
    assert "exit status: 0 done, 1 could not" in capsys.readouterr().out
    assert main(["--version"]) == 0


def run(*arguments, **options):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(
        [sys.executable, "-m", "jaxflow", *arguments], env=environment, text=True, check=False, **options
    )


def test_a_reader_who_has_seen_enough_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    process = run("explain", TEXT, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert process.returncode == 1
    assert "Traceback" not in process.stderr
    assert "Error" not in process.stderr


def in_a_new_process(code, **environment):
    known = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment}
    return subprocess.run([sys.executable, "-c", code], env=known, check=True, capture_output=True, text=True)


def test_explaining_imports_nothing_that_only_some_need():
    late = {"transformers", "matplotlib", "treescope", "torch", "scipy.stats", "scipy.linalg", "numba", "jinja2"}
    in_a_new_process(f"import sys, jaxflow; jaxflow.explain; assert not {late} & set(sys.modules)")


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["explain", "--help"], ["compare", "--help"]])
def test_help_needs_no_jax(arguments):
    code = (
        f"import sys; from jaxflow.cli import main; main({arguments}); assert not {{'jax', 'numpy'}} & set(sys.modules)"
    )
    assert "jaxflow" in in_a_new_process(code).stdout


def test_compiled_programs_are_kept_for_the_next_process(tmp_path):
    code = "from jaxflow.cli import main; main(['explain', 'the keys'])"
    outputs = [in_a_new_process(code, XDG_CACHE_HOME=str(tmp_path)).stdout for _ in range(2)]
    assert outputs[0] == outputs[1]
    kept = [path for path in (tmp_path / "jaxflow").rglob("*") if path.is_file()]
    assert kept, "the first process keeps its programs"


def test_a_home_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "jaxflow").write_text("a file where the directory would be")
    process = in_a_new_process(
        "from jaxflow.cli import main; main(['explain', 'the keys'])", XDG_CACHE_HOME=str(tmp_path)
    )
    assert "plural" in process.stdout
    assert not process.stderr


def test_words_and_all_outputs_together(capsys):
    assert main(["explain", "the keys' cabinet", "--spans", "words", "--joint"]) == 0
    shown = capsys.readouterr().out
    assert "outputs 0 to 4 together ([CLS] the keys' cabinet)" in shown
    assert "\n  keys' " in shown


def in_shell(*arguments, **environment):
    known = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment}
    return subprocess.run([sys.executable, "-m", "jaxflow", *arguments], env=known, check=False, capture_output=True)


@pytest.mark.parametrize("command", ["explain --file", "compare"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("the kéys".encode("latin-1"), "is no UTF-8: byte 5 is 0xe9. Save it as UTF-8"),
        ("the keys".encode("utf-16"), "is no UTF-8: byte 0 is 0xff. It begins as UTF-16 does."),
        ("the keys".encode("utf-32"), "It begins as UTF-32 does."),
    ],
    ids=["latin-1", "utf-16", "utf-32"],
)
def test_a_file_of_another_encoding_is_named(capsys, tmp_path, command, content, message):
    (tmp_path / "text.txt").write_bytes(content)
    assert main([*command.split(), str(tmp_path / "text.txt")]) == 1
    err = capsys.readouterr().err
    assert str(tmp_path / "text.txt") in err
    assert message in err


def test_a_byte_order_mark_is_no_word(capsys, tmp_path, monkeypatch):
    main(["explain", TEXT])
    expected = capsys.readouterr().out
    (tmp_path / "text.txt").write_text(TEXT, "utf-8-sig")
    assert main(["explain", "--file", str(tmp_path / "text.txt")]) == 0
    assert capsys.readouterr().out == expected
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode("utf-8-sig")), "ascii"))
    assert main(["explain", "-"]) == 0
    assert capsys.readouterr().out == expected
    assert main(["explain", f"\ufeff{TEXT}"]) == 0
    assert capsys.readouterr().out == expected


def test_a_page_is_announced_and_what_was_found_is_shown_first(capsys, tmp_path, monkeypatch):
    page = tmp_path / "page.html"
    assert main(["explain", "--html", str(page), TEXT]) == 0
    out, err = capsys.readouterr()
    assert err == f"jaxflow: wrote {page}\n"
    assert page.exists()

    def fail(self, path):
        raise OSError("No space left on device")

    monkeypatch.setattr(Explanation, "save", fail)
    assert main(["explain", "--html", str(page), TEXT]) == 1
    failed, err = capsys.readouterr()
    assert failed == out
    assert "No space left on device" in err


@pytest.mark.parametrize(
    ("shell", "status", "says"),
    [
        ("{jaxflow} explain 'the keys' >&-", 1, "standard output is closed"),
        ("{jaxflow} explain <&-", 2, "no text: give one in quotes"),
        ("{jaxflow} explain 'the keys' 2>&- >&-", 1, ""),
        (
            "JAX_PLATFORMS=cuda {jaxflow} explain 'the keys'",
            1,
            "jaxflow: JAX finds no device for JAX_PLATFORMS='cuda': ",
        ),
        ("{jaxflow} explain $(printf 'the k\\351ys')", 1, "The text is no UTF-8"),
    ],
    ids=["no output", "no input", "no output at all", "no such device", "an argument of another encoding"],
)
def test_streams_and_devices_that_are_not_there(shell, status, says):
    command = shell.format(jaxflow=f"{sys.executable} -m jaxflow")
    if "printf" in command:
        command = command.replace("$(printf", '"$(printf').replace("ys')", "ys')\"")
    known = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONUTF8": "1"}
    process = subprocess.run(["sh", "-c", command], env=known, check=False, capture_output=True, text=True)
    assert process.returncode == status, process.stderr
    assert says in process.stderr
    assert "Traceback" not in process.stderr


INTERRUPT = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
sys.argv = ["jaxflow", *{arguments!r}]
import runpy
runpy.run_module("jaxflow", run_name="__main__")
"""


@pytest.mark.parametrize(
    "module", ["jaxflow.cli._main", "jaxflow.cli._compare", "jax", "numpy", "rich.console", "scipy"]
)
def test_ctrl_c_during_imports_is_no_traceback(module):
    code = INTERRUPT.format(module=module, arguments=["explain", "the keys"])
    known = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.run([sys.executable, "-c", code], env=known, check=False, capture_output=True, text=True)
    assert process.returncode == 130, process.stderr
    assert process.stdout == ""
    assert process.stderr in ("", "jaxflow: interrupted\n")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
@pytest.mark.parametrize("library", ["numpy", "jaxlib"])
def test_ctrl_c_of_a_terminal_while_libraries_are_loaded(library):
    known = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", "jaxflow", "explain", TEXT]
    process = subprocess.Popen(command, env=known, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    maps = Path(f"/proc/{process.pid}/maps")
    while process.poll() is None and library not in maps.read_text():
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "jaxflow: interrupted\n")


SAVING = """
import os, signal, sys
from jaxflow import Explanation
from jaxflow.cli import main

def interrupted(self, path):
    try:
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        print("cleaned up")

Explanation.save = interrupted
sys.argv = ["jaxflow", "explain", "the keys", "--html", "x.html"]
sys.exit(main())
"""


def test_ctrl_c_in_the_middle_of_saving_cleans_up(tmp_path):
    known = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.run(
        [sys.executable, "-c", SAVING], env=known, check=False, capture_output=True, text=True, cwd=tmp_path
    )
    assert process.returncode == 130
    assert process.stdout.endswith("cleaned up\n")
    assert process.stderr == "jaxflow: interrupted\n"


def test_ctrl_c_does_not_end_a_process_that_is_not_the_command_s_own(capsys, monkeypatch, tmp_path):
    def interrupted(self, path):
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Explanation, "save", interrupted)
    before = signal.getsignal(signal.SIGINT)
    assert main(["explain", TEXT, "--html", str(tmp_path / "x.html")]) == 130
    assert capsys.readouterr().err == "jaxflow: interrupted\n"
    assert signal.getsignal(signal.SIGINT) is before
