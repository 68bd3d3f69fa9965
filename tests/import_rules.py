"""The rules for imports and module names, as functions over a package's directory. They read the source and import nothing."""

import ast
import graphlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# A module imports from its own room and from those before it.
ROOMS = (
    "zoo",
    "models",
    "capture",
    "network",
    "solve",
    "attribute",
    "explain",
    "evaluate",
    "training",
    "views",
    "cli",
)
# Every room may import these. They import each other and no room, except that `_display` imports the views.
FLAT = ("_attention", "_display", "_palette", "_printable", "_progress", "_version")
ROOT = ("__init__", "__main__")
DISPLAYED = ("_display", "views")
# These rooms are named after the function that is their purpose: `jaxflow.capture` is the function.
ROOMS_NAMED_AS_FUNCTIONS = ("capture", "explain")


class Import(NamedTuple):
    """An import within the package, at the top of a module or in a function.

    Attributes:
        importer: The module with the import, as parts of its name below the package; () is the package itself.
        imported: The module that is imported, likewise.
        line: Line of the import.
        outside: The name of an imported module that is not in the package, for imports of the checkout; else "".
    """

    importer: tuple[str, ...]
    imported: tuple[str, ...]
    line: int
    outside: str = ""

    def __str__(self) -> str:
        imported = self.outside or ".".join(self.imported) or "the package itself"
        return f"{'.'.join(self.importer) or '__init__'}:{self.line} imports {imported}"


def modules(package: Path) -> dict[tuple[str, ...], Path]:
    """Find all modules of a package, by the parts of their names; a package is the module of its `__init__`."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        found[parts[:-1] if parts[-1] == "__init__" else parts] = path
    return found


def imports(package: Path) -> list[Import]:
    """List the imports among the modules of a package, and those of `zoo`, the package of the checkout."""
    known = modules(package)
    found = (one for module, path in known.items() for one in _imports_of(package, known, module, path))
    return list(dict.fromkeys(found))  # one for several names of one module


def against_the_order(package: Path) -> list[str]:
    """List imports of later rooms, of the package itself, of rooms out of the list, and of the checkout."""
    wrong = []
    for one in imports(package):
        importer, imported = _room(one.importer), _room(one.imported)
        if one.outside:
            wrong.append(f"{one}: it is no part of the package")
        elif importer in ROOT or (importer, imported) == DISPLAYED:
            continue
        elif imported in ROOT:
            wrong.append(f"{one}: import from the room that has the name")
        elif any(room not in (*ROOMS, *FLAT) for room in (importer, imported)):
            wrong.append(f"{one}: one of them is in no known room")
        elif _place(imported) > _place(importer):
            wrong.append(f"{one}: a later room")
    return wrong


def past_the_door(package: Path) -> list[str]:
    """List imports of private modules of another room."""
    return [
        f"{one}: import it from {'.'.join(_door(one.imported))}"
        for one in imports(package)
        if len(one.imported) > 1
        and _room(one.imported) != _room(one.importer)
        and any(part.startswith("_") for part in one.imported)
    ]


def circles(package: Path) -> list[str]:
    """List circles of imports. Those from `_display` to the views do not count: they are there to break circles."""
    graph: dict[tuple[str, ...], set[tuple[str, ...]]] = {module: set() for module in modules(package)}
    for one in imports(package):
        if not one.outside and (_room(one.importer), _room(one.imported)) != DISPLAYED:
            graph[one.importer].add(one.imported)
    found = []
    while True:
        try:
            graphlib.TopologicalSorter(graph).prepare()
        except graphlib.CycleError as error:
            circle = error.args[1][::-1]  # each module imports the next
            found.append(" -> ".join(".".join(module) or "__init__" for module in circle))
            graph[circle[0]].discard(circle[1])
        else:
            return found


def named_as_functions(package: Path) -> list[str]:
    """List modules that have the name of a function: one in the `__all__` of a package without underscore."""
    known = modules(package)
    public = {
        name: ".".join((package.name, *door))
        for door, path in known.items()
        if path.name == "__init__.py" and not any(part.startswith("_") for part in door)
        for name in public_names(path)
        if module_of(package, door, name) is None
    }
    return [
        f"{'.'.join(module)} has the name of a function of {public[module[-1]]}"
        for module in known
        if module and module[-1] in public and not (len(module) == 1 and module[0] in ROOMS_NAMED_AS_FUNCTIONS)
    ]


def flat_modules(package: Path) -> list[str]:
    """List modules at the top of the package that belong into a room."""
    return [
        f"{path.stem} is in no room"
        for path in sorted(package.glob("*.py"))
        if path.stem not in (*ROOT, *FLAT)
    ]  # fmt: skip


def public_names(path: Path) -> list[str]:
    """Read the `__all__` of a module; empty where it has none."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id == "__all__" for to in node.targets):
            return [str(name) for name in ast.literal_eval(node.value)]
    return []


def module_of(package: Path, module: tuple[str, ...], name: str) -> tuple[str, ...] | None:
    """Find the module that a name in a module stands for: its own, or an imported one; None for anything else."""
    known = modules(package)
    path = known[module]
    body = ast.parse(path.read_text(encoding="utf-8")).body
    for node in itertools.chain.from_iterable(node.body if isinstance(node, ast.If) else [node] for node in body):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return None
        if not isinstance(node, ast.ImportFrom):
            continue
        for alias in node.names:
            if (alias.asname or alias.name) != name:
                continue
            origin = _origin(package, module, path, node)
            if origin[1:] != module:
                inside = origin[0] == package.name and origin[1:] in known
                return module_of(package, origin[1:], alias.name) if inside else None
            return (*module, alias.name) if (*module, alias.name) in known else None
    return (*module, name) if (*module, name) in known else None


def _imports_of(
    package: Path, known: dict[tuple[str, ...], Path], module: tuple[str, ...], path: Path
) -> Iterator[Import]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                parts = tuple(alias.name.split("."))
                if parts[0] == package.name:
                    yield Import(module, _existing(known, parts[1:]), node.lineno)
                elif parts[0] == "zoo":
                    yield Import(module, (), node.lineno, outside=alias.name)
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(package, module, path, node)
            if origin[0] == package.name:
                for alias in node.names:
                    yield Import(module, _existing(known, (*origin[1:], alias.name)), node.lineno)
            elif origin[0] == "zoo":
                yield Import(module, (), node.lineno, outside=".".join(origin))


def _origin(package: Path, module: tuple[str, ...], path: Path, node: ast.ImportFrom) -> tuple[str, ...]:
    """Give the parts of the name from which an import takes, also of a relative one."""
    origin = tuple(node.module.split(".")) if node.module else ()
    if not node.level:
        return origin
    inside = module if path.name == "__init__.py" else module[:-1]
    return (package.name, *inside[: len(inside) - node.level + 1], *origin)


def _existing(known: dict[tuple[str, ...], Path], parts: tuple[str, ...]) -> tuple[str, ...]:
    """Cut a name down to the module that has it: ("solve", "max_flow") is in ("solve",)."""
    while parts and parts not in known:
        parts = parts[:-1]
    return parts


def _room(module: tuple[str, ...]) -> str:
    return module[0] if module else "__init__"


def _place(room: str) -> int:
    """Give a room's place in the order; all flat modules are before the first."""
    return ROOMS.index(room) if room in ROOMS else -1


def _door(module: tuple[str, ...]) -> tuple[str, ...]:
    private = next(i for i, part in enumerate(module) if part.startswith("_"))
    return module[:private]
