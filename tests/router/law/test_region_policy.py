"""The region policy: what a file must hold, who a key is, and that no law is ever broken."""

from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.router.errors import BadRequest, ConfigError, Forbidden, Unauthenticated, Unlawful
from isochrone.router.geo.locate import UNKNOWN_PLACE, Place, Source
from isochrone.router.geo.region import Point
from isochrone.router.law.region_file import Rate
from isochrone.router.law.region_policy import RegionPolicy, Ruling, region_problems
from isochrone.router.law.tenants import hash_key

REGIONS = """\
regions:
  eu-west: {location: {latitude: 53.35, longitude: -6.26}, jurisdiction: IE}
  eu-central: {location: {latitude: 50.11, longitude: 8.68}, jurisdiction: DE}
  us-east: {location: {latitude: 39.04, longitude: -77.49}, jurisdiction: US}
  us-west: {location: {latitude: 45.52, longitude: -122.68}, jurisdiction: US}
groups: {eu: [eu-west, eu-central], coasts: [eu-west, us-west]}
"""
TENANTS = """\
tenants:
  default: {require: any}
  acme: {require: [eu], keys_file: keys}
  bank: {require: any, models: [fraud], keys_file: keys}
"""
REST = """\
models:
  digits: {}
  export: {require: [US]}
data_classes:
  personal: {require: [eu-central, US], tenants: [acme, default]}
  public: {require: any, tenants: any}
rules:
- name: acme-dublin
  match: {tenant: acme}
  require: [coasts]
  prefer: {eu: 0.01, eu-west: 0.02}
- name: everyone
  prefer: {us-east: 1}
"""
KEYS = f"# made by hand\nacme {hash_key('s3cret')}\n\nbank  {hash_key('m0ney')}  # laptop\n"
EVERYWHERE = {"eu-west", "eu-central", "us-east", "us-west"}


def write(folder: Path, text: str, keys: str = KEYS) -> Path:
    path = folder / "regions.yaml"
    path.write_text(text)
    (folder / "keys").write_text(keys)
    return path


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return RegionPolicy.from_file(write(tmp_path_factory.mktemp("p"), REGIONS + TENANTS + REST))


def told(folder: Path, text: str, keys: str = KEYS) -> list[str]:
    """What is wrong with a file, without the folder's name."""
    problems = region_problems(write(folder, text, keys))
    return [str(problem).replace(f"{folder}/", "") for problem in problems]


# --- who asks


@pytest.mark.parametrize(
    ("key", "tenant"), [(None, "default"), ("s3cret", "acme"), ("m0ney", "bank")]
)
def test_a_key_is_a_tenant(policy, key, tenant):
    assert policy.tenant_of(key) == tenant


@pytest.mark.parametrize("key", ["", "S3cret", "s3cret ", hash_key("s3cret"), "k" * 5000])
def test_an_unknown_key_is_nobody_not_even_the_default_tenant(policy, key):
    with pytest.raises(Unauthenticated):
        policy.tenant_of(key)


def test_a_hashed_key_is_what_sha256sum_prints():
    assert hash_key("abc") == f"sha256:{sha256(b'abc').hexdigest()}"
    assert hash_key("abc").startswith("sha256:ba7816bf8f01cfea")


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        pytest.param("acme s3cret\n", "keys:1:1: must be TENANT sha256:HEX", id="a key in clear"),
        pytest.param(f"\n{hash_key('a')}\n", "keys:2:1: must be TENANT sha256:HEX", id="no tenant"),
        pytest.param(
            f"default {hash_key('a')}",
            "keys:1:1: must begin with a tenant that names this keys_file (acme, bank)",
            id="a tenant that does not name the file",
        ),
        pytest.param(
            f"acme {hash_key('a')}\nbank {hash_key('a')}",
            "keys:2:1: must not repeat a key of tenant acme",
            id="one key for two tenants",
        ),
    ],
)
def test_a_bad_line_of_a_keys_file_is_told_without_the_key(tmp_path, keys, expected):
    (problem,) = told(tmp_path, REGIONS + TENANTS, keys)
    assert problem.startswith(expected)
    assert "s3cret" not in problem


