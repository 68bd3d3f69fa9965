"""An attribution with its words: reading a text, generating, the explanation, its storage and its picture."""

from jaxflow.explain._explain import explain
from jaxflow.explain._explanation import Explanation, load
from jaxflow.explain._flow_graph import ARC_KINDS, FlowGraph, flow_graph
from jaxflow.explain._generate import Generate
from jaxflow.explain._image import grey, ground
from jaxflow.explain._picture import Picture, known_picture
from jaxflow.explain._prediction import Prediction
from jaxflow.explain._reading import Example, encode, padding_mask, read_by
from jaxflow.explain._runs import ModelRuns
from jaxflow.explain._token_names import TokenName, join_names, name_tokens, plain_names
from jaxflow.explain._words import text_spans

__all__ = [
    "ARC_KINDS",
    "Example",
    "Explanation",
    "FlowGraph",
    "Generate",
    "ModelRuns",
    "Picture",
    "Prediction",
    "TokenName",
    "encode",
    "explain",
    "flow_graph",
    "grey",
    "ground",
    "join_names",
    "known_picture",
    "load",
    "name_tokens",
    "padding_mask",
    "plain_names",
    "read_by",
    "text_spans",
]
