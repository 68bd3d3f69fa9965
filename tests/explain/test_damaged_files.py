"""Saved explanations that are damaged or hostile: a ValueError that names the file, or one that every view can show."""

import copy
import dataclasses
import io
import json
import os
import random
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from example_explanations import explained, translation
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxflow import AttentionFlow, Explanation, SetShapley, explain, load, load_model
from jaxflow.views.html import to_page

JUNK = [
    None, True, False, 0, 1, -1, 7, 2**31, 2**70, 0.5, -0.5, 1e308, "", "x", "flow", [], {}, [[]], [1, 2], ["a"], {"a": 1},
    {"array": 0, "dtype": "float64", "shape": [1]}, {"array": 99, "dtype": "float64", "shape": []},
    {"array": 0, "dtype": "S2000000000", "shape": [1]}, {"array": 0, "dtype": "float64", "shape": [1 << 40]},
    {"array": 0, "dtype": "float64", "shape": [1 << 62, 1 << 62], "data": []}, {"array": 0, "dtype": "O", "shape": []},
    {"array": 0, "dtype": "float64", "shape": [2], "data": [1.0, "2"]},
    {"array": 0, "dtype": "int8", "shape": [1], "data": [999]},
    {"array": 0, "dtype": "float64", "shape": [-1], "data": [1.0]}, [0.1] * 9,
]  # fmt: skip


@pytest.fixture(scope="module")
def examples():
    model, tokenizer = load_model("agreement")
    options = {"tokenizer": tokenizer, "positions": [0, 1]}
    return [
        explain(model, "the keys'", **options),
        explain(model, "the keys", SetShapley(), **options),
        explain(model, "the keys", AttentionFlow(budget_seconds=0.0), **options),
        translation(positions=[0, 1]),
        dataclasses.replace(
            explained([str(i) for i in range(4)], positions=[0], graphs=True, n_layers=2),
            patches=(2, 2),
            image=np.zeros((4, 4), np.uint8),
            notes=("right",),
        ),
    ]


@pytest.fixture(scope="module")
def saved(examples, tmp_path_factory):
    """Each example as the tree of its JSON, and the bytes of its archive."""
    directory = tmp_path_factory.mktemp("saved")
    found = []
    for number, example in enumerate(examples):
        example.save(directory / f"{number}.json")
        example.save(directory / f"{number}.npz")
        assert str(load(directory / f"{number}.npz")) == str(load(directory / f"{number}.json")) == str(example)
        text = (directory / f"{number}.json").read_bytes()
        found.append((json.loads(text), text, (directory / f"{number}.npz").read_bytes()))
    return found


def load_or_refuse(path):
    """Load a file: a ValueError that names it, or what every view can show."""
    try:
        loaded = load(path)
    except ValueError as error:
        refused = str(error)
        loaded = None
    if loaded is None:
        assert str(path) in refused
        assert "allow_pickle" not in refused
        return None
    assert isinstance(loaded, Explanation)
    str(loaded), to_page(loaded), loaded.to_json(), loaded.bottleneck, loaded.word_scores
    certificate = loaded.attribution.certificate
    if certificate is not None:
        assert (certificate.lower <= certificate.upper + 1e-5).all()
    return loaded


def places(tree, at=()):
    """List the paths to all subtrees."""
    yield at
    if isinstance(tree, dict | list):
        for key, item in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from places(item, (*at, key))


def parent(tree, at):
    for key in at[:-1]:
        tree = tree[key]
    return tree


