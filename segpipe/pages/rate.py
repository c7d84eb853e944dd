"""The blind page: two models' maps of the same segments beside each other, without a word on who is who.

Which model is on the left is drawn for each item from a secret and its name; the key goes into comparison.json, never into the
page. An item's name is made of its two pictures, so that it changes when a model does.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from segpipe.failures.versus import Common, pair_rows
from segpipe.pages.render import render
from segpipe.ratings import CHOICES, Item

EACH = 30
"""Items of a pair of models: some ten minutes of a person's time."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One item as the page shows it: its key, the class of the segment, and the addresses (`data:`) of image and maps."""

    key: Item
    class_name: str
    image: str
    left: str
    right: str


def items(
    dataset: str, digest: str, names: tuple[str, str], maps: tuple[Common, Common], *, class_names: Sequence[str], seed: int
) -> list[Shown]:
    """The items of one pair of models, sides drawn at random, in an order that says nothing.

    Args:
        digest: of the dataset; with `seed` it is the secret that decides the sides.
        names, maps: the two models and their common segments. Segments on which neither shows evidence are left out.
    """
    found = []
    for i, j in pair_rows(maps[0].table, maps[1].table):
        row, other = maps[0].table.iloc[i], maps[1].table.iloc[j]
        if not (row["hirescam_inside"] == row["hirescam_inside"] or other["hirescam_inside"] == other["hirescam_inside"]):
            continue
        shown = {names[0]: maps[0].pictures[i][1], names[1]: maps[1].pictures[j][1]}
        first, second = sorted(names)
        item = _digest(digest, seed, "item", row["id"], row["segment"], first, shown[first], second, shown[second])[:16]
        left = first if int(_digest(digest, seed, "side", item)[:2], 16) % 2 else second
        right = second if left == first else first
        key = Item(
            item=item,
            dataset=dataset,
            a=names[0],
            b=names[1],
            a_left=left == names[0],
            id=str(row["id"]),
            segment=int(row["segment"]),
        )
        name = class_names[int(row["label"])]
        found.append(Shown(key=key, class_name=name, image=maps[0].pictures[i][0], left=shown[left], right=shown[right]))
    return sorted(found, key=lambda one: one.key.item)[:EACH]


def rate_page(shown: Sequence[Shown]) -> str:
    """The self-contained HTML text of rate.html."""
    page = _digest(*(one.key.item for one in shown))[:16]
    return render("rate.html", shown=shown, page=page, choices=CHOICES)


def _digest(*parts: object) -> str:
    return hashlib.sha256("\0".join(str(part) for part in parts).encode()).hexdigest()
