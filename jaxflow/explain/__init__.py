"""An attribution with its words: reading a text, generating, the explanation, its storage and its picture."""

from jaxflow.explain._explain import explain
from jaxflow.explain._explanation import Explanation, load
from jaxflow.explain._flow_graph import ARC_KINDS, FlowGraph, flow_graph
from jaxflow.explain._generate import Generate
from jaxflow.explain._image import grey, ground
from jaxflow.explain._picture import Picture, known_picture
from jaxflow.explain._prediction import Prediction
from jaxflow.explain._reading import Example, encode, padding_mask, read_by, words_of
from jaxflow.explain._runs import ModelRuns
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
    "encode",
    "explain",
    "flow_graph",
    "grey",
    "ground",
    "known_picture",
    "load",
    "padding_mask",
    "read_by",
    "text_spans",
    "words_of",
]
