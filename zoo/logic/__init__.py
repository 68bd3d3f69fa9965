"""Trains the reasoning models: random formulas, and the answers that CP-SAT finds."""
