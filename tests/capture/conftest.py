import jax
import pytest


@pytest.fixture(autouse=True, scope="package")
def quick_compilation():
    """These tests compile many small models and run each once: optimising them takes most of the time."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