def test_an_absent_keys_file_is_named(tmp_path):
    (problem,) = told(tmp_path, REGIONS + TENANTS.replace("keys_file: keys}", "keys_file: no/k}"))
    assert problem == "no/k:1:1: cannot be read: No such file or directory"


# --- the law


@pytest.mark.parametrize(
    ("tenant", "model", "regions", "data_class", "required", "requirement"),
    [
        pytest.param("default", "digits", None, None, None, "any", id="no law at all"),
        pytest.param(
            "acme",
            "digits",
            None,
            None,
            {"eu-west"},
            "eu (tenant acme) and coasts (rule acme-dublin)",
            id="tenant and rule",
        ),
        pytest.param(
            "default", "export", None, None, {"us-east", "us-west"}, "US (model export)", id="model"
        ),
        pytest.param(
            "default",
            "digits",
            {"eu", "us-east"},
            None,
            {"eu-west", "eu-central", "us-east"},
            "eu or us-east (request)",
            id="the request narrows",
        ),
        pytest.param(
            "default",
            "export",
            {"US"},
            "personal",
            {"us-east", "us-west"},
            "US (model export; request) and eu-central or US (data class personal)",
            id="all that apply, each said once",
        ),
        pytest.param("default", "nobody-knows", None, "public", None, "any", id="an unknown model"),
    ],
)
def test_laws_hold_together(policy, tenant, model, regions, data_class, required, requirement):
    narrowing = None if regions is None else frozenset(regions)
    ruling = policy.rule(tenant, model, regions=narrowing, data_class=data_class)
    assert ruling.required_regions == required
    assert ruling.requirement == requirement


def test_the_first_rule_that_matches_gives_the_taste_and_the_closest_name_counts(policy):
    ruling = policy.rule("acme", "digits")
    assert ruling.rule == "acme-dublin"
    assert ruling.preferred == {"eu-west": 0.02, "eu-central": 0.01}
    assert policy.rule("default", "digits").preferred == {"us-east": 1.0}


def test_without_a_rule_there_is_no_taste(tmp_path):
    plain = RegionPolicy.from_file(write(tmp_path, REGIONS + TENANTS))
    assert plain.rule("default", "m") == Ruling("none", None, "any", {})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        pytest.param(
            {"tenant": "acme", "model": "export"},
            Unlawful,
            "no region satisfies eu .tenant acme. and US .model export. and coasts",
            id="laws that leave nothing",
        ),
        pytest.param(
            {"tenant": "acme", "model": "digits", "regions": frozenset({"us-east"})},
            Unlawful,
            "us-east .request.",
            id="a request that asks for what its law forbids",
        ),
        pytest.param(
            {"tenant": "default", "model": "digits", "regions": frozenset({"eu-wst"})},
            BadRequest,
            "did you mean eu-west",
            id="an unknown region in the request",
        ),
        pytest.param(
            {"tenant": "default", "model": "digits", "regions": frozenset({"any"})},
            BadRequest,
            "unknown region",
            id="any is no region of a request",
        ),
        pytest.param(
            {"tenant": "default", "model": "digits", "data_class": "personnel"},
            BadRequest,
            "unknown data class 'personnel'; did you mean personal",
            id="an unknown data class",
        ),
        pytest.param(
            {"tenant": "bank", "model": "fraud", "data_class": "personal"},
            Forbidden,
            "tenant bank may not set the data class personal",
            id="a data class that is not theirs",
        ),
        pytest.param(
            {"tenant": "bank", "model": "digits"},
            Forbidden,
            "tenant bank may not use this model",
            id="a model that is not theirs",
        ),
        pytest.param(
            {"tenant": "nobody", "model": "digits"},
            Unauthenticated,
            "no such tenant",
            id="an unknown tenant",
        ),
    ],
)
def test_what_is_not_lawful_is_refused(policy, arguments, error, message):
    for _ in range(2):  # a refusal is not remembered as anything else
        with pytest.raises(error, match=message):
            policy.rule(**arguments)


names = st.sampled_from(["eu-west", "eu-central", "us-east", "us-west", "eu", "coasts", "US", "DE"])
requires = st.just("any") | st.lists(names, min_size=1, max_size=3, unique=True)


