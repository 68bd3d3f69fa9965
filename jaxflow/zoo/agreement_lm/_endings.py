"""The words that end a sentence from its verb on; `agreement-lm` knows them besides those of `agreement`."""

from jaxflow.zoo.agreement._lexicon import NounClass

# The longest ending, in words, with the full stop.
MAX_ENDING = 7
END = "."

# Singular and plural. What may follow each pair; HAVE follows an open relative clause too.
BE, WERE, SEEM, HAVE = ("is", "are"), ("was", "were"), ("seems", "seem"), ("has", "have")
VERBS = (BE, WERE, SEEM, HAVE)
NOT = "not"

# "the guards are asleep", "the keys were lost", "the garden seems empty"
STATES: dict[NounClass, tuple[str, ...]] = {
    "person": ("asleep", "busy", "angry", "late", "proud", "nervous"),
    "thing": ("lost", "broken", "useful", "cheap", "dirty", "wet"),
    "place": ("empty", "closed", "crowded", "dark", "cold", "nearby"),
}
# "the guards have waited"
EVENTS: dict[NounClass, tuple[str, ...]] = {
    "person": ("waited", "laughed", "slept"),
    "thing": ("disappeared", "fallen", "aged"),
    "place": ("burned", "decayed", "reopened"),
}
# "the keys that the guards have hidden"
DEEDS: dict[NounClass, tuple[str, ...]] = {
    "person": ("invited", "followed", "trusted"),
    "thing": ("hidden", "used", "forgotten"),
    "place": ("entered", "left", "photographed"),
}

WORDS = tuple(
    dict.fromkeys(
        [*(form for pair in VERBS for form in pair), NOT, END]
        + [word for kinds in (STATES, EVENTS, DEEDS) for words in kinds.values() for word in words]
    )
)
