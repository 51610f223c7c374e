"""Scenario files: what they may say, what is refused with its line, and what load 1.0 means."""

import pytest

from isochrone.router.process.document import SettingsError
from isochrone.router.process.settings import load_settings
from isochrone.router.simulate.scenario import Scenario

SMALL = """\
places:
  Rome: {latitude: 41.9, longitude: 12.5}
  Oslo: {latitude: 59.9, longitude: 10.8}
groups: {eu: [south]}
routers:
- {name: r, city: Rome, region: south}
endpoints:
- {name: a, city: Rome, region: south, slots: 3, service: {mean_s: 0.1}}
- {name: b, city: Oslo, region: north, slots: 1, service: {mean_s: 0.5}}
"""


def loaded(tmp_path, text):
    path = tmp_path / "scenario.yaml"
    path.write_text(text)
    return load_settings(path, Scenario)


def test_load_one_is_every_slot_busy_with_its_own_mean_service(tmp_path):
    assert loaded(tmp_path, SMALL).capacity_per_s == pytest.approx(3 / 0.1 + 1 / 0.5)


def test_a_law_is_the_regions_of_its_groups(tmp_path):
    scenario = loaded(tmp_path, SMALL)
    assert scenario.lawful("any") is None
    assert scenario.lawful(("eu", "north")) == {"south", "north"}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("speed: 3", ":10:1: speed is not a key here"),
        ("warmup_s: 60", "warmup_s must be less than the 60 seconds"),
        ("tenants: [{name: t, require: [mars]}]", "mars is not a region or group"),
        ("tenants: [{name: t, clients: [mars]}]", "mars is not a region or group"),
        ("tenants: [{name: t}, {name: t}]", "tenants: t stands here twice"),
        ("faults: [{kind: kill, where: [c], at_s: 1}]", "c is not an endpoint"),
        ("faults: [{kind: region_loss, where: [a], at_s: 1}]", "a is not a region"),
        ("faults: [{kind: slow, where: [a], at_s: 1}]", "factor says how much slower"),
        ("faults: [{kind: kill, where: [a], at_s: 1, factor: 2}]", "factor says how much slower"),
        ("faults: [{kind: melt, where: [a], at_s: 1}]", "melt"),
        ("objective_s: 400ms", ":10:14: objective_s must be a number"),
        ("arrivals: {process: trance}", "did you mean trace?"),
    ],
)
def test_what_is_wrong_is_refused_and_named(tmp_path, line, told):
    with pytest.raises(SettingsError, match=r"scenario\.yaml:\d+") as refused:
        loaded(tmp_path, SMALL + line + "\n")
    assert told in str(refused.value)


def test_a_law_that_no_endpoint_can_keep_is_refused(tmp_path):
    text = SMALL.replace("groups:", "tenants: [{name: t, require: [west]}]\ngroups:")
    text = text.replace("city: Rome, region: south}\nend", "city: Rome, region: west}\nend")
    with pytest.raises(SettingsError, match="no endpoint stands where its law allows"):
        loaded(tmp_path, text)


def test_a_city_must_stand_under_places(tmp_path):
    with pytest.raises(SettingsError, match="city Roma does not stand under places"):
        loaded(tmp_path, SMALL.replace("name: r, city: Rome", "name: r, city: Roma"))
