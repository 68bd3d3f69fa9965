"""Refuse a traced function whose attention is missing, and say what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxflow.capture._tracing.program import KERNELS, equations
from jaxflow.capture._tracing.sites import Findings

_UNFUSE = (
    "Switch the kernel off for the capture: implementation='xla' of jax.nn.dot_product_attention, "
    "attention='dot_product' or use_flash_attention=False in a model's config. Or compute the weights from queries "
    "and keys: jaxflow.attention_weights(query, key)."
)


def refuse_missing(name: str, closed: Any, findings: Findings) -> None:
    """Raise unless a traced function has attention, and all of it was found.

    Args:
        name: of the function.
        closed: its jaxpr.
        findings: the attention that was found in it.

    Raises:
        ValueError: there is none, or some that cannot be taken; with the reasons, and what to do.
    """
    kernels = _kernels(closed)
    fused = [
        kernel for kernel in kernels if any(word in kernel.lower() for word in ("attention", "flash", "attn", "mha"))
    ]
    refused = findings.refused + [
        f"{kernel}: fused attention, whose weights never exist. {_UNFUSE}" for kernel in fused
    ]
    if refused:
        n_found = f" ({len(findings.sites)} others were found)" if findings.sites else ""
        raise ValueError(
            f"{len(refused)} attentions of {name} cannot be taken{n_found}, and the network must not lack layers:\n"
            + "\n".join(f"  {reason}" for reason in dict.fromkeys(refused))
        )
    if findings.sites:
        return
    seen = [f"  - {reason}" for reason in dict.fromkeys(findings.other)]
    seen += [
        f"  - {kernel}: a kernel, into which no trace looks. If it computes attention: {_UNFUSE}" for kernel in kernels
    ]
    raise ValueError(
        f"No attention was found in {name}: nowhere in it does a softmax of queries times keys weigh values.\n"
        + ("Seen were:\n" + "\n".join(seen) + "\n" if seen else "")
        + "Linear attention and recurrences have no such weights. Attention that you have as arrays needs no capture: "
        "Attention(encoder=array)."
    )


def _kernels(closed: Any) -> Sequence[str]:
    """Name the operations that hide what they compute."""
    names: dict[str, None] = {}
    for eqn in equations(closed):
        primitive = eqn.primitive.name
        if any(word in primitive for word in KERNELS):
            known = [
                eqn.params.get(key)
                for key in ("name", "name_and_src_info", "target_name", "call_target_name", "callback")
            ]
            inside = getattr(getattr(eqn.params.get("jaxpr"), "debug_info", None), "func_src_info", None)
            label = next((str(value).split(" at ")[0] for value in (*known, inside) if value), "")
            names[f"{primitive} {label}".strip()] = None
    return list(names)
