"""Invented names and values. Held-out names are made of words that training never sees (split by hash of the word)."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable

_ONSETS = (*"bcdfghjklmnprstvwz" * 3, *("br", "ch", "dr", "fl", "gr", "kr", "pr", "qu", "sh", "st", "th", "tr"), "")
_VOWELS = (*"aeiou" * 5, "ai", "ea", "ie", "io", "oa", "y")
_CODAS = (*("",) * 10, *"lmnrstx")
_LAST_CODAS = (*("",) * 3, *"lmnrstx", "ck", "ld", "nd", "ng", "rn", "rt", "sk", "st", "th")
_SURNAME_ENDS = ("", "", "er", "man", "son", "ov", "ski", "wick", "ley", "ard", "ini", "ez")
_PLACE_ENDS = ("", "", "burg", "ford", "holm", "mouth", "stead", "ton", "ville", "by", "dale", "haven", "field", "gard")
_PLACE_STARTS = ("", "", "", "", "Port ", "New ", "Upper ", "San ", "Mount ", "Lake ")
_COMPANY_ENDS = (
    "",
    "",
    " Systems",
    " Works",
    " Labs",
    " Group",
    " Foods",
    " Motors",
    " Bank",
    " Energy",
    " Robotics",
    " Press",
)
_THINGS = (
    "pump",
    "drill",
    "router",
    "camera",
    "kettle",
    "printer",
    "scooter",
    "lamp",
    "sensor",
    "valve",
    "engine",
    "tablet",
    "phone",
    "heater",
    "oven",
    "fan",
    "battery",
    "charger",
    "mixer",
    "radio",
    "saw",
    "tent",
    "boiler",
    "motor",
    "watch",
    "speaker",
    "keyboard",
    "compressor",
    "filter",
    "robot",
    "turbine",
    "server",
    "monitor",
    "freezer",
    "bike",
)
_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"

_CLOSED: dict[str, tuple[str, ...]] = {
    "colour": (
        "red",
        "blue",
        "green",
        "yellow",
        "black",
        "white",
        "orange",
        "purple",
        "silver",
        "brown",
        "grey",
        "pink",
        "dark blue",
        "light green",
        "deep red",
        "gold",
        "turquoise",
        "ivory",
        "bronze",
        "violet",
    ),
    "material": (
        "steel",
        "aluminium",
        "copper",
        "oak",
        "glass",
        "carbon fibre",
        "ceramic",
        "leather",
        "rubber",
        "titanium",
        "brass",
        "plastic",
        "bamboo",
        "stone",
        "cast iron",
        "wool",
        "cork",
        "nylon",
        "paper",
        "silicone",
    ),
    "job": (
        "baker",
        "carpenter",
        "dentist",
        "doctor",
        "driver",
        "engineer",
        "farmer",
        "fisherman",
        "gardener",
        "journalist",
        "judge",
        "lawyer",
        "librarian",
        "mechanic",
        "nurse",
        "painter",
        "pilot",
        "plumber",
        "poet",
        "sailor",
        "singer",
        "tailor",
        "teacher",
        "translator",
        "welder",
        "chemist",
        "architect",
        "surgeon",
        "soldier",
        "photographer",
    ),
    "language": (
        "English",
        "French",
        "German",
        "Spanish",
        "Italian",
        "Polish",
        "Finnish",
        "Greek",
        "Turkish",
        "Arabic",
        "Hindi",
        "Japanese",
        "Korean",
        "Dutch",
        "Danish",
        "Czech",
        "Swahili",
        "Welsh",
        "Basque",
        "Thai",
    ),
    "instrument": (
        "piano",
        "violin",
        "cello",
        "flute",
        "guitar",
        "trumpet",
        "drums",
        "harp",
        "oboe",
        "clarinet",
        "organ",
        "banjo",
        "accordion",
        "saxophone",
        "tuba",
        "lute",
        "mandolin",
        "horn",
    ),
    "sport": (
        "football",
        "tennis",
        "rowing",
        "chess",
        "hockey",
        "golf",
        "fencing",
        "swimming",
        "cycling",
        "boxing",
        "skiing",
        "sailing",
        "running",
        "archery",
        "rugby",
        "cricket",
        "judo",
        "climbing",
    ),
    "country": (
        "France",
        "Germany",
        "Spain",
        "Italy",
        "Poland",
        "Finland",
        "Greece",
        "Turkey",
        "Egypt",
        "India",
        "Japan",
        "Korea",
        "Canada",
        "Brazil",
        "Chile",
        "Peru",
        "Kenya",
        "Ghana",
        "Norway",
        "Sweden",
        "Ireland",
        "Austria",
        "Portugal",
        "Mexico",
        "Vietnam",
        "Iceland",
    ),
    "goods": (
        "bread",
        "cheese",
        "wine",
        "shoes",
        "glassware",
        "carpets",
        "clocks",
        "boats",
        "paper",
        "soap",
        "tea",
        "chairs",
        "bicycles",
        "tractors",
        "violins",
        "lamps",
        "hats",
        "honey",
        "olive oil",
        "pottery",
        "silk",
        "knives",
        "toys",
        "books",
        "batteries",
        "medicines",
        "bells",
        "ropes",
        "mirrors",
        "candles",
    ),
}


def is_held_out_name(word: str) -> bool:
    """One invented word in ten belongs to evaluation only."""
    return hashlib.sha256(word.lower().encode()).digest()[0] % 10 == 0


class Names:
    """Draws subjects and objects of the invented world.

    Args:
        rng: source of randomness.
        held_out: draw invented words from the held-out part (evaluation) or from the rest (training).
    """

    def __init__(self, rng: random.Random, *, held_out: bool) -> None:
        self._rng = rng
        self._held_out = held_out

    def subject(self, kind: str) -> str:
        """A name for a subject of `kind`."""
        makers: dict[str, Callable[[], str]] = {
            "product": self._product,
            "person": self._person,
            "place": self._place,
            "company": self._company,
        }
        return makers[kind]()

    def value(self, kind: str) -> str:
        """An object of answer kind `kind` (see `Relation.answer`)."""
        if kind in _CLOSED:
            return self._rng.choice(_CLOSED[kind])
        makers: dict[str, Callable[[], str]] = {
            "person": self._person,
            "place": self._place,
            "company": self._company,
            "period": self._period,
            "price": self._price,
            "weight": self._weight,
            "hours": self._hours,
            "code": self._code,
            "pressure": lambda: f"{self._rng.randint(2, 400)} bar",
            "year": lambda: str(self._rng.randint(1640, 2029)),
            "extension": lambda: str(self._rng.randint(100, 9999)),
            "count": self._count,
            "clock": self._clock,
            "phone": lambda: f"{self._rng.randint(100, 999)}-{self._rng.randint(1000, 9999)}",
        }
        return makers[kind]()

    def _syllable(self, codas: tuple[str, ...]) -> str:
        return self._rng.choice(_ONSETS) + self._rng.choice(_VOWELS) + self._rng.choice(codas)

    def _word(self, end: str = "") -> str:
        while True:
            syllables = self._rng.choice((1, 2, 2, 2, 3))
            word = "".join(self._syllable(_CODAS) for _ in range(syllables - 1)) + self._syllable(_LAST_CODAS)
            word = (word + end).capitalize()
            if 4 <= len(word) <= 12 and is_held_out_name(word) == self._held_out:
                return word

    def _person(self) -> str:
        return f"{self._word()} {self._word(self._rng.choice(_SURNAME_ENDS))}"

    def _place(self) -> str:
        return self._rng.choice(_PLACE_STARTS) + self._word(self._rng.choice(_PLACE_ENDS))

    def _company(self) -> str:
        return self._word() + self._rng.choice(_COMPANY_ENDS)

    def _product(self) -> str:
        rng, thing = self._rng, self._rng.choice(_THINGS)
        while True:
            model = rng.choice(
                (
                    f"{rng.choice(_LETTERS)}{rng.randint(1, 99)}",
                    f"{rng.choice(_LETTERS)}{rng.choice(_LETTERS)}-{rng.randint(10, 999)}",
                    f"{rng.randint(10, 9999)}",
                )
            )
            name = rng.choice(
                (
                    f"{thing} {model}",
                    f"the {self._word()} {thing}",
                    f"the {self._word()} {model}",
                    f"{self._word()} {model}",
                    f"the {model} {thing}",
                )
            )
            if is_held_out_name(name) == self._held_out:
                return name

    def _period(self) -> str:
        unit, most = self._rng.choice((("months", 72), ("days", 120), ("years", 25), ("weeks", 60)))
        return f"{self._rng.randint(2, most)} {unit}"

    def _price(self) -> str:
        return f"{self._rng.randint(2, 9999)} {self._rng.choice(('euros', 'dollars', 'pounds', 'francs'))}"

    def _weight(self) -> str:
        return f"{self._rng.randint(2, 999)} {self._rng.choice(('kilograms', 'grams', 'tons', 'pounds'))}"

    def _hours(self) -> str:
        return f"{self._rng.randint(2, 99)} {self._rng.choice(('hours', 'minutes', 'days'))}"

    def _count(self) -> str:
        return str(self._rng.choice((self._rng.randint(11, 999), self._rng.randint(1000, 99999))))

    def _clock(self) -> str:
        return f"{self._rng.randint(5, 11)}:{self._rng.choice(('00', '15', '30', '45'))}"

    def _code(self) -> str:
        rng = self._rng
        letters = "".join(rng.choice(_LETTERS) for _ in range(rng.choice((1, 2, 2, 3))))
        return rng.choice(
            (f"{letters}-{rng.randint(10, 9999)}", f"{letters}{rng.randint(10, 999)}", f"{rng.randint(1000, 9999)}")
        )
