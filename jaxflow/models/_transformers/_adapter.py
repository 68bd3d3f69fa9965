"""Instances of the Flax classes of transformers 4. They are not changed, and transformers is not imported."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Int

from jaxflow.models._apply import record_apply
from jaxflow.models._facts import Facts
from jaxflow.models._model import N_NEW_TOKENS, Embed, Model, name_arguments
from jaxflow.models._padding import padded_length
from jaxflow.models._programs import run_compiled
from jaxflow.models._recording import Keep, Mixing, Recording
from jaxflow.models._transformers._config import class_facts, config_facts
from jaxflow.models._transformers._mending import mended
from jaxflow.models._transformers._refusals import refuse, refuse_call

# Tokens that a generation by logits reads at most, all its steps together; more take longer than compiling `generate` does.
MOST_BY_LOGITS = 4096
# Settings of a generation that let another than the likeliest token follow; not where they are None, 0 or empty.
CHANGES_LOGITS = ("min_length", "forced_bos_token_id", "forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens",
                  "forced_decoder_ids", "no_repeat_ngram_size")  # fmt: skip


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
        generates_by_itself: as in `Model`.
        mixing: as in `Model`.
    """

    model: Any
    name: str
    parameters: Any
    facts: Facts
    is_bound: bool = False
    generates_by_itself: bool = True
    mixing: Mixing = "none"

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

    def split(self) -> tuple[Hashable, Any] | None:
        """Return the class with its configuration and the fields of its module, and the parameters; None without these."""
        parameters = self.parameters if self.is_bound else getattr(self.model, "_params", None)
        if parameters is None:
            return None
        module = self.model.module
        names = {field.name for field in dataclasses.fields(module)} - {"config", "parent", "name"}
        fields = [(name, repr(getattr(module, name, None))) for name in sorted(names)]
        settings = repr(sorted(vars(self.model.config).items()))
        return (type(self.model), type(module), settings, tuple(fields)), parameters

    def generate(
        self, inputs: Mapping[str, np.ndarray], *, max_new_tokens: int | None, num_beams: int, sample: bool, seed: int
    ) -> Int[np.ndarray, " token"] | None:
        """Generate by the model's own `generate`, compiled; None where the likeliest tokens are as quickly found by logits.

        `generate` keeps what it computed of earlier tokens, so a step costs one token; but its program is of one length of the
        text alone.
        """
        assert self.facts.generation is not None
        has_encoder = self.facts.generation.has_encoder
        n_source, n_new = inputs["input_ids"].shape[-1], max_new_tokens or N_NEW_TOKENS
        n_prompt = 1 if has_encoder else n_source
        n_read = padded_length(n_prompt + n_new) + (n_source if has_encoder else 0)
        if num_beams == 1 and not sample and n_read * n_new <= MOST_BY_LOGITS and self._takes_the_likeliest(inputs):
            return None
        job = _generate_by(n_prompt + n_new, num_beams, sample)
        sequences = run_compiled(job, self, (), inputs, jax.random.PRNGKey(seed))
        return np.asarray(sequences[0], np.int64)

    def _takes_the_likeliest(self, inputs: Mapping[str, np.ndarray]) -> bool:
        """Whether the model's own `generate` does nothing but take the likeliest token at each step."""
        settings = getattr(self.model, "generation_config", self.model.config)
        start = getattr(settings, "decoder_start_token_id", None)
        own = self.facts.generation.start_token if self.facts.generation is not None else None
        is_own = "FlaxGenerationMixin" not in type(self.model).generate.__qualname__  # as Whisper's
        mask = inputs.get("attention_mask")
        return not (
            is_own
            or any(getattr(settings, name, None) for name in CHANGES_LOGITS)
            or start not in (None, own)
            or (mask is not None and not np.all(mask))
        )

    def _bound(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        return {"params": self.parameters, **kwargs} if self.is_bound else dict(kwargs)


@functools.cache
def _generate_by(max_length: int, num_beams: int, sample: bool) -> Callable[..., Any]:
    def generated(model: TransformersModel, args: tuple, inputs: Mapping[str, Any], key: Any) -> Any:
        options = {"max_length": max_length, "num_beams": num_beams, "do_sample": sample, "prng_key": key}
        if model.facts.generation is not None and not model.facts.generation.end_tokens:
            beyond = model.facts.n_words or 2**30  # sampling and beams take no None, so: a token that does not exist
            options |= {"eos_token_id": beyond, "pad_token_id": 0}
        with mended():
            return model.model.generate(**model._bound(inputs), **options).sequences

    return generated


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
