"""Prompts: ready-made questions that users choose in their client."""

from pvemcp_server.mcp.prompts.model import Prompt, Slot, prompts
from pvemcp_server.mcp.prompts.playbooks import PLAYBOOKS
from pvemcp_server.mcp.prompts.questions import QUESTIONS

__all__ = ["PLAYBOOKS", "QUESTIONS", "Prompt", "Slot", "prompts"]
