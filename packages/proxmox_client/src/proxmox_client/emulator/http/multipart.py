"""Multipart forms, as used by uploads."""

import re

_NAME = re.compile(r'(?<!\w)(\w+)="([^"]*)"')


def parse_multipart(content_type: str, body: bytes) -> tuple[dict[str, str], int]:
    """Return the fields of a form and the size of its file; `filename` is the file's name."""
    boundary = content_type.partition("boundary=")[2].strip('"')
    fields, size = {}, 0
    for part in body.split(b"--" + boundary.encode())[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        content = content.removesuffix(b"\r\n")
        names = dict(_NAME.findall(head.decode("utf-8", "replace")))
        if "filename" in names:
            fields["filename"], size = names["filename"], len(content)
        elif "name" in names:
            fields[names["name"]] = content.decode("utf-8", "replace")
    return fields, size
