"""Encode rows and documents as compact text for language models, and decode it."""

from pvemcp_formats import toon
from pvemcp_formats.errors import FormatsError, Unreadable, Unwritable
from pvemcp_formats.formats import Format, decode, decode_document, encode, encode_document
from pvemcp_formats.guard import guard_formulas
from pvemcp_formats.table import drop_empty_columns, tidy, tidy_value
from pvemcp_formats.values import Scalar, Value

__all__ = [
    "Format",
    "FormatsError",
    "Scalar",
    "Unreadable",
    "Unwritable",
    "Value",
    "decode",
    "decode_document",
    "drop_empty_columns",
    "encode",
    "encode_document",
    "guard_formulas",
    "tidy",
    "tidy_value",
    "toon",
]
