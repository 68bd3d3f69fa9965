import pytest

from jaxflow.zoo.agreement import load
from zoo.agreement.grammar import generate


@pytest.fixture(scope="session")
def trained():
    return load()


@pytest.fixture(scope="session")
def held_out():
    return generate(2_000, split="held_out", seed=12_345)


@pytest.fixture(scope="session")
def seen():
    return generate(20_000, split="train", seed=0)