@st.composite
def laws(draw):
    return {part: draw(requires) for part in ("tenant", "model", "data_class", "rule")}


def yaml_of(law) -> str:
    written = {part: "any" if one == "any" else f"[{', '.join(one)}]" for part, one in law.items()}
    return REGIONS + (
        f"tenants: {{default: {{require: {written['tenant']}}}}}\n"
        f"models: {{m: {{require: {written['model']}}}}}\n"
        f"data_classes: {{c: {{require: {written['data_class']}, tenants: any}}}}\n"
        f"rules: [{{name: r, require: {written['rule']}}}]\n"
    )


@given(law=laws(), narrowing=st.none() | st.frozensets(names, min_size=1, max_size=3))
def test_the_ruling_is_the_intersection_of_all_laws_and_narrowing_never_widens(
    tmp_path_factory, law, narrowing
):
    drawn = RegionPolicy.from_file(write(tmp_path_factory.mktemp("law"), yaml_of(law)))
    resolve = drawn.regions.resolve
    expected = set(EVERYWHERE)
    for one in law.values():
        expected &= EVERYWHERE if one == "any" else resolve(one)
    narrowed = expected if narrowing is None else expected & resolve(narrowing)
    try:
        ruling = drawn.rule("default", "m", regions=narrowing, data_class="c")
    except Unlawful:
        assert not narrowed
        return
    lawful = EVERYWHERE if ruling.required_regions is None else ruling.required_regions
    assert lawful == narrowed
    assert narrowed <= expected
    bound = narrowing is not None or any(one != "any" for one in law.values())
    assert (ruling.required_regions is not None) == bound


# --- places


def test_networks_and_proxies_of_the_file_are_used(tmp_path):
    text = (
        "networks:\n  192.0.2.0/24: {region: eu-west, country: IE}\n"
        "  192.0.2.128/25: {location: {latitude: 1, longitude: 2}}\n"
        "  2001:db8::/32: {country: FR}\n"
        "trusted_proxies: [10.0.0.0/8]\n"
    )
    locator = RegionPolicy.from_file(write(tmp_path, REGIONS + TENANTS + text)).locator
    dublin = Point(53.35, -6.26)
    assert locator.place("192.0.2.1") == Place(dublin, "IE", "eu-west", Source.NETWORKS)
    assert locator.place("192.0.2.200") == Place(Point(1, 2), None, None, Source.NETWORKS)
    assert locator.place("2001:db8::1") == Place(None, "FR", None, Source.NETWORKS)
    assert locator.place("203.0.113.1") is UNKNOWN_PLACE
    assert locator.client_address("10.1.1.1", [(b"x-forwarded-for", b"192.0.2.1")]) == "192.0.2.1"


def test_a_geoip_database_that_cannot_be_used_is_told_with_its_line(tmp_path):
    (problem,) = told(tmp_path, REGIONS + TENANTS + "geoip_database: City.mmdb\n")
    assert problem.startswith(
        "regions.yaml:11:17: geoip_database cannot be used: City.mmdb: cannot be read"
    )


# --- the file


def test_the_fingerprint_is_of_the_content(tmp_path):
    def fingerprint(text):
        return RegionPolicy.from_file(write(tmp_path, text)).fingerprint

    first = fingerprint(REGIONS + TENANTS)
    assert fingerprint(f"# a comment\n{TENANTS}\n\n{REGIONS}") == first
    assert fingerprint(REGIONS + TENANTS.replace("[eu]", "[US]")) != first
    assert len(first) == 64


def test_the_models_that_a_file_names_are_known(policy):
    assert policy.known_models == {"digits", "export", "fraud"}


def test_quotas_and_shares_are_those_of_the_file(tmp_path):
    text = REGIONS + (
        "tenants:\n  default: {require: any, quota: {requests_per_s: 0.5, burst: 2}}\n"
        "  acme: {require: [eu], weight: 2.5}\n"
    )
    drawn = RegionPolicy.from_file(write(tmp_path, text))
    assert drawn.quotas == {"default": Rate(requests_per_s=0.5, burst=2)}
    assert drawn.weights == {"default": 1.0, "acme": 2.5}


