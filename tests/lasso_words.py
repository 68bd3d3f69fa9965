"""Oracle: what formulas say of lassos, from their definitions by "some position" and "all positions", in Kleene's three values.

Independent of the package: no fixed points, no tableau. True, None (unknown) and False are 1, 0.5 and 0.
"""

from itertools import product

from jaxflow.zoo.logic import Trace


def value(formula, trace, i=0):
    """The value of a formula at position `i` of a trace; the position is followed round the loop as often as matters."""
    n, loop = len(trace.positions), trace.loop

    def at(j):
        return j if j < n else loop + (j - loop) % (n - loop)

    symbol, parts = formula
    future = range(i, max(i, loop) + n - loop + 1)  # from any position, all others that come are among these
    match symbol:
        case "1" | "0":
            return float(symbol)
        case "!":
            return 1 - value(parts[0], trace, i)
        case "&":
            return min(value(part, trace, i) for part in parts)
        case "|":
            return max(value(part, trace, i) for part in parts)
        case ">":
            return max(1 - value(parts[0], trace, i), value(parts[1], trace, i))
        case "X":
            return value(parts[0], trace, at(i + 1))
        case "F":
            return max(value(parts[0], trace, at(j)) for j in future)
        case "G":
            return min(value(parts[0], trace, at(j)) for j in future)
        case "U":
            return max(
                min([value(parts[1], trace, at(j)), *(value(parts[0], trace, at(k)) for k in range(i, j))])
                for j in future
            )
        case "R":
            return min(
                max([value(parts[1], trace, at(j)), *(value(parts[0], trace, at(k)) for k in range(i, j))])
                for j in future
            )
    return {True: 1.0, False: 0.0, None: 0.5}[dict(trace.positions[i]).get(symbol)]


def traces(names, n_positions, values=(True, False)):
    """All traces of some length; with None among the values, propositions may be left open."""
    cubes = [
        tuple((name, chosen) for name, chosen in zip(names, letter, strict=True) if chosen is not None)
        for letter in product(values, repeat=len(names))
    ]
    for positions in product(cubes, repeat=n_positions):
        for loop in range(n_positions):
            yield Trace(positions, loop)


def unrolled(trace, times):
    """The same symbolic trace with its loop written several times."""
    return Trace(trace.positions + trace.positions[trace.loop :] * (times - 1), trace.loop)


def words(trace, names):
    """All lassos of a trace's shape that agree with it."""
    open_ = [[name for name in names if name not in dict(cube)] for cube in trace.positions]
    for letters in product(*(product((True, False), repeat=len(left)) for left in open_)):
        yield Trace(
            tuple(
                cube + tuple(zip(left, letter, strict=True))
                for cube, left, letter in zip(trace.positions, open_, letters, strict=True)
            ),
            trace.loop,
        )


def cost(trace):
    """What `find_trace` minimises, but for the order of literals."""
    bound = sum(map(len, trace.positions[trace.loop :]))
    return bound, len(trace.positions), sum(map(len, trace.positions)), len(trace.positions) - trace.loop
