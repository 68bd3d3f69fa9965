"""Instances of the Flax classes of transformers 4. They are not changed, and transformers is not imported."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Int

from jaxflow.models._apply import record_apply
from jaxflow.models._facts import Facts
from jaxflow.models._model import N_NEW_TOKENS, Embed, Model, name_arguments
from jaxflow.models._recording import Keep, Recording
from jaxflow.models._transformers._config import class_facts, config_facts
from jaxflow.models._transformers._mending import mended
from jaxflow.models._transformers._refusals import refuse, refuse_call


def is_transformers(model: Any) -> bool:
    """Whether `model` is an instance of a Flax class of transformers, which need not be installed."""
    return any(
        cls.__name__ == "FlaxPreTrainedModel" and cls.__module__.startswith("transformers.")
        for cls in type(model).__mro__
    )


@dataclasses.dataclass(frozen=True, eq=False)
class TransformersModel(Model):
    """An instance of a Flax class of transformers 4.

    Attributes:
        model: the instance.
        name: of its class.
        parameters: its `params`, or those that it is bound to; None if it was built without.
        facts: what its class and its config say.
        is_bound: whether `parameters` are others than the instance's own.
    """

    model: Any
    name: str
    parameters: Any
    facts: Facts
    is_bound: bool = False

    def bind(self, parameters: Any) -> TransformersModel:
        """Return the model with other `params`."""
        return dataclasses.replace(self, parameters=parameters, is_bound=True)

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model; `params=` goes before what it is bound to."""
        with mended():
            return self.model(*args, **self._bound(kwargs))

    def arguments(self, args: tuple, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of the model's call by name."""
        return name_arguments(self.model, args, kwargs)

    def record(self, args: tuple, kwargs: Mapping[str, Any], keep: Keep | None = None) -> tuple[Any, Recording]:
        """Run a copy of the model, whose flax module is replaced by one that records the `apply` that the model makes.

        Raises:
            ValueError: the model has no attention of all tokens to all tokens, or is called so that there is none.
        """
        refuse(self.name, self.model.config)
        refuse_call(self.model, args, kwargs)
        recorded = copy.copy(self.model)
        recorded._module = module = _RecordedModule(self.model.module, keep)
        outputs = recorded(*args, **self._bound(kwargs))
        if module.recording is None:
            raise ValueError(f"{self.name} did not run its module, so there is no attention to take.")
        return outputs, module.recording

    def embed(self, args: tuple, kwargs: Mapping[str, Any], embed: Embed) -> Any:
        """Run the model with its embeddings replaced."""
        with mended():
            return super().embed(args, kwargs, embed)

    def generate(
        self, inputs: Mapping[str, np.ndarray], *, max_new_tokens: int | None, num_beams: int, sample: bool, seed: int
    ) -> Int[np.ndarray, " token"]:
        """Generate by the model's own `generate`."""
        assert self.facts.generation is not None
        n_prompt = 1 if self.facts.generation.has_encoder else inputs["input_ids"].shape[-1]
        with mended():
            sequences = self.model.generate(
                **self._bound(inputs),
                max_length=n_prompt + (max_new_tokens or N_NEW_TOKENS),
                num_beams=num_beams,
                do_sample=sample,
                prng_key=jax.random.PRNGKey(seed),
            ).sequences
        return np.asarray(sequences[0], np.int64)

    def _bound(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        return {"params": self.parameters, **kwargs} if self.is_bound else dict(kwargs)


def transformers_model(model: Any) -> TransformersModel:
    """Make a `Model` of an instance of a Flax class of transformers."""
    labels, generation = class_facts(model)
    facts = dataclasses.replace(config_facts(model.config), labels=labels, generation=generation)
    parameters = (
        model.params if getattr(model, "_is_initialized", False) else None
    )  # those of `_do_init=False` go in as params=
    return TransformersModel(model, type(model).__name__, parameters, facts)


class _RecordedModule:
    """Stands in for a model's flax module: runs it as it is, and records its attention."""

    def __init__(self, module: nn.Module, keep: Keep | None) -> None:
        self.module = module
        self.keep = keep
        self.recording: Recording | None = None

    def apply(self, variables: Mapping, *args: Any, **kwargs: Any) -> Any:
        outputs, self.recording = record_apply(self.module, variables, args, kwargs, keep=self.keep)
        return outputs

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)
