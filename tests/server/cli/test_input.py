"""Files that commands read: in the encodings in which editors save them."""

import pytest

from pvemcp_server.cli.input import read_object, read_secret, read_text
from pvemcp_server.errors import BadArgument


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "ascii"])
def test_a_secret_may_be_saved_in_each_encoding_of_unicode(tmp_path, encoding):
    file = tmp_path / "secret"
    file.write_bytes("12ab-34cd\r\n".encode(encoding))
    assert read_secret(file, "--token-secret-file") == "12ab-34cd"


@pytest.mark.parametrize(
    "content", ["gehe\xefm".encode("latin-1"), b"\xff\xfe\x00", b"\x80"], ids=repr
)
def test_a_file_in_another_encoding_is_named(tmp_path, content):
    file = tmp_path / "secret"
    file.write_bytes(content)
    for read in (read_secret, read_text):
        with pytest.raises(BadArgument, match=r"--option: .*secret: it is not text in UTF-8"):
            read(file, "--option")
    with pytest.raises(BadArgument, match="it is not text in UTF-8"):
        read_object("arguments", f"@{file}", "{}")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BadArgument, match="No such file"):
        read_text(tmp_path / "none", "--ca-file")


@pytest.mark.parametrize("content", ["", "\n", "\ufeff \r\n"], ids=repr)
def test_an_empty_secret_is_named(tmp_path, content):
    file = tmp_path / "secret"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(BadArgument, match=r"--token-secret-file: .*secret is empty"):
        read_secret(file, "--token-secret-file")
