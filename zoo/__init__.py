"""Trains the models that ship with jaxflow; run from a checkout, no part of the package. See README.md."""
