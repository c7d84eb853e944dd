"""Lists, tables and labels that are text."""

from pathlib import Path


def read(path: Path) -> str:
    """The text of a file in UTF-8, with or without a byte order mark, every end of a line as a newline.

    Raises:
        ValueError: it is in another encoding.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: byte {error.start} is not UTF-8. Save the file as UTF-8 text.") from error
