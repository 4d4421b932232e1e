"""What commands print: text of clients and of Proxmox gives a terminal no orders."""

import json
from types import SimpleNamespace

import pytest

from pvemcp_server.cli.context import print_answer, print_table, to_json

ORDERS = ["\x1b[2J", "\x9b31m", "\u202e", "\x7f", "\u2028", "\r"]


@pytest.mark.parametrize("order", ORDERS)
def test_nothing_printed_is_obeyed_by_a_terminal(order, capsys):
    text = f"name{order}"
    print_answer({"name": text}, text, as_json=False)
    print_answer({"name": text}, text, as_json=True)
    print_table([SimpleNamespace(name=text)], [("name", str)])
    for line in capsys.readouterr().out.split("\n"):
        assert line.isprintable()
    assert json.loads(to_json({"name": text})) == {"name": text}
