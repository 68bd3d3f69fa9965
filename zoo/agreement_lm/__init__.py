"""Trains `agreement-lm`: whole sentences of the same grammar."""
