"""Questions ready to be asked: what people choose in their client instead of typing it."""

from pvemcp_server.endpoint.prompts.model import Prompt, Slot, prompts
from pvemcp_server.endpoint.prompts.playbooks import PLAYBOOKS
from pvemcp_server.endpoint.prompts.questions import QUESTIONS

__all__ = ["PLAYBOOKS", "QUESTIONS", "Prompt", "Slot", "prompts"]
