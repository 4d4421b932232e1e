"""The help of each command: with an example, and flags without a type."""

from collections.abc import Mapping
from typing import Any, Final

from typer import Context

EXAMPLES: Final[Mapping[str, str]] = {
    "serve": "serve --port 8811",
    "run": "run --demo-if-empty",
    "status": "status",
    "bridges": "bridges",
    "doctor": "doctor --cluster lab --key laptop",
    "backup": "backup state.jsonl.gz",
    "restore": "restore state.jsonl.gz --replace",
    "claude-config": "claude-config --client cursor --api-key-file key.txt",
    "keys list": "keys list",
    "keys create": "keys create laptop --role Operator --cluster lab --expires 90d",
    "keys regenerate": "keys regenerate laptop",
    "keys change": "keys change laptop --allow-from 10.0.0.0/8",
    "keys enable": "keys enable laptop",
    "keys disable": "keys disable laptop",
    "keys remove": "keys remove laptop",
    "keys rights": "keys rights laptop",
    "keys budget": "keys budget laptop",
    "connection-rules list": "connection-rules list",
    "connection-rules add": "connection-rules add group admins --role Operator --cluster lab",
    "connection-rules remove": "connection-rules remove 3",
    "roles list": "roles list",
    "roles show": "roles show Operator",
    "roles create": "roles create web --reads --tool ChangeVmState --pool web",
    "roles change": "roles change web --new-name dmz",
    "roles remove": "roles remove web",
    "roles check": "roles check web",
    "clusters list": "clusters list",
    "clusters add": "clusters add lab --host pve1.example --host pve2.example",
    "clusters fingerprint": "clusters fingerprint pve1.example pve2.example",
    "clusters make-account": "clusters make-account --host pve1.example --password-file pw.txt",
    "clusters change": "clusters change lab --description 'Test machines' --protected",
    "clusters test": "clusters test lab",
    "clusters remove": "clusters remove lab",
    "clusters bind": "clusters bind lab reader --key laptop",
    "clusters unbind": "clusters unbind lab --key laptop",
    "clusters freezes": "clusters freezes",
    "clusters freeze": "clusters freeze lab --reason 'disk is replaced'",
    "clusters freeze-all": "clusters freeze-all --reason 'power is tested'",
    "clusters unfreeze": "clusters unfreeze lab",
    "clusters unfreeze-all": "clusters unfreeze-all",
    "clusters identities list": "clusters identities list lab",
    "clusters identities add": "clusters identities add lab reader --token-id 'mcp@pve!reader' "
    "--token-secret-file token.txt",
    "clusters identities renew": "clusters identities renew lab reader --token-id "
    "'mcp@pve!reader' --token-secret-file token.txt",
    "clusters identities default": "clusters identities default lab reader",
    "clusters identities remove": "clusters identities remove lab reader",
    "settings list": "settings list",
    "settings set": "settings set enabled=true output_format=Toon",
    "queries list": "queries list",
    "queries run": 'queries run \'{"from": "guests", "groupBy": ["node"]}\'',
    "queries save": 'queries save nodes \'{"from": "nodes", "select": ["node", "cpu"]}\'',
    "queries remove": "queries remove nodes",
    "audit list": "audit list --since 24h --outcome error",
    "audit export": "audit export --since 2026-11-01 --format csv",
    "audit verify": "audit verify",
    "audit forwarding": "audit forwarding",
    "audit calls": "audit calls",
    "audit tools": "audit tools",
    "notices list": "notices list",
    "notices dismiss": "notices dismiss 3",
    "tools list": "tools list --key laptop",
    "tools call": 'tools call ListVms \'{"cluster_name": "lab"}\' --key laptop',
    "admin list": "admin list",
    "admin add": "admin add ada --role auditor",
    "admin set-role": "admin set-role ada owner",
    "admin reset-password": "admin reset-password ada",
    "admin enable": "admin enable ada",
    "admin disable": "admin disable ada",
    "admin remove": "admin remove ada",
    "admin sessions": "admin sessions ada",
    "admin end-sessions": "admin end-sessions ada",
    "admin end-session": "admin end-session ada 4f2c91aa",
    "admin second-factors": "admin second-factors ada",
    "admin remove-second-factors": "admin remove-second-factors ada",
    "tokens scopes": "tokens scopes",
    "tokens list": "tokens list",
    "tokens create": "tokens create robot --scope keys:read --expires 90d",
    "tokens revoke": "tokens revoke robot",
    "secrets rotate": "secrets rotate",
    "secrets change-master": "secrets change-master --new-key-file new.key",
    "approvals list": "approvals list",
    "approvals approve": "approvals approve 12",
    "approvals decline": "approvals decline 12",
    "approvals webhook show": "approvals webhook show",
    "approvals webhook set": "approvals webhook set https://hooks.example/pvemcp",
    "approvals webhook test": "approvals webhook test",
    "approvals webhook remove": "approvals webhook remove",
    "connections list": "connections list",
    "connections end": "connections end 4f2c91aa",
    "connections end-all": "connections end-all --user alice@pve",
    "connections allow": "connections allow 4f2c91aa",
}


def complete_help(command: Any, path: str = "") -> None:
    """Add the example of a command to its help, and of the commands in a group.

    Typer shows `<bool>` after a flag, as if it took a value.
    """
    for name, each in getattr(command, "commands", {}).items() if path else ():
        complete_help(each, f"{path} {name}")
    for option in (*command.params, command.get_help_option(Context(command))):
        if getattr(option, "is_flag", False):
            option.metavar = ""
    if path in EXAMPLES:
        command.epilog = f"Example: pvemcp {EXAMPLES[path]}"
