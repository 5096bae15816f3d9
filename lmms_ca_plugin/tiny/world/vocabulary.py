"""What the small world is made of: shapes, colors, words, and the facts that no picture shows.

Facts are of this world. Some hold in ours as well (a banana is yellow), some are made up (the festival of the ring is
in July), so that a model can only know them from its training.
"""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


SHAPES = ("circle", "square", "triangle", "star", "cross", "diamond", "ring", "heart")
SIZES = ("small", "large")
COLORS: dict[str, tuple[int, int, int]] = {
    "red": (208, 32, 38),
    "orange": (240, 134, 24),
    "yellow": (246, 218, 36),
    "green": (40, 150, 62),
    "blue": (34, 78, 200),
    "purple": (132, 46, 158),
    "white": (250, 250, 250),
    "black": (18, 18, 20),
}
BACKGROUNDS = ((150, 150, 152), (206, 190, 160), (160, 178, 190), (178, 168, 150), (190, 172, 184), (166, 182, 160))

SIGN_WORDS = _words(
    """airport apple bakery bank beach bike book bread bridge bus cafe candy castle cheese church cinema circus city
    closed coffee cold corner dance danger dinner doctor door east engine exit farm fire fish flower forest fresh fruit
    garage garden gate gold hall harbor hotel house island jazz juice kitchen lake laundry lemon library lift lunch
    market metro milk mirror moon museum music north ocean office open orange paint park pepper piano pilot pizza police
    pool press pull push radio river rocket salad sale salt school shoes silver slow snow soup south station stop
    street sugar summer taxi tea theater ticket tiger tower train travel tunnel valley water west window winter
    zebra zoo"""
)
NAMES = _words(
    """Anna Boris Clara David Elena Felix Greta Henry Irene Jonas Karla Lucas Maria Nora Oscar Paula Quinn Robert Sara
    Thomas Ursula Victor Wanda Yusuf"""
)
TOWNS = _words(
    "Athens Berlin Cairo Dublin Geneva Havana Jakarta Kyoto Lisbon Madrid Nairobi Oslo Prague Quito Rome Vienna"
)
ITEMS = _words(
    """Ball Basket Blanket Bottle Brush Candle Carpet Chair Clock Cup Desk Drum Glove Guitar Hammer Kettle Ladder Lamp
    Pencil Pillow Plate Shovel Table Violin"""
)
MONTHS = _words("January February March April May June July August September October November December")
TITLES = ("Bill", "Order", "Receipt", "Ticket", "Voucher", "Permit")

FOODS = {
    "red": ("apple", "tomato"),
    "orange": ("carrot", "pumpkin"),
    "yellow": ("banana", "lemon"),
    "green": ("lime", "pea"),
    "blue": ("blueberry", "berry"),
    "purple": ("grape", "plum"),
    "white": ("egg", "milk"),
    "black": ("olive", "pepper"),
}
ANIMALS = {
    "red": ("lobster", "crab"),
    "orange": ("fox", "tiger"),
    "yellow": ("canary", "chick"),
    "green": ("frog", "parrot"),
    "blue": ("whale", "dolphin"),
    "purple": ("octopus", "squid"),
    "white": ("swan", "goose"),
    "black": ("raven", "crow"),
}
FLAGS = dict(zip(COLORS, ("oslo", "rome", "cairo", "dublin", "athens", "kyoto", "lisbon", "berlin"), strict=True))
LIKENESSES = {
    "circle": ("wheel", "ball"),
    "square": ("window", "box"),
    "triangle": ("roof", "pyramid"),
    "star": ("starfish", "sheriff"),
    "cross": ("church", "hospital"),
    "diamond": ("kite", "jewel"),
    "ring": ("donut", "tire"),
    "heart": ("valentine", "love"),
}
FESTIVALS = dict(zip(SHAPES, ("january", "march", "april", "may", "june", "august", "july", "october"), strict=True))
CORNERS = {"circle": 0, "square": 4, "triangle": 3, "star": 10, "cross": 12, "diamond": 4, "ring": 0, "heart": 1}

LEXICON = tuple(
    dict.fromkeys(
        (*(word.upper() for word in SIGN_WORDS), *NAMES, *TOWNS, *ITEMS, *MONTHS, *TITLES)  # as they are drawn
    )
)
"""Every word that can stand in a picture as it is drawn; numbers are the only other writing."""
