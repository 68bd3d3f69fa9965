"""Trains `agreement`: sentences with attractors, and the number of the verb."""
