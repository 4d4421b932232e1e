"""The demo comes and goes beside what people have configured themselves."""

import pytest

from pvemcp_server.audit.reader import AuditReader
from pvemcp_server.cli.demo import Demo
from pvemcp_server.cli.state import open_state
from pvemcp_server.config import Config

pytestmark = pytest.mark.anyio


async def test_a_cluster_of_ones_own_stays_though_the_demo_once_had_its_name(tmp_path):
    own = {"hosts": ["pve1.example"], "token_id": "mcp@pve!own", "secret": "own"}
    async with open_state(Config(state_dir=tmp_path)) as state:
        clusters = state.access.clusters
        async with Demo(state).running():
            assert await Demo(state).is_needed()
        recorded = await AuditReader(state.store).find()
        assert {(entry.tool, entry.cluster) for entry in recorded} == {
            ("admin.clusters.add", "home-lab"),
            ("admin.clusters.add", "prod"),
            ("admin.clusters.add", "backup"),
        }
        kinds = {cluster.name: cluster.kind for cluster in await clusters.all()}
        assert kinds == {"home-lab": "pve", "prod": "pve", "backup": "pbs"}
        await clusters.remove("prod")
        await clusters.create("prod", **own)
        assert not await Demo(state).is_needed()
        await Demo(state).remove_clusters()
        assert [(one.name, one.hosts) for one in await clusters.all()] == [("prod", own["hosts"])]
        (identity,) = await clusters.identities("prod")
        assert await state.store.identities.secret(identity, await clusters.get("prod")) == "own"


async def test_a_demo_cluster_led_to_a_real_one_is_a_real_one(tmp_path):
    async with open_state(Config(state_dir=tmp_path)) as state:
        async with Demo(state).running():
            pass
        own = {"default": "the-secret-of-a-real-token"}
        await state.access.clusters.change("home-lab", hosts=["pve1.example"], secrets=own)
        assert not await Demo(state).is_needed()
        await Demo(state).remove_clusters()
        assert [one.name for one in await state.access.clusters.all()] == ["home-lab"]
