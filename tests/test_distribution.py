"""The name under which the package is installed: one of ours, wherever it is written. `jaxflow` on the index is a stranger's."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest

import jaxflow
from jaxflow._version import DISTRIBUTION

ROOT = Path(__file__).parents[1]
STRANGERS = ("jaxflow", "jaxflow-lib")
# What pip is told to install, up to the end of the command; in notebooks and messages it may be quoted in several ways.
INSTALLS = re.compile(r"pip3? (?:install|download)([^\n&;|`#]*)")
REQUIREMENT = re.compile(r"(?<![\w/.-])(jaxflow[\w-]*)(?![\w./-])")


def texts():
    """All files in which someone could read how to install the package."""
    for pattern in ("*.md", "*.toml", "*.yml", ".ci/*", "docs/**/*.md", "jaxflow/**/*.*", "zoo/**/*.py", "tests/**/*.py",
                    "benchmarks/*.py", "notebooks/*.ipynb"):  # fmt: skip
        for path in sorted(ROOT.glob(pattern)):
            if path.is_file() and path.suffix in (".md", ".toml", ".yml", ".py", ".ipynb", ".html", ".js", ""):
                yield path, path.read_text("utf-8")


def strangers_in(text):
    """List the distributions of others that a text would install in our name."""
    found = [name for command in INSTALLS.findall(text) for name in REQUIREMENT.findall(command)]
    return [name for name in found if name in STRANGERS]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('pip install "jaxflow[hf]"', ["jaxflow"]),
        ('%pip install --quiet \\"jaxflow[notebooks]\\"', ["jaxflow"]),
        ("pip install 'jaxflow-lib'", ["jaxflow-lib"]),
        ("pip install jaxflow==1", ["jaxflow"]),
        ('pip install "jaxflow-attention[hf]"', []),
        ("pip install . # jaxflow.html", []),
        ("pip install -e .[test] && jaxflow explain", []),
    ],
)
def test_the_rule_finds_names_of_others(text, expected):
    assert strangers_in(text) == expected


def test_no_line_installs_a_library_of_others():
    here = Path(__file__).name
    found = {
        path.relative_to(ROOT): wrong for path, text in texts() if path.name != here and (wrong := strangers_in(text))
    }
    assert not found


def test_the_project_and_its_extras_have_one_name():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["name"] == DISTRIBUTION not in STRANGERS
    own = [need for needs in project["optional-dependencies"].values() for need in needs if need.startswith("jaxflow")]
    assert own
    assert all(need.startswith(f"{DISTRIBUTION}[") for need in own)
    assert project["scripts"]["jaxflow"] == "jaxflow.cli:main", "the command and the import keep their name"


def test_notebooks_look_for_a_name_of_ours_before_they_install():
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        text = path.read_text("utf-8")
        if "%pip install" in text:
            name = re.search(r"from jaxflow import (\w+)", text)[1]
            assert hasattr(jaxflow, name)
            assert text.index("from jaxflow import") < text.index("%pip install")


def test_the_version_is_found_under_the_installed_name():
    try:
        version = importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("it runs from a checkout that is not installed")
    assert version == jaxflow.__version__
