"""Document pages, rendered with Pillow's own font: a header, labelled fields, a small table; and questions on them.

Names and numbers are invented and drawn from a seeded generator.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from random import Random

from PIL import Image, ImageDraw, ImageFont

_WIDTH, _HEIGHT, _MARGIN = 720, 960, 56
_LETTERHEADS = ("Northgate Paper Mill", "Harbour Street Clinic", "Elm Valley Railway", "Lindqvist Instruments")
_KINDS = ("Invoice", "Order form", "Delivery note", "Inspection report")
_PEOPLE = ("M. Okafor", "J. Lindqvist", "R. Haddad", "T. Nakamura", "C. Moreau", "A. Petrov")
_TOWNS = ("Bergen", "Leeds", "Porto", "Graz", "Turku", "Ghent")
_ITEMS = ("Copper wire", "Filter paper", "Glass tubes", "Oak boards", "Steel bolts", "Rubber seals", "Lamp oil")
_MONTHS = ("January", "March", "April", "June", "August", "October", "November")


@dataclass(frozen=True)
class DocumentQuestion:
    """A question on a page, the accepted answers, and DocVQA's kind of question (`form`, `table/list`, `layout`)."""

    question: str
    answers: tuple[str, ...]
    kind: str


@dataclass(frozen=True)
class Document:
    """One page.

    Args:
        number: From 1.
        content: The page as PNG bytes, 720 x 960 pixels.
        questions: What is asked about it.
    """

    number: int
    content: bytes
    questions: tuple[DocumentQuestion, ...]


def render_documents(count: int, *, seed: int = 0) -> list[Document]:
    """Renders pages.

    Args:
        count: How many.
        seed: Seed of all names and numbers.

    Returns:
        The pages; the same seed (and Pillow release) gives the same bytes.
    """
    return [_render(number, Random(f"{seed}:{number}")) for number in range(1, count + 1)]


def _render(number: int, draw_from: Random) -> Document:
    letterhead, kind = draw_from.choice(_LETTERHEADS), draw_from.choice(_KINDS)
    day = f"{draw_from.choice(_MONTHS)} {draw_from.randint(1, 28)}, {draw_from.randint(1964, 1998)}"
    fields = {
        "Number": str(draw_from.randint(10_000, 99_999)),
        "Date": day,
        "Attention of": draw_from.choice(_PEOPLE),
        "Town": draw_from.choice(_TOWNS),
    }
    table = {item: draw_from.randint(2, 480) for item in draw_from.sample(_ITEMS, 4)}
    total = sum(table.values())

    page = Image.new("L", (_WIDTH, _HEIGHT), 250)
    pen = ImageDraw.Draw(page)
    title, body = ImageFont.load_default(size=40), ImageFont.load_default(size=26)
    pen.text((_MARGIN, 56), letterhead, fill=20, font=title)
    pen.text((_MARGIN, 120), kind, fill=60, font=body)
    pen.line((_MARGIN, 168, _WIDTH - _MARGIN, 168), fill=60, width=2)
    height = 204
    for label, value in fields.items():
        pen.text((_MARGIN, height), f"{label}:", fill=60, font=body)
        pen.text((280, height), value, fill=10, font=body)
        height += 48
    height += 32
    for item, quantity in [("Item", "Quantity"), *table.items(), ("Total", total)]:
        pen.text((_MARGIN, height), str(item), fill=10, font=body)
        pen.text((_WIDTH - 200, height), str(quantity), fill=10, font=body)
        height += 44
        pen.line((_MARGIN, height - 6, _WIDTH - _MARGIN, height - 6), fill=150, width=1)

    item, quantity = draw_from.choice(sorted(table.items()))
    questions = (
        DocumentQuestion("Whose letterhead is on the page?", (letterhead,), "layout"),
        DocumentQuestion(f"What is the number of the {kind.lower()}?", (fields["Number"],), "form"),
        DocumentQuestion("What is the date on the page?", (day,), "form"),
        DocumentQuestion("To whose attention is it sent?", (fields["Attention of"],), "form"),
        DocumentQuestion(f"What is the quantity of {item.lower()}?", (str(quantity),), "table/list"),
    )
    stream = BytesIO()
    page.save(stream, format="PNG")
    return Document(number, stream.getvalue(), questions)
