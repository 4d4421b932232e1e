"""TOON, the Token-Oriented Object Notation, version 4.4: any JSON value as indented text."""

from pvemcp_formats.toon.decoder import decode
from pvemcp_formats.toon.encoder import encode, encode_table

__all__ = ["decode", "encode", "encode_table"]
