"""Explanation -> what people look at. Views compute nothing: the numbers they draw are the explanation's."""
