"""The Claude Desktop extension: its settings, and how they reach the bridge."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from pvemcp_bridge.options import OPTIONS

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def manifest(monkeypatch):
    """Give the manifest of the extension."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    spec = importlib.util.spec_from_file_location("build_mcpb", SCRIPTS / "build_mcpb.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module.manifest("pvemcp-bridge")
    sys.modules.pop("build_bridge")


def test_every_setting_becomes_a_variable_that_the_bridge_reads(manifest):
    environment = manifest["server"]["mcp_config"]["env"]
    assert environment.keys() <= {option.variable for option in OPTIONS}
    matches = [re.fullmatch(r"\$\{user_config\.(\w+)\}", value) for value in environment.values()]
    settings = [match[1] for match in matches]
    assert sorted(settings) == sorted(manifest["user_config"])


def test_the_key_is_sensitive_and_not_an_argument(manifest):
    assert manifest["user_config"]["api_key"]["sensitive"] is True
    assert manifest["server"]["mcp_config"]["args"] == []


def test_optional_settings_have_an_empty_default(manifest):
    for setting in manifest["user_config"].values():
        assert setting["required"] or setting["default"] == ""