def mutate(tree, random):
    """Replace, remove, add, swap or change something of a tree."""
    tree = copy.deepcopy(tree)
    at = random.choice(list(places(tree))[1:])
    holder, key = parent(tree, at), at[-1]
    match random.randrange(6):
        case 0 | 1:
            holder[key] = copy.deepcopy(random.choice(JUNK))
        case 2:
            del holder[key]
        case 3:
            if isinstance(holder, dict):
                holder["added"] = copy.deepcopy(random.choice(JUNK))
            else:
                holder.append(copy.deepcopy(random.choice([*JUNK, *holder])))
        case 4:
            other = parent(tree, random.choice(list(places(tree))[1:]))
            other_key = random.choice(list(other) if isinstance(other, dict) else list(range(len(other))) or [0])
            holder[key], kept = copy.deepcopy(other[other_key]) if other else None, holder[key]
            if other:
                other[other_key] = kept
        case 5:
            number = holder[key]
            holder[key] = -number - 1 if isinstance(number, int | float) else [number, number]
    return tree


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), which=st.integers(0, 4))
def test_trees_that_were_changed(saved, tmp_path_factory, seed, which):
    try:
        text = json.dumps(mutate(saved[which][0], random.Random(seed)))
    except (ValueError, RecursionError):  # a tree that holds itself
        return
    path = tmp_path_factory.getbasetemp() / "mutant.json"
    path.write_text(text)
    load_or_refuse(path)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), which=st.integers(0, 4), is_archive=st.booleans(), is_cut=st.booleans())
def test_bytes_that_were_flipped_or_cut(saved, tmp_path_factory, seed, which, is_archive, is_cut):
    random_ = random.Random(seed)
    data = bytearray(saved[which][2 if is_archive else 1])
    for _ in range(random_.randrange(1, 4)):
        data[random_.randrange(len(data))] ^= 1 << random_.randrange(8)
    if is_cut:
        del data[random_.randrange(len(data)) :]
    path = tmp_path_factory.getbasetemp() / ("mutant.npz" if is_archive else "mutant.json")
    path.write_bytes(data)
    load_or_refuse(path)


def test_bounds_in_the_wrong_order(saved, tmp_path):
    tree = copy.deepcopy(saved[2][0])  # whose bounds are not equal
    certificate = tree["content"]["attribution"]["certificate"]
    certificate["lower"]["data"], certificate["upper"]["data"] = (
        certificate["upper"]["data"],
        certificate["lower"]["data"],
    )
    (tmp_path / "x.json").write_text(json.dumps(tree))
    with pytest.raises(
        ValueError, match=r"x\.json holds values that no explanation has \(certificate is not what was expected: lower"
    ):
        load(tmp_path / "x.json")


def archive(path, members, **options):
    """Write an archive whose members are these bytes or arrays."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            if isinstance(content, np.ndarray):
                stream = io.BytesIO()
                np.save(stream, content, allow_pickle=content.dtype.hasobject)
                content = stream.getvalue()
            file.writestr(f"{name}.npy", content, **options)


def header_of(content):
    text = json.dumps({"format": "jaxflow explanation", "format_version": 5, "content": content})
    return np.frombuffer(text.encode(), np.uint8)


def claims(shape, descr):
    """An array's own header that claims a shape and a dtype, with nothing behind it."""
    text = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"header": claims((1 << 40,), "|u1")}, "damaged"),
        ({"header": claims((1,), "|S2000000000")}, "damaged"),
        ({"header": claims((1,), "|O")}, "Python objects, which are never unpickled"),
        ({"header": np.array([{"a": 1}], dtype=object)}, "Python objects, which are never unpickled"),
        ({"header": b"no array at all"}, "damaged"),
        ({"header": claims("x" * 20_000, "|u1")}, "damaged"),
        ({"other": np.zeros(3)}, "no item named 'header.npy'"),
        ({"header": header_of([])}, "its content is tuple; expected an object"),
        ({"header": header_of(1)}, "its content is int"),
        ({"header": np.frombuffer(b"[" * 100_000, np.uint8)}, "damaged"),
        ({"header": np.frombuffer(b"\xff\xfe\xfd", np.uint8)}, "damaged"),
        ({"header": np.frombuffer(b'{"a": NaN}', np.uint8)}, "NaN is no number of JSON"),
        ({"header": np.frombuffer(b"1" * 5000, np.uint8)}, "damaged"),
    ],
)
def test_archives_that_are_none(tmp_path, members, message):
    archive(tmp_path / "x.npz", members)
    with pytest.raises(ValueError, match=message) as refused:
        load(tmp_path / "x.npz")
    assert "allow_pickle" not in str(refused.value)


