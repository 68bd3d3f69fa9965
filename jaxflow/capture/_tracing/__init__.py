"""Find softmax(q k) v in a traced function: the program, its axes, its softmaxes, its stacks, and a run that keeps weights."""
