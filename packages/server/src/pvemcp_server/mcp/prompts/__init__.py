"""Questions ready to be asked: what people choose in their client instead of typing it."""

from pvemcp_server.mcp.prompts.model import Prompt, Slot, prompts
from pvemcp_server.mcp.prompts.playbooks import PLAYBOOKS
from pvemcp_server.mcp.prompts.questions import QUESTIONS

__all__ = ["PLAYBOOKS", "QUESTIONS", "Prompt", "Slot", "prompts"]
