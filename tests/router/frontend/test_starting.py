"""A router that has just started: what it does not know yet is not unknown."""

ENROLMENT = {"renew_s": 0.6, "lease_s": 15.0}


async def ready(router) -> bool:
    status, _, _ = await router.call("GET", "/v2/health/ready")
    return bool(status == 200)


async def test_without_a_state_file_agents_have_a_renewal_interval_to_join(
    start_router, start_endpoint
):
    agent = await start_endpoint("agent")
    router = await start_router(enrolment=ENROLMENT, joined=False)
    status, body, fields = await router.infer()
    assert (status, body["code"], fields["retry-after"]) == (503, "unavailable", "1")
    assert not await ready(router)
    assert (await router.call("POST", "/isochrone/agents", agent.enrolment()))[0] == 200
    await router.settled(lambda: router.router.core.ledger.site("agent").out is None)
    assert (await router.infer())[0] == 200, "what is known is served meanwhile"
    named = await router.call("POST", "/v2/models/digits/versions/9/infer", b"x")
    assert (named[0], await ready(router)) == (503, False), "others may hold that version"
    await router.settled(lambda: bool(router.router.readiness))
    assert await ready(router)
    assert (await router.infer("nowhere"))[0] == 404


async def test_where_no_agent_may_join_the_configured_endpoints_are_all(
    start_router, start_endpoint
):
    enrolment = {"renew_s": 60.0, "lease_s": 120.0, "allowed_networks": []}
    router = await start_router(await start_endpoint("fixed"), enrolment=enrolment, joined=False)
    await router.settled(lambda: bool(router.router.readiness))
    assert (await router.infer("nowhere"))[0] == 404


async def test_with_a_state_file_its_agents_are_waited_for_and_no_longer(
    start_router, start_endpoint, tmp_path
):
    agent = await start_endpoint("agent")
    changes = {
        "enrolment": {"renew_s": 60.0, "lease_s": 120.0},
        "state_file": str(tmp_path / "state.sqlite"),
    }
    before = await start_router(**changes)
    assert (await before.call("POST", "/isochrone/agents", agent.enrolment()))[0] == 200
    after = await start_router(**changes, joined=False)
    await after.settled(lambda: bool(after.router.readiness))
    assert (await after.infer())[0] == 200
    assert (await after.infer("nowhere"))[0] == 404


async def test_an_endpoint_that_does_not_answer_does_not_keep_a_router_from_being_ready(
    start_router, start_endpoint
):
    deaf = await start_endpoint("deaf")
    deaf.deaf = True
    router = await start_router(deaf, enrolment={**ENROLMENT, "renew_s": 0.5}, joined=False)
    await router.settled(lambda: bool(router.router.readiness))
    assert router.router.core.ledger.site("deaf").out is not None
