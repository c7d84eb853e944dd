"""Where the files of a folder lie, in words: a pattern such as "images/{id}_image.png", or a folder such as "annotations"."""

import re

SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "trn": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""What a folder or a list may be called, and the split that it is."""
_SPLITS = "|".join(sorted(SPLIT_WORDS, key=len, reverse=True))
PLACES = {"id": "[^/]+", "group": "[^/]+?", "split": f"(?i:{_SPLITS})"}


def compile_pattern(text: str, *, option: str) -> re.Pattern[str]:
    """A regular expression for whole paths (with /, relative to any folder above) that `text` describes.

    {id}, {group} and {split} stand for a part of a name; `*` for any part of a name, `**` for any folders. Without {id}, `text` is
    a folder, and every file in or below it matches as `file`. An ending may be left out. Folders that the pattern leaves open
    are the groups `above` and `below`.

    Raises:
        ValueError: a placeholder is unknown, or there is none where one is needed; the message names the `option`.
    """
    text = text.strip().strip("/").removeprefix("./")
    pieces, used = [], set()
    for piece in re.split(r"(\{[^{}]*\}|\*\*/?|\*)", text):
        name = piece[1:-1]
        if piece.startswith("{") and name not in PLACES:
            raise ValueError(f"{option}: {text!r} holds {piece}; the placeholders are {{id}}, {{group}} and {{split}}")
        if piece.startswith("{"):
            pieces.append(f"(?P={name})" if name in used else f"(?P<{name}>{PLACES[name]})")
            used.add(name)
        elif piece.startswith("**"):
            pieces.append("(?:[^/]+/)*")
        else:
            pieces.append("[^/]*" if piece == "*" else re.escape(piece))
    end = "" if "." in text.rpartition("/")[2] else r"\.[^./]+"
    if "id" not in used:
        end = "/(?P<below>(?:[^/]+/)*)(?P<file>[^/]+)"
    return re.compile(rf"(?P<above>(?:[^/]+/)*?){''.join(pieces)}{end}")


class GroupRule:
    """Finds the group of a sample in its id, by a pattern ("{group}_*") or a regular expression with one pair of brackets.

    Raises:
        ValueError: the text is neither.
    """

    def __init__(self, text: str) -> None:
        before, found, after = text.partition("{group}")
        parts = [re.escape(part).replace(r"\*", ".*").replace(r"\{id\}", ".*") for part in (before, after)]
        try:
            self._expression = re.compile(f"{parts[0]}(.+?){parts[1]}$" if found else text)
        except re.error as error:
            raise ValueError(f"group: {text!r} is no regular expression: {error}") from error
        if self._expression.groups != 1:
            raise ValueError(f'group: {text!r}; write a pattern such as "{{group}}_*", or a regular expression with one (...)')
        self._text = text

    def __call__(self, name: str) -> str:
        """The group of the sample `name`.

        Raises:
            ValueError: the rule finds none.
        """
        match = self._expression.match(name)
        if match is None or not match[1]:
            raise ValueError(f"group: {self._text!r} finds no group in the id {name!r}; correct it, or rename the file")
        return match[1]
