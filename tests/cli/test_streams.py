"""`jaxflow explain` and `compare` under locales and streams as they come: every line is printed, and every JSON reads back."""

import io
import json
import os
import pty
import re
import subprocess
import sys
import threading

import checkpoints
import pytest

from jaxflow.cli._streams import SIGNS, print_json, show_all_signs

# Both commands, as text and as JSON, in one process: how streams are set up belongs to the process.
RUN = """
import sys
from jaxflow.cli import main
directory, texts = sys.argv[1:]
for arguments in (["explain", "--file", texts], ["explain", "--file", texts, "--json"],
                  ["compare", texts, "--methods", "raw", "--metrics", "deletion"],
                  ["compare", texts, "--methods", "raw", "--metrics", "deletion", "--json", "--scores"]):
    print("==", main([*arguments, "--model", directory]), flush=True)
"""
TEXT = "the 好 keys → Ġorġ"
PLAIN = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}  # ASCII, as in many containers and cron jobs
SETTINGS = {
    "UTF-8": ("utf-8", {"LC_ALL": "C.UTF-8"}),
    "no locale": ("ascii", PLAIN),
    "no locale, strict": ("ascii", {**PLAIN, "PYTHONIOENCODING": "ascii:strict"}),
    "Western Windows": ("cp1252", {"PYTHONIOENCODING": "cp1252"}),
    "Windows console": ("cp437", {"PYTHONIOENCODING": "cp437:strict"}),
    "Japanese Windows": ("cp932", {"PYTHONIOENCODING": "cp932"}),
    "UTF-16": ("utf-16", {"PYTHONIOENCODING": "utf-16"}),
    "a terminal": ("utf-8", {"LC_ALL": "C.UTF-8", "TERM": "xterm-256color", "COLUMNS": "100"}),
}


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """A checkpoint whose words and labels are not ASCII, and a text for it."""
    directory = tmp_path_factory.mktemp("checkpoint")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "keys", "好", "→", "Ġ", "Ġorġ", "##orġ", "x", "y"]
    assert len(words) == len(checkpoints.WORDS)
    checkpoints.save_bert(directory, id2label={0: "單數", 1: "ġ→"}, label2id={"單數": 0, "ġ→": 1}, tokenizer=False)
    (directory / "vocab.txt").write_text("\n".join(words), "utf-8")
    import transformers

    tokenizer = transformers.BertTokenizerFast(
        vocab_file=str(directory / "vocab.txt"), do_lower_case=False, model_max_length=24
    )
    tokenizer.save_pretrained(directory)
    (directory / "texts").write_text(TEXT, "utf-8")
    return str(directory), str(directory / "texts")


def environment(settings):
    known = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHON"))}
    return {**known, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **settings}


def run(arguments, settings, *, in_terminal=False):
    """Return what a process prints, and what it says on standard error."""
    command = [sys.executable, "-c", RUN, *arguments]
    if not in_terminal:
        process = subprocess.run(command, env=environment(settings), check=False, capture_output=True, timeout=120)
        assert process.returncode == 0, process.stderr
        return process.stdout, process.stderr
    main_end, other_end = pty.openpty()
    printed = bytearray()

    def read():
        while True:
            try:
                part = os.read(main_end, 4096)
            except OSError:  # the process has ended
                return
            printed.extend(part)

    reader = threading.Thread(target=read)
    reader.start()
    process = subprocess.run(
        command,
        env=environment(settings),
        check=False,
        stdin=other_end,
        stdout=other_end,
        stderr=subprocess.PIPE,
        timeout=120,
    )
    os.close(other_end)
    reader.join(10)
    os.close(main_end)
    return bytes(printed).replace(b"\r\n", b"\n"), process.stderr


def parts(text):
    """Divide what was printed into the output of each command; each must have been done."""
    found = re.split(r"^== (\d+)$", text, flags=re.MULTILINE)
    assert found[1::2] == ["0"] * 4
    return [part.strip("\n") for part in found[0:-1:2]]


@pytest.fixture(scope="module")
def expected(arguments):
    return parts(run(arguments, SETTINGS["UTF-8"][1])[0].decode())


@pytest.mark.parametrize("name", SETTINGS)
def test_every_line_is_printed_and_every_json_reads_back(name, arguments, expected):
    encoding, settings = SETTINGS[name]
    printed, said = run(arguments, settings, in_terminal=name == "a terminal")
    explained, explanation, compared, comparison = parts(printed.decode(encoding).removeprefix("\ufeff"))
    assert said == b""
    assert json.loads(explanation) == json.loads(expected[1])
    assert json.loads(comparison) == json.loads(expected[3])
    assert json.loads(explanation)["content"]["encoder_tokens"] == ["[CLS]", "the", "好", "keys", "→", "Ġorġ", "[SEP]"]
    if name == "a terminal":
        assert "\x1b[" in explained
        explained = re.sub(r"\x1b\[[\d;]*m", "", explained)
        for token in ("好", "→", "Ġorġ"):
            assert token in explained
        return
    for text, whole in ((explained, expected[0]), (compared, expected[2])):
        assert text.split("\n") == [as_written(line, encoding) for line in whole.split("\n")]


def as_written(line, encoding):
    """Write a line in an encoding: each sign that it lacks as a sign that looks alike, or as an escape."""
    shown = ""
    for sign in line:
        try:
            sign.encode(encoding)
        except UnicodeEncodeError:
            sign = SIGNS.get(sign, json.dumps(sign)[1:-1])
        shown += sign
    return shown


def test_no_sign_of_json_is_replaced_by_another(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "ascii"))
    show_all_signs()
    print_json(json.dumps(["你好", "🙂", "→", "█"], ensure_ascii=False))
    print("🙂 → █")
    sys.stdout.flush()
    first, second = sys.stdout.buffer.getvalue().decode("ascii").splitlines()
    assert json.loads(first) == ["你好", "🙂", "→", "█"]
    assert second == r"\ud83d\ude42 -> #"
