import numpy as np
import pytest
from strategies import make_attention

from jaxflow import Capacities, attention_flow, explain, load_model


@pytest.fixture(scope="session")
def explanation():
    model, tokenizer = load_model("agreement")
    return explain(model, "the keys to the old cabinet", tokenizer=tokenizer)


@pytest.fixture(scope="session")
def capacities():
    """Of two layers of an encoder that reads 4 tokens and of a decoder that reads 5."""
    return Capacities(
        encoder=(make_attention("softmax", 0, (2, 4, 4)) + np.eye(4)) / 2,
        decoder=(make_attention("causal", 0, (2, 5, 5)) + np.eye(5)) / 2,
        cross=make_attention("softmax", 0, (2, 5, 4)) / 2,
        residual=0.5,
    )


@pytest.fixture(scope="session")
def encoder_decoder(capacities):
    """Scores of that decoder's outputs 1 to 4."""
    return attention_flow(capacities, positions=[1, 2, 3, 4])
