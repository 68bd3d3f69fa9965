"""What the tests of the classes of transformers share: tiny models of all of them, and comparisons."""

import jax
import numpy as np
import pytest

transformers = pytest.importorskip("transformers", "4", exc_type=ImportError)

from tiny_models import (  # noqa: E402
    CONFIGS,
    DECODERS,
    ENCODER_DECODERS,
    ENCODERS,
    IDS,
    IMAGE,
    MASK,
    PIXELS,
    TEXT,
    WITH_GENERATION,
    build,
    inputs,
)

__all__ = [
    "CONFIGS", "DECODERS", "ENCODERS", "ENCODER_DECODERS", "IDS", "IMAGE", "MASK", "PIXELS", "TEXT", "WITH_GENERATION",
    "assert_attention", "assert_same", "assert_stacks", "build", "inputs", "unbuilt",
]  # fmt: skip


def unbuilt(cls, config, **options):
    """A model without parameters: enough to be refused."""
    return getattr(transformers, cls)(getattr(transformers, config)(**options), _do_init=False)


def assert_same(got, expected):
    assert type(got) is type(expected)
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, got, expected)


def assert_attention(attention, reference):
    np.testing.assert_allclose(attention.encoder, np.stack(reference, 1), atol=1e-5, rtol=0)
    assert attention.decoder is None
    assert attention.cross is None


def assert_stacks(attention, full, stacks):
    """Attention has these stacks and no other, and they are those of transformers' own outputs."""
    for stack in ("encoder", "decoder", "cross"):
        got = getattr(attention, stack)
        if stack not in stacks:
            assert got is None
            continue
        names = (f"{stack}_attentions", "attentions") if stack != "cross" else ("cross_attentions",)
        reference = next(full[name] for name in names if full.get(name) is not None)
        np.testing.assert_allclose(got, np.stack(reference, 1), atol=1e-5, rtol=0)
