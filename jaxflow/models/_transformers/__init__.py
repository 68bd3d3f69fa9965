"""The Flax classes of transformers 4: all that is known of them. Version 5 has none.

Transformers is imported only to load a checkpoint; a model that is passed in has imported it.
"""
