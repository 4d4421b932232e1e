"""Questions on users, permissions and what this server cannot do."""

from .model import query, question


@question(
    "B61",
    "Who is an administrator on which cluster?",
    query("acl", where=[("role", "IN", ["Administrator", "PVEAdmin"])]),
)
def administrators(demo, answer):
    entries = {
        (state.name, entry.path, entry.ugid, entry.role)
        for state in demo.states.values()
        for entry in state.user_config.acl
        if entry.role in ("Administrator", "PVEAdmin")
    }
    yield answer.set("cluster", "path", "holder", "role"), entries


@question(
    "N42",
    "What may the developers group do?",
    query("acl", "path", "role", where=[("holder", "=", "developers")], cluster_name="prod"),
)
def rights_of_a_group(demo, answer):
    entries = {(e.path, e.role) for e in demo.prod.user_config.acl if e.ugid == "developers"}
    yield answer.set("path", "role"), entries


@question(
    "N43",
    "API tokens without privilege separation?",
    query("tokens", "cluster", "token", where=[("privilege_separation", "=", "false")]),
)
def full_tokens(demo, answer):
    full = {
        (state.name, f"{user.userid}!{name}")
        for state in demo.states.values()
        for user in state.user_config.users.values()
        for name, token in user.tokens.items()
        if not token.privsep
    }
    yield answer.set("cluster", "token"), full
    yield bool(full), True
