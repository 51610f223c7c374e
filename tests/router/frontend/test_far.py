"""An endpoint that is far away, or whose way stands still for a moment: real relays between."""

import asyncio
from contextlib import asynccontextmanager

from isochrone.deploy.local.ports import free_ports
from isochrone.deploy.local.relay import Fault, Relay, RelaySpec

PROBE = {"interval_s": 1.0, "timeout_s": 0.45}


@asynccontextmanager
async def behind_relay(endpoint, delay_s: float):
    """The endpoint is reached through a relay from now on."""
    listen = f"127.0.0.1:{free_ports(1)[0]}"
    target = endpoint.url.removeprefix("http://")
    async with Relay(
        RelaySpec(endpoint.name, listen=listen, target=target, delay_s=delay_s)
    ) as one:
        endpoint.url = f"http://{listen}"
        yield one


async def test_a_round_trip_over_the_probes_time_out_is_no_outage(start_router, start_endpoint):
    """The only lawful endpoint is 0.6 s away: its first probes are missed, and no request is."""
    far = await start_endpoint("far")
    async with behind_relay(far, 0.3):
        router = await start_router(far, probe=PROBE, joined=False)
        async with asyncio.timeout(15):
            while router.router.core.ledger.site("far").out is not None:  # noqa: ASYNC110  # inner state
                await asyncio.sleep(0.02)
        asked = [router.infer(x_request_timeout_seconds="30") for _ in range(20)]
        answers = await asyncio.gather(*asked)
        assert [status for status, _, _ in answers] == [200] * 20
        await asyncio.sleep(3)
        assert router.router.core.ledger.site("far").out is None
        await router.router.upstreams.close()


async def test_a_way_that_stands_still_for_a_moment_costs_no_request_that_has_time(
    start_router, start_endpoint
):
    one = await start_endpoint("one")
    async with behind_relay(one, 0.01) as relay:
        router = await start_router(one, probe=PROBE, tries=1)
        asked: list[asyncio.Task] = []
        async with asyncio.TaskGroup() as tasks:
            for number in range(60):
                if number == 10:
                    await relay.fail(Fault.FREEZE)
                if number == 40:  # 1.5 s later
                    await relay.fail(Fault.NONE)
                asked.append(tasks.create_task(router.infer(x_request_timeout_seconds="28")))
                await asyncio.sleep(0.05)
        assert [task.result()[:2] for task in asked if task.result()[0] != 200] == []
        await router.router.upstreams.close()
