"""What is explained: a `Model`, of any kind."""

from jaxflow.models._arrays import take_arrays
from jaxflow.models._as_model import as_model
from jaxflow.models._embedding import run_embedded
from jaxflow.models._facts import Facts, Generation
from jaxflow.models._function import FunctionModel
from jaxflow.models._generation import continued, generate
from jaxflow.models._load import load_model
from jaxflow.models._model import DEFAULT_NAME, Model, name_arguments
from jaxflow.models._outputs import count_from_start, logits_of, pick
from jaxflow.models._padding import Padded, pad_inputs, padded_length
from jaxflow.models._programs import is_hashable, output_shapes, run_compiled, run_once, run_traced
from jaxflow.models._recording import Keep, Layer, LayerPlace, Mixing, Path, Recording, Role
from jaxflow.models._recording import NotRecordedError as NotRecordedError
from jaxflow.models._recording import UnclearRolesError as UnclearRolesError
from jaxflow.models._token_ids import check_token_ids
from jaxflow.models._transformers._config import attention_sizes

__all__ = [
    "DEFAULT_NAME",
    "Facts",
    "FunctionModel",
    "Generation",
    "Keep",
    "Layer",
    "LayerPlace",
    "Mixing",
    "Model",
    "Padded",
    "Path",
    "Recording",
    "Role",
    "as_model",
    "attention_sizes",
    "check_token_ids",
    "continued",
    "count_from_start",
    "generate",
    "is_hashable",
    "load_model",
    "logits_of",
    "name_arguments",
    "output_shapes",
    "pad_inputs",
    "padded_length",
    "pick",
    "run_compiled",
    "run_embedded",
    "run_once",
    "run_traced",
    "take_arrays",
]
