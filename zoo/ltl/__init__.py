"""Trains `ltl`: formulas of linear temporal logic, and traces."""
