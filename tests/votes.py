"""Short notation for annotators' answers."""


def votes(text: str) -> list[str]:
    """Spells out `"yes:8 no:2"`; an underscore stands for a space, a lone colon for the blank answer."""
    answers: list[str] = []
    for part in text.split():
        answer, count = part.rsplit(":", 1)
        answers += [answer.replace("_", " ")] * int(count)
    return answers
