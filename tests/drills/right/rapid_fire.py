"""Right solutions of rapid-fire, written otherwise."""


def by_table(letters):
    """A table of all."""
    answers = dict.fromkeys("adefhj", False) | dict.fromkeys("bcgikl", True)
    return [answers[letter] for letter in letters]


def by_membership(letters):
    """A text of the true ones."""
    verdicts = []
    for letter in letters:
        verdicts.append("bcgikl".find(letter) >= 0)
    return verdicts


RIGHT = (by_table, by_membership)
