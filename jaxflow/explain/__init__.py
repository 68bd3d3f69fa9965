"""An attribution with its words: reading a text, generating, the explanation, its storage and its picture's graph."""

from jaxflow.explain._explain import explain
from jaxflow.explain._explanation import Explanation, load
from jaxflow.explain._flow_graph import ARC_KINDS, FlowGraph, flow_graph
from jaxflow.explain._generation import explain_generation
from jaxflow.explain._image import grey, ground
from jaxflow.explain._inputs import encode, padding_mask, reads, words_of
from jaxflow.explain._prediction import Prediction
from jaxflow.explain._words import text_spans

__all__ = [
    "ARC_KINDS",
    "Explanation",
    "FlowGraph",
    "Prediction",
    "encode",
    "explain",
    "explain_generation",
    "flow_graph",
    "grey",
    "ground",
    "load",
    "padding_mask",
    "reads",
    "text_spans",
    "words_of",
]
