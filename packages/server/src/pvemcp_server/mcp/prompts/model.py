"""The prompt with its arguments, and which prompts a caller gets."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from string import Formatter

from pvemcp_server.access.model import Caller
from pvemcp_server.errors import BadArgument, nearest
from pvemcp_server.toolkit.registry import Tool

ARGUMENT_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Slot:
    """An argument of a prompt; one without a default is required."""

    description: str
    default: str | None = None
    phrase: str = "{}"  # its form in the text, if it is not empty


# Arguments of several prompts; completion knows these names
SLOTS: Mapping[str, Slot] = {
    "cluster": Slot("Name of the cluster"),
    "node": Slot("Name of the node"),
    "vmid": Slot("Number of the guest (VMID)"),
    "storage": Slot("Name of the storage"),
    "target": Slot("Node to move to"),
}


@dataclass(frozen=True)
class Prompt:
    """A text with `{slots}`, offered to callers who may use the tools it needs."""

    name: str
    title: str
    description: str
    text: str
    tools: tuple[str, ...]
    own: Mapping[str, Slot] | None = None  # slots beside the common ones

    @property
    def slots(self) -> dict[str, Slot]:
        """The arguments, in the order of the text."""
        known = {**SLOTS, **(self.own or {})}
        names = (field for _, field, _, _ in Formatter().parse(self.text) if field)
        return {name: known[name] for name in dict.fromkeys(names)}

    def serves(self, caller: Caller, tools: Mapping[str, Tool]) -> bool:
        """Return whether the caller may use every tool it needs."""
        return all(name in tools and caller.may_call(tools[name]) for name in self.tools)

    def filled(self, arguments: Mapping[str, str]) -> str:
        """Return the text with the arguments; raise BadArgument for a missing or unknown one."""
        slots = self.slots
        for name in arguments:
            if name not in slots:
                similar = nearest(name, slots, 1)
                names = ", ".join(slots)
                hint = f"Did you mean {similar[0]}?" if similar else f"There are {names}."
                raise BadArgument(name[:100], "there is no such argument.", hint=hint)
        return self.text.format(**{n: _value(n, s, arguments) for n, s in slots.items()})


def _value(name: str, slot: Slot, arguments: Mapping[str, str]) -> str:
    value = arguments.get(name) or slot.default
    if value is None:
        raise BadArgument(name, "this argument is required.")
    text = " ".join(value.split())[:ARGUMENT_CHARACTERS]
    return slot.phrase.format(text) if text else ""


def prompts(
    known: Iterable[Prompt], caller: Caller, tools: Mapping[str, Tool]
) -> dict[str, Prompt]:
    """Return the prompts for this caller, by name."""
    return {prompt.name: prompt for prompt in known if prompt.serves(caller, tools)}
