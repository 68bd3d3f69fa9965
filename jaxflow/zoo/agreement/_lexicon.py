"""The words that the model `agreement` knows, by what they can do in a sentence.

Only nouns carry number. Determiners go with both numbers ("the", "my", "some"; never "a" or "these"), and verbs inside
relative clauses are in the past tense, which does not agree. So only the subject tells the number of the next verb.
"""

from typing import Literal

NounClass = Literal["person", "thing", "place"]

# The longest sentence, in words.
MAX_WORDS = 24

# Singular to plural, written out: the irregular ones would be lost in a rule.
NOUNS: dict[NounClass, dict[str, str]] = {
    "person": {
        "guard": "guards", "teacher": "teachers", "doctor": "doctors", "student": "students",
        "farmer": "farmers", "lawyer": "lawyers", "writer": "writers", "singer": "singers",
        "child": "children", "woman": "women", "man": "men", "friend": "friends",
        "neighbor": "neighbors", "nurse": "nurses", "painter": "painters", "sailor": "sailors",
        "author": "authors", "pilot": "pilots", "officer": "officers", "manager": "managers",
    },
    "thing": {
        "key": "keys", "book": "books", "letter": "letters", "picture": "pictures",
        "box": "boxes", "lamp": "lamps", "bottle": "bottles", "coat": "coats",
        "knife": "knives", "clock": "clocks", "table": "tables", "chair": "chairs",
        "cup": "cups", "coin": "coins", "map": "maps", "bicycle": "bicycles",
        "car": "cars", "gift": "gifts", "report": "reports", "toy": "toys",
    },
    "place": {
        "cabinet": "cabinets", "door": "doors", "house": "houses", "garden": "gardens",
        "window": "windows", "bridge": "bridges", "church": "churches", "library": "libraries",
        "kitchen": "kitchens", "office": "offices", "station": "stations", "tower": "towers",
        "castle": "castles", "school": "schools", "shop": "shops", "farm": "farms",
        "museum": "museums", "hotel": "hotels", "gate": "gates", "wall": "walls",
    },
}  # fmt: skip

DETERMINERS = ("the", "my", "your", "our", "their", "his", "her", "some")

PERSON_ADJECTIVES = ("old", "young", "kind", "tall", "famous", "clever", "quiet", "happy", "tired", "strange")
OBJECT_ADJECTIVES = (
    "old",
    "new",
    "small",
    "large",
    "famous",
    "beautiful",
    "dusty",
    "heavy",
    "expensive",
    "strange",
)

# What may stand between any noun and a noun of the class.
PREPOSITIONS: dict[NounClass, tuple[str, ...]] = {
    "person": ("near", "behind", "beside", "around", "of", "with", "from"),
    "thing": ("near", "behind", "beside", "around", "under", "with", "on", "above", "below"),
    "place": ("near", "behind", "beside", "around", "outside", "opposite", "by", "from", "inside", "in"),
}
# What some nouns take besides, whatever follows.
NOUN_PREPOSITIONS: dict[str, tuple[str, ...]] = {
    "key": ("to", "for"), "door": ("to",), "gate": ("to",), "bridge": ("to",), "letter": ("to", "about"),
    "map": ("of",), "picture": ("of",), "gift": ("for",), "book": ("about",), "report": ("about",),
    "box": ("for",),
}  # fmt: skip
# What starts no sentence: "of the doctor the key".
NEVER_FIRST = ("of", "with", "from")

# "the guard that admired the teacher", "the guard that the teacher admired"
PERSON_VERBS = ("admired", "met", "helped", "knew", "thanked", "saw", "visited")
# "the key that the teacher found"
OBJECT_VERBS = ("found", "bought", "cleaned", "painted", "liked", "saw", "sold")
# "the key that surprised the teacher"
FEELING_VERBS = ("surprised", "pleased", "worried", "annoyed", "impressed")
# "the key that vanished"
INTRANSITIVE_VERBS = ("vanished", "arrived", "changed", "returned", "remained")

INITIAL_ADVERBS = ("now", "today", "perhaps", "sometimes", "clearly")
FINAL_ADVERBS = ("still", "always", "often", "really", "probably", "certainly", "usually", "never")

FUNCTION_WORDS = (*DETERMINERS, "that", "who", "which", "and", ",", "'s", "'")


def _unique(*groups: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for group in groups for word in group))


NOUN_CLASS: dict[str, NounClass] = {lemma: kind for kind, forms in NOUNS.items() for lemma in forms}
LEMMAS = tuple(NOUN_CLASS)
FORMS: dict[str, tuple[str, str]] = {
    lemma: (lemma, plural) for forms in NOUNS.values() for lemma, plural in forms.items()
}

# Nouns by their lemma: "key" and "keys" are one content word.
CONTENT_WORDS = _unique(
    LEMMAS,
    PERSON_ADJECTIVES,
    OBJECT_ADJECTIVES,
    ("near", "behind", "beside", "around", "of", "outside", "opposite", "from", "inside", "by"),
    ("with", "on", "above", "below", "under", "in", "to", "for", "about"),
    PERSON_VERBS,
    OBJECT_VERBS,
    FEELING_VERBS,
    INTRANSITIVE_VERBS,
    INITIAL_ADVERBS,
    FINAL_ADVERBS,
)

# Every form the tokenizer knows.
WORDS = _unique(FUNCTION_WORDS, *FORMS.values(), CONTENT_WORDS)
