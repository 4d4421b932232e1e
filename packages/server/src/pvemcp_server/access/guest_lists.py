"""The allow-lists of programs and files inside of guests: entries, and what fits one."""

import re
from collections.abc import Collection
from typing import Final

LONGEST_ENTRY: Final = 500
_ABSOLUTE: Final = re.compile(r"/|[A-Za-z]:\\")
_FOLDER_ENDS: Final = ("/", "\\")
# In the name of a file below a listed folder: separators of any system, alternate streams (NTFS)
_ODD: Final = re.compile(r"[/\\:]")


def wrong_entry(kind: str, entry: str) -> str:
    """Return why a text is no entry of the list `kind`; an empty text for one that is."""
    if not entry or entry != entry.strip() or not entry.isprintable():
        return f"{entry!r} is empty, or has blanks around it or invisible characters."
    if len(entry) > LONGEST_ENTRY:
        return f"an entry has at most {LONGEST_ENTRY} characters."
    if kind == "files" and not _is_plain_path(entry):
        return f"{entry!r} is no absolute path without . and .. in it."
    return ""


def may_run(programs: Collection[str], program: str) -> bool:
    """Return whether the program is listed. Only the very same text is: no pattern, no search."""
    return program in programs


def may_read(files: Collection[str], path: str) -> bool:
    """Return whether the file is listed, or below a listed folder without any way out of it."""
    return any(
        _is_below(entry, path) if entry.endswith(_FOLDER_ENDS) else entry == path for entry in files
    )


def _is_below(folder: str, path: str) -> bool:
    """Return whether the path continues the folder's own text by plain names only.

    The guest's links are not seen here: what they point to is read.
    """
    rest = path.removeprefix(folder)
    return rest != path and all(map(_is_plain_name, rest.split(folder[-1])))


def _is_plain_path(path: str) -> bool:
    match = _ABSOLUTE.match(path)
    if match is None:
        return False
    separator = match[0][-1]
    names = path[match.end() :].removesuffix(separator).split(separator)
    return names == [""] or all(map(_is_plain_name, names))


def _is_plain_name(name: str) -> bool:
    """Return whether every system takes this for one name below a folder.

    Windows drops dots and blanks at the end of a name; `.` and `..` end in a dot as well.
    """
    return (
        bool(name)
        and name.isprintable()
        and not name.endswith((".", " "))
        and not _ODD.search(name)
    )
