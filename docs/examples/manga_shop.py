"""What the manga shop's assistant says. Canned, by keywords: a model would stand here, and take the same two arguments.

`reply(text, context)` is all that the bots know of it. It remembers nothing by itself: what was said before comes with
the context, so any worker can answer any message.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mangacache import Context, Turn


@dataclass(frozen=True)
class Title:
    """A series on the shelf."""

    name: str
    volumes: int
    price: str
    stock: int
    like: str


SHELF = {
    "berserk": Title("Berserk", 42, "14.99", 7, "Vagabond"),
    "vagabond": Title("Vagabond", 37, "13.99", 3, "Berserk"),
    "yotsuba": Title("Yotsuba&!", 15, "12.99", 12, "A Silent Voice"),
    "silent voice": Title("A Silent Voice", 7, "11.99", 0, "Yotsuba&!"),
}
INTENTS = {
    "greeting": ("hello", "hi", "good morning"),
    "price": ("price", "cost", "how much"),
    "stock": ("stock", "available", "have"),
    "suggestion": ("recommend", "suggest", "similar", "like"),
    "order": ("order", "parcel", "delivery"),
    "thanks": ("thanks", "thank you", "bye"),
}


@dataclass(frozen=True)
class Reply:
    """What to say, and which title it was about."""

    text: str
    title: str | None = None


def intent_of(text: str) -> str:
    """Return what a message is about: the first intent of which it has a keyword, as a whole word."""
    lowered = text.lower()
    for intent, words in INTENTS.items():
        if any(re.search(rf"\b{word}\b", lowered) for word in words):
            return intent
    return "unknown"


def titles_in(text: str) -> list[str]:
    """Return the keys of the titles that a text names, the last named last."""
    lowered = text.lower()
    return sorted((key for key in SHELF if key in lowered), key=lowered.rindex)


def talked_about(context: Context) -> str | None:
    """Return the title that was named last: in the turns, else in the summary of what came before them."""
    for turn in reversed(context.turns):
        if titles := titles_in(turn.content):
            return titles[-1]
    titles = titles_in(context.summary.text) if context.summary is not None else []
    return titles[-1] if titles else None


def reply(text: str, context: Context) -> Reply:
    """Return the answer to a message.

    Args:
        text: what the customer says now.
        context: what was said before.
    """
    named, intent = titles_in(text), intent_of(text)
    before = talked_about(context)
    if not named and (said := _small_talk(intent, before)) is not None:
        return said
    key = named[-1] if named else before  # "how much is it?" is about what was named before
    if key is None:
        return Reply("I know Berserk, Vagabond, Yotsuba&! and A Silent Voice. Which one shall I look for?")
    return Reply(_about(SHELF[key], intent), key)


def _small_talk(intent: str, before: str | None) -> Reply | None:
    match intent:
        case "greeting" if before is not None:
            return Reply(f"Welcome back! Last time we spoke of {SHELF[before].name}. Shall we go on with it?", before)
        case "greeting":
            return Reply("Welcome to the manga shop! Ask me for a title, its price, or whether it is here.")
        case "thanks":
            return Reply("You are welcome. Happy reading!")
        case "order":
            return Reply("Parcels leave every evening. Tell me your order's number, and a colleague will look it up.")
    return None


def _about(title: Title, intent: str) -> str:
    match intent:
        case "price":
            return f"Each volume of {title.name} is {title.price}."
        case "suggestion":
            return f"Who reads {title.name} often takes {title.like} next."
    if title.stock:
        return f"{title.name} is here: {title.stock} copies, up to volume {title.volumes}."
    return f"{title.name} is sold out, and comes back on Friday."


def summary_of(turns: Iterable[Turn], before: str = "") -> str:
    """Return what was said, in short: the titles that were talked about, and what was asked.

    Args:
        turns: what was said since.
        before: the summary of what came before them.
    """
    said = [turn.content for turn in turns if turn.role == "user"]
    titles = list(dict.fromkeys(key for text in [before, *said] for key in titles_in(text)))
    asked = dict.fromkeys(intent for text in said if (intent := intent_of(text)) not in {"greeting", "unknown"})
    about = ", ".join(SHELF[key].name for key in titles) or "no title yet"
    return f"Talked about {about}; asked for {', '.join(asked) or 'nothing in particular'}."
