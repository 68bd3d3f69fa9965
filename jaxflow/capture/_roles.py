"""Tell which stack recorded attention belongs to: encoder, decoder or cross.

By the path of its module, by what the model's adapter knows, or by what the user says. Never by the order in which layers run,
nor by lengths: a target may be as long as its source.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import get_args

from jaxflow.models import Path, Role, UnclearRolesError


def recorded_roles(
    model: str,
    paths: Collection[Path],
    *,
    known: Mapping[Path, Role],
    self_attention: Mapping[Path, set[bool]],
    said: Mapping[str, Role] | None,
) -> dict[Path, Role]:
    """Tell the stack of every attention module of a model.

    What the user says goes first, then what the adapter knows. Of the others the path tells ("encoder", "decoder" or "cross"
    in a component), and inside a decoder whether keys and queries are one array. A model whose paths tell nothing is one
    encoder.

    Args:
        model: its name, for messages.
        paths: the modules that gave attention.
        known: as in `Recording`.
        self_attention: as in `Recording`.
        said: what the user says: a fragment of a path -> its stack; the last that fits counts.

    Returns:
        The stack of each of `paths`.

    Raises:
        ValueError: the stack of some module cannot be told; what the user says is no stack, or fits no module.
    """
    roles = {**{path: role for path, role in known.items() if path in paths}, **said_roles(model, paths, said)}
    open_paths = [path for path in paths if path not in roles]
    names = {path: _named(path, self_attention.get(path, set())) for path in open_paths}
    if not {"decoder", "cross"} & {*names.values(), *roles.values()}:
        names = dict.fromkeys(open_paths, "encoder")
    elif unnamed := [path for path in open_paths if names[path] is None]:
        raise ValueError(_ambiguous(model, "Their paths do not tell the stack of these", unnamed))
    for role in ("encoder", "decoder"):
        stack = [path for path in open_paths if names[path] == role]
        # Keys from another array than the queries: another sequence, or the same one with something added.
        other = [path for path in stack if False in self_attention.get(path, ())]
        to_itself = [path for path in stack if path not in other or True in self_attention[path]]
        if not other or (role == "encoder" and not to_itself):
            continue
        if role == "encoder" or set(other) & set(to_itself) or not to_itself:
            error = UnclearRolesError if role == "encoder" else ValueError
            raise error(
                _ambiguous(model, f"Keys and queries of these are different arrays, unlike others of the {role}", other)
            )
        names.update(dict.fromkeys(other, "cross"))
    roles.update(names)  # type: ignore[arg-type]
    stacks = {roles[path] for path in paths}
    if not said and (stacks == {"encoder", "decoder"} or ("cross" in stacks and "decoder" not in stacks)):
        found = [path for path in paths if stacks == {"encoder", "decoder"} or roles[path] == "cross"]
        problem = f"Attention of {' and '.join(sorted(stacks))} alone was found, and none that joins two stacks"
        error = UnclearRolesError if "cross" in stacks else ValueError  # queries may be learned: pooling by attention
        raise error(_ambiguous(model, problem, found))
    return {path: roles[path] for path in paths}


def _named(path: Path, self_attention: set[bool]) -> Role | None:
    """Read the stack off a path, such as `decoder/layer_0/encoder_decoder_attention`."""
    role: Role | None = None
    for name in map(str.lower, path):
        from_decoder = role == "decoder" and "enc" in name and "att" in name
        if (from_decoder or ("cross" in name and "encoder" not in name)) and self_attention != {True}:
            return "cross"
        role = role or ("decoder" if "decoder" in name else "encoder" if "encoder" in name else None)
    return role


def said_roles(model: str, paths: Collection[Path], said: Mapping[str, Role] | None) -> dict[Path, Role]:
    """Read what the user says of the stacks: a fragment of a path -> its stack, of which the last that fits counts.

    Raises:
        ValueError: it is no stack, or fits nothing.
    """
    roles: dict[Path, Role] = {}
    for fragment, role in (said or {}).items():
        if role not in get_args(Role):
            raise ValueError(f"roles[{fragment!r}] is {role!r}; expected 'encoder', 'decoder' or 'cross'.")
        found = [path for path in paths if fragment in f"/{'/'.join(path)}/"]
        if not found:
            raise ValueError(
                f"roles names {fragment!r}, which is in the path of no attention module of {model}. There are:\n"
                f"{_listed(paths)}"
            )
        roles.update(dict.fromkeys(found, role))
    return roles


def _ambiguous(model: str, problem: str, paths: Collection[Path]) -> str:
    return (
        f"Which stack the attention of {model} belongs to cannot be told. {problem}:\n{_listed(paths)}\nName them by a "
        'fragment of their path, as in capture(..., roles={"": "decoder", "cross": "cross"}): the last that fits '
        "counts. Or build Attention(encoder=..., decoder=..., cross=...) of your own arrays."
    )


def _listed(paths: Collection[Path]) -> str:
    return "\n".join(f"  /{'/'.join(path)}/" for path in paths)
