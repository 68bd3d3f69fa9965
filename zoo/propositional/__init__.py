"""Trains `propositional`: propositional formulas, and assignments."""
