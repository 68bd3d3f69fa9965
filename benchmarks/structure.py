"""How large the package is, and how tidy: modules, names, parameters, lines. As Markdown, for one checkout or two.

    git worktree add /tmp/before 20f2400
    python benchmarks/structure.py /tmp/before .

It reads the source and imports nothing of it, so old commits can be measured. Public names are those of the top level's
`__all__`; some of them are namespaces with names of their own. Public functions are those of both, and constructors count
too, except of results: dataclasses that some public function returns. Imports are checked against the order of the rooms
(tests/import_rules.py); a checkout that lacks a room has "n/a".
"""

import argparse
import ast
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))  # the rules of the tests

from import_rules import ROOMS, against_the_order, module_of, modules, public_names

N_LARGEST = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).parent.parent
    parser.add_argument("checkouts", nargs="*", type=Path, default=[here], help="one or two (default: this one)")
    parser.add_argument("--wheels", nargs="+", type=Path, default=[], help="the built wheel of each checkout")
    arguments = parser.parse_args()
    checkouts, wheels = arguments.checkouts, arguments.wheels
    if len(checkouts) > 2:
        parser.error(f"got {len(checkouts)} checkouts; expected one, or two to compare")
    if wheels and len(wheels) != len(checkouts):
        parser.error(f"got {len(wheels)} wheels; expected one for each of {len(checkouts)} checkouts")
    for path in checkouts:
        if not (path / "jaxflow" / "__init__.py").exists():
            parser.error(f"{path} is no checkout of jaxflow: it has no jaxflow/__init__.py")
    columns = [measure(path) for path in checkouts]
    for column, wheel in zip(columns, wheels, strict=False):
        column["size of the wheel, kB"] = f"{wheel.stat().st_size / 1000:,.0f}"
    print(f"| | {' | '.join(['before', 'after'] if len(columns) == 2 else ['checkout'])} |")
    print(f"| --- | {' | '.join('---:' for _ in columns)} |")
    for name in columns[0]:
        print(f"| {name} | {' | '.join(column[name] for column in columns)} |")


def measure(checkout: Path) -> dict[str, str]:
    """Measure a checkout; give each figure as text, by its name."""
    package = checkout / "jaxflow"
    names = public_names(package / "__init__.py")
    namespaces = [module for name in names if (module := module_of(package, (), name)) is not None]
    doors = {module: public_names(modules(package)[module]) for module in namespaces}
    counted = parameters(package, [((), name) for name in names] + [(m, name) for m in doors for name in doors[m]])
    largest = sorted(counted.items(), key=lambda one: (-one[1], one[0]))[:N_LARGEST]
    is_in_rooms = all((package / room).is_dir() for room in ROOMS)
    n_lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in package.rglob("*.py"))
    return {
        "modules at the top level of the package": str(len(list(package.glob("*.py"))) - 1),  # without __init__
        "modules in the package": str(len(modules(package))),
        "public names": str(len(names)),
        "names in namespaces besides": str(len({name for door in doors.values() for name in door} - {*names})),
        f"parameters of the {N_LARGEST} largest public functions": ", ".join(f"`{name}` {n}" for name, n in largest),
        "lines of Python in the package": f"{n_lines:,}",
        "imports against the order of the rooms": str(len(against_the_order(package))) if is_in_rooms else "n/a",
        "words in the README": f"{len((checkout / 'README.md').read_text(encoding='utf-8').split()):,}",
    }


def parameters(package: Path, names: list[tuple[tuple[str, ...], str]]) -> dict[str, int]:
    """Count the parameters of public functions, and of constructors but those of results; names as (module, name)."""
    found = {name: node for module, name in names if (node := definition(package, module, name)) is not None}
    functions = [node for node in found.values() if isinstance(node, ast.FunctionDef)]
    functions += [
        child
        for node in found.values()
        if isinstance(node, ast.ClassDef)
        for child in node.body
        if isinstance(child, ast.FunctionDef)
    ]
    returned = {
        word for node in functions if node.returns is not None for word in re.findall(r"\w+", ast.unparse(node.returns))
    }
    return {
        name: n_parameters(node)
        for name, node in found.items()
        if not (isinstance(node, ast.ClassDef) and is_dataclass(node) and name in returned)
    }


def definition(package: Path, module: tuple[str, ...], name: str) -> ast.FunctionDef | ast.ClassDef | None:
    """Follow imports from a module to the definition of a name; None where it is no function and no class."""
    known = modules(package)
    if module not in known or module_of(package, module, name) is not None:
        return None
    for node in ast.parse(known[module].read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return node
        if isinstance(node, ast.ImportFrom) and not node.level and node.module and node.module.startswith("jaxflow"):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return definition(package, tuple(node.module.split(".")[1:]), alias.name)
    return None


def n_parameters(node: ast.FunctionDef | ast.ClassDef) -> int:
    """Count the parameters of a function, or of a class's constructor: its `__init__`, or a dataclass's fields."""
    if isinstance(node, ast.FunctionDef):
        spec = node.args
        named = [*spec.posonlyargs, *spec.args, *spec.kwonlyargs, *filter(None, (spec.vararg, spec.kwarg))]
        return len([one for one in named if one.arg != "self"])
    for child in node.body:
        if isinstance(child, ast.FunctionDef) and child.name == "__init__":
            return n_parameters(child)
    fields = (
        [ast.unparse(child) for child in node.body if isinstance(child, ast.AnnAssign)] if is_dataclass(node) else []
    )
    return sum("ClassVar" not in field and "init=False" not in field for field in fields)


def is_dataclass(node: ast.ClassDef) -> bool:
    """Tell whether a class is a dataclass, of the standard library or of Flax."""
    return any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)


if __name__ == "__main__":
    main()