DEFAULT = "tenants: {default: {require: any}}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            REGIONS + "tenants: {a: {require: any}}\n",
            "regions.yaml:7:10: tenants.default must have an entry: callers without a key are this"
            " tenant, and its law is to be stated (require: any allows every region)",
            id="no default tenant",
        ),
        pytest.param(
            REGIONS + "tenants: {default: {}}\n",
            "regions.yaml:7:20: tenants.default.require is missing; it must be any or a list of"
            " at least 1",
            id="a default tenant without a law",
        ),
        pytest.param(
            REGIONS + "tenants: {default: {require: [eu, eu-wset]}}\n",
            "regions.yaml:7:35: tenants.default.require[1] must be a region, jurisdiction or group"
            " (eu-west, eu-central, us-east, us-west, IE, DE, US, eu, coasts), not 'eu-wset';"
            " did you mean eu-west?",
            id="an unknown region in a tenant's law",
        ),
        pytest.param(
            REGIONS + "tenants: {default: {require: any, quota: {requests_per_s: 0, burst: 1}}}\n",
            "regions.yaml:7:59: tenants.default.quota.requests_per_s must be a number in"
            " [0.001, 1000000], not 0",
            id="a quota of nothing",
        ),
        pytest.param(
            REGIONS + "tenants: {default: {require: any, quota: {requests_per_s: 5}}}\n",
            "regions.yaml:7:42: tenants.default.quota.burst is missing; it must be a whole number"
            " in [1, 1000000]",
            id="a quota without a burst",
        ),
        pytest.param(
            REGIONS + "tenants: {default: {require: any, weight: -1}}\n",
            "regions.yaml:7:43: tenants.default.weight must be a number in [0.01, 100], not -1",
            id="a share below nothing",
        ),
        pytest.param(
            REGIONS + "tenants: {default: {require: any, quotas: {}}}\n",
            "regions.yaml:7:35: tenants.default.quotas is not a key here; the keys are require,"
            " models, keys_file, quota, weight; did you mean quota?",
            id="a key that is nearly one",
        ),
        pytest.param(
            REGIONS + DEFAULT + "models: {m: {require: [FR]}}\n",
            "regions.yaml:8:24: models.m.require[0] must be a region, jurisdiction or group"
            " (eu-west, eu-central, us-east, us-west, IE, DE, US, eu, coasts), not 'FR'",
            id="an unknown jurisdiction in a model's law",
        ),
        pytest.param(
            REGIONS + DEFAULT + "data_classes: {c: {require: [eu], tenants: [nobody]}}\n",
            "regions.yaml:8:45: data_classes.c.tenants[0] must be a tenant (default), not 'nobody'",
            id="an unknown tenant of a data class",
        ),
        pytest.param(
            REGIONS + DEFAULT + "rules:\n- name: r\n  match: {tenant: [default, defualt]}\n",
            "regions.yaml:10:29: rules[0].match.tenant[1] must be a tenant (default), not"
            " 'defualt'; did you mean default?",
            id="an unknown tenant in a match",
        ),
        pytest.param(
            REGIONS + DEFAULT + "rules:\n- name: r\n  prefer: {eu-west: 0.1, mars: 1}\n",
            "regions.yaml:10:26: rules[0].prefer.mars must be a region, jurisdiction or group"
            " (eu-west, eu-central, us-east, us-west, IE, DE, US, eu, coasts), not 'mars'",
            id="an unknown region in a taste",
        ),
        pytest.param(
            REGIONS + DEFAULT + "rules:\n- name: r\n  match: {tenant: default}\n- name: r\n",
            "regions.yaml:11:9: rules[1].name must differ from that of rules[0]",
            id="two rules of one name",
        ),
        pytest.param(
            REGIONS.replace("coasts", "US") + DEFAULT,
            "regions.yaml:6:37: groups.US is taken: a group needs another name than a region,"
            " jurisdiction or 'any'",
            id="a group with the name of a jurisdiction",
        ),
        pytest.param(
            REGIONS.replace("us-west]", "us-wets]") + DEFAULT,
            "regions.yaml:6:55: groups.coasts[1] must be a region (eu-west, eu-central, us-east,"
            " us-west), not 'us-wets'; did you mean us-west?",
            id="an unknown region in a group",
        ),
        pytest.param(
            REGIONS + DEFAULT + "networks:\n  10.0.0.1/8: {country: IE}\n",
            'regions.yaml:9:3: networks["10.0.0.1/8"] must be a network such as 192.0.2.0/24 or'
            " 2001:db8::/32: 10.0.0.1/8 has host bits set",
            id="a network with host bits",
        ),
        pytest.param(
            REGIONS + DEFAULT + "networks:\n  10.0.0.0/8: {}\n",
            'regions.yaml:9:15: networks["10.0.0.0/8"] must have a region, location or country',
            id="a network that is nowhere",
        ),
        pytest.param(
            REGIONS + DEFAULT + "networks:\n  10.0.0.0/8: {country: ie}\n",
            'regions.yaml:9:25: networks["10.0.0.0/8"].country must be an ISO 3166-1 code'
            " of two capital letters or null, not 'ie'",
            id="a country in lower case",
        ),
        pytest.param(
            REGIONS + DEFAULT + "trusted_proxies: [proxy.example]\n",
            "regions.yaml:8:19: trusted_proxies[0] must be a network such as 192.0.2.0/24 or"
            " 2001:db8::/32: 'proxy.example' does not appear to be an IPv4 or IPv6 network",
            id="a proxy by name",
        ),
    ],
)
def test_what_has_no_meaning_is_told_with_its_place(tmp_path, text, expected):
    assert told(tmp_path, text) == [expected]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (DEFAULT + "rules: [{name: r, tiers: [edge]}]\n", "rules[0].tiers"),
        (DEFAULT + "rules: [{name: r, ingress: [eu]}]\n", "rules[0].ingress"),
        (DEFAULT + "rules: [{name: r, on_unknown_place: deny}]\n", "rules[0].on_unknown_place"),
        (DEFAULT + "rules: [{name: r, match: {model: m}}]\n", "rules[0].match.model"),
        (DEFAULT + "rules: [{name: r, match: {data_class: c}}]\n", "rules[0].match.data_class"),
        (
            DEFAULT + "rules: [{name: r, match: {client_country: [DE]}}]\n",
            "rules[0].match.client_country",
        ),
        (
            DEFAULT + "rules: [{name: r, match: {client_region: x}}]\n",
            "rules[0].match.client_region",
        ),
        (DEFAULT + "rules: [{name: r, match: {time_of_day: x}}]\n", "rules[0].match.time_of_day"),
    ],
)
def test_keys_for_later_versions_are_refused_not_ignored(tmp_path, text, key):
    (problem,) = region_problems(write(tmp_path, REGIONS + text))
    assert (problem.key, problem.code) == (key, "not_honoured")
    assert "is not honoured by this version" in problem.message


@pytest.mark.parametrize(
    ("rules", "reachable"),
    [
        pytest.param(["any", "default"], False, id="behind a rule for everyone"),
        pytest.param(["default", "default"], False, id="behind a rule for the same tenant"),
        pytest.param(["default", "acme", "[acme, default]"], False, id="behind several together"),
        pytest.param(["default", "[acme, default]"], True, id="one tenant is left"),
        pytest.param(["default", "any"], True, id="everyone else"),
    ],
)
def test_a_rule_that_can_never_match_is_a_problem(tmp_path, rules, reachable):
    lines = [
        f"- {{name: r{index}}}\n"
        if tenant == "any"
        else f"- {{name: r{index}, match: {{tenant: {tenant}}}}}\n"
        for index, tenant in enumerate(rules)
    ]
    text = REGIONS + TENANTS + "rules:\n" + "".join(lines)
    codes = [problem.code for problem in region_problems(write(tmp_path, text))]
    assert codes == ([] if reachable else ["unreachable"])


def test_the_error_of_an_unusable_file_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match=r"regions\.yaml:7:10: tenants\.default must have"):
        RegionPolicy.from_file(write(tmp_path, REGIONS + "tenants: {}\n"))