@pytest.mark.parametrize("packed", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_that_is_packed_otherwise(tmp_path, packed):
    archive(tmp_path / "x.npz", {"header": header_of({})}, compress_type=packed)
    with pytest.raises(ValueError, match="header is packed in a way that save does not use"):
        load(tmp_path / "x.npz")


def test_an_archive_takes_no_more_memory_than_what_it_announces(saved, tmp_path):
    """200 MB of zeros, packed to 200 kB, in members that are named and in others: little memory is taken."""
    code = (
        "import resource, sys, jaxflow; from jaxflow.explain import load\n"
        "used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for path in sys.argv[1:]:\n"
        "    try: load(path)\n"
        "    except ValueError as error: print(error)\n"
        "grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used\n"
        "assert grown < 150_000, grown\n"
    )
    whole = zipfile.ZipFile(io.BytesIO(saved[0][2]))
    kept = {name.removesuffix(".npy"): whole.read(name) for name in whole.namelist()}
    zeros = claims((2 * 10**8,), "|u1") + bytes(2 * 10**8)
    bombs = {"unasked": kept | {"bomb": zeros}, "asked": kept | {"array_0": zeros}, "header": {"header": zeros}}
    for name, members in bombs.items():
        archive(tmp_path / f"{name}.npz", members)
    paths = [str(tmp_path / f"{name}.npz") for name in bombs]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ran = subprocess.run(
        [sys.executable, "-c", code, *paths], env=environment, check=False, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert "asked.npz" in ran.stdout
    assert "header.npz" in ran.stdout
    assert "unasked" not in ran.stdout, "what nobody asks for is not read"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(model=5), "model is not what was expected: a text"),
        (lambda c: c.update(encoder_tokens=["a"]), "encoder is not what was expected|token_kinds"),
        (
            lambda c: c["attribution"]["positions"].update(data=[0, 99]),
            "positions is not what was expected: numbers from 0 to",
        ),
        (lambda c: c["predictions"][0].update(probability=7.0), "probabilities from 0 to 1"),
        (lambda c: c["conventions"].update(residual="half"), r"conventions\['residual'\]"),
        (lambda c: c["flow_graphs"][0].update(output=10**6), "flow_graphs, output"),
        (lambda c: c.update(contributions=c | {"contributions": c | {}}), "no contributions of their own"),
        (lambda c: c.update(token_kinds=["noun"] * len(c["token_kinds"])), "token_kinds"),
        (lambda c: c["words"][-1].__setitem__(1, 99), "words is not"),
        (lambda c: c.update(unknown=1), "unexpected keyword argument 'unknown'"),
        (lambda c: c.pop("notes"), None),  # has a default
        (lambda c: c.pop("model"), "missing 1 required positional argument: 'model'"),
    ],
)
def test_parts_that_do_not_fit(saved, tmp_path, change, message):
    tree = copy.deepcopy(saved[0][0])
    change(tree["content"])
    path = tmp_path / "x.json"
    path.write_text(json.dumps(tree))
    if message is None:
        assert load_or_refuse(path) is not None
        return
    with pytest.raises(ValueError, match=message):
        load(path)


@pytest.mark.parametrize("junk", [5, "x", [[1.5]], {"a": 1}], ids=repr)
@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Explanation) if field.name != "picture"])
def test_every_field_is_checked(saved, tmp_path, field, junk):
    """A field that is new must be looked at, too: what no view could show is refused when it is loaded."""
    if isinstance(junk, str) and isinstance(saved[0][0]["content"][field], str):
        pytest.skip("a text may be any text")
    tree = copy.deepcopy(saved[0][0])
    tree["content"][field] = junk
    (tmp_path / "x.json").write_text(json.dumps(tree))
    if field == "conventions" and isinstance(junk, dict):
        assert load_or_refuse(tmp_path / "x.json") is not None, "an option may have any name"
        return
    with pytest.raises(ValueError, match=r"x\.json is damaged"):
        load(tmp_path / "x.json")
