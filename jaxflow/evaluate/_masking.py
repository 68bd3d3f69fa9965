"""A model's number as a function of which tokens it is shown: one compiled forward pass for many masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxflow.attribute import shown_values
from jaxflow.capture import Target
from jaxflow.evaluate._erasure import Value
from jaxflow.models import as_model


def masked_value(
    model: Any,
    *args: Any,
    target: Target,
    replacement: int | None = None,
    batch_size: int = 64,
    variables: Mapping | None = None,
    **kwargs: Any,
) -> Value:
    """Make of a model and one example what `erase` and `erasure_curves` take: `value(kept)`, with all other tokens hidden.

    Hidden tokens keep their place. By default nothing attends to them (`attention_mask` is 0 there); they still attend to others,
    and models that count positions by the mask (OPT) move later tokens up. Of encoder-decoders, the encoder's tokens are hidden.

    Args:
        model: what `capture` takes: a module or any function.
        *args: what the model is called with: one example, `[1, token]`.
        target: the number, as in `attention_gradients`: `lambda outputs: jax.nn.softmax(outputs.logits)[:, 1]`, say.
        replacement: a token that stands in the place of hidden ones instead, such as `tokenizer.mask_token_id`.
        batch_size: how many masks go through the model at once.
        variables: those of an unbound linen module.
        **kwargs: what the model is called with.

    Returns:
        A function of masks `[*shape, token]`, True for tokens that are kept, which returns numbers `[*shape]`, float64. Compiled
        once; padding that `attention_mask` hides stays hidden.

    Raises:
        TypeError: a model that is not supported here.
        ValueError: more than one example; a model that takes no `input_ids`, or no `attention_mask` (pass `replacement`); of
            what is returned: masks of another length.
    """
    subject = as_model(model, variables=variables)
    return shown_values(subject, args, kwargs, target=target, replacement=replacement, batch_size=batch_size)
