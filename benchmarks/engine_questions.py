"""Questions with known answers, made by rule: is one engine worse than another, or only faster?

Half are extraction (which of four colours, towns or animals does the text name?), half are
classification (is a short review good or bad?), each behind worked examples. The answer is
constrained to the choices, so that chance is 1/4 and 1/2.
"""

import random

import msgspec

_NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana")
_KINDS = {
    "colour": ("red", "blue", "green", "yellow", "black", "white"),
    "town": ("Lisbon", "Oslo", "Prague", "Athens", "Dublin", "Vienna"),
    "animal": ("dog", "horse", "parrot", "goat", "rabbit", "snake"),
}
_THINGS = ("a story", "a letter", "a poster", "a lesson", "a photograph", "a song")
_GOOD = ("wonderful", "excellent", "delightful", "superb", "lovely", "perfect")
_BAD = ("terrible", "awful", "boring", "broken", "disgusting", "useless")
_SUBJECTS = ("film", "soup", "hotel", "book", "phone", "concert")
_ENDS = ("I will tell all my friends", "That was my day", "It cost ten dollars", "It was Monday")


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt, the answers it allows, and the right one."""

    prompt: str
    choices: tuple[str, ...]
    answer: str


def questions(count: int, seed: int) -> list[Question]:
    """Which questions are asked? The same for the same seed."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    return [
        _extraction(chance) if number % 2 else _classification(chance) for number in range(count)
    ]


def _extraction(chance: random.Random) -> Question:
    kind = chance.choice(sorted(_KINDS))
    shots = [_fact(chance, kind) for _ in range(3)]
    fact, answer = _fact(chance, kind)
    choices = [answer, *chance.sample([v for v in _KINDS[kind] if v != answer], 3)]
    chance.shuffle(choices)
    lines = [f"Text: {text}\nThe {kind} is: {value}" for text, value in shots]
    prompt = "\n\n".join([*lines, f"Text: {fact}\nThe {kind} is:"])
    return Question(prompt=prompt, choices=tuple(choices), answer=answer)


def _fact(chance: random.Random, kind: str) -> tuple[str, str]:
    value = chance.choice(_KINDS[kind])
    name, other = chance.sample(_NAMES, 2)
    thing = chance.choice(_THINGS)
    text = {
        "colour": f"{name} painted the door {value} while {other} read {thing}.",
        "town": f"{name} moved to {value} last year, and {other} sent {thing}.",
        "animal": f"{name} has a {value} at home, and {other} made {thing} about it.",
    }[kind]
    return text, value


def _classification(chance: random.Random) -> Question:
    shots = [_review(chance, good) for good in chance.sample([True, False, True, False], 4)]
    text, answer = _review(chance, chance.random() < 0.5)
    lines = [f"Review: {review}\nVerdict: {verdict}" for review, verdict in shots]
    prompt = "\n\n".join([*lines, f"Review: {text}\nVerdict:"])
    return Question(prompt=prompt, choices=("good", "bad"), answer=answer)


def _review(chance: random.Random, good: bool) -> tuple[str, str]:
    word = chance.choice(_GOOD if good else _BAD)
    text = f"The {chance.choice(_SUBJECTS)} was {word}. {chance.choice(_ENDS)}."
    return text, "good" if good else "bad"
