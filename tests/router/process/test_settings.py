"""Configuration files: what is accepted, and how each mistake is told."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import inspect

from isochrone.router.errors import ConfigError
from isochrone.router.process.document import (
    MAX_BYTES,
    SettingsError,
    did_you_mean,
    read_document,
    written,
)
from isochrone.router.process.settings import (
    Settings,
    load_settings,
    problems_in,
    read_settings,
    schema,
)
from isochrone.router.process.shape import differences


class Tier(StrEnum):
    EDGE = "edge"
    CLOUD = "cloud"
    FOG = "fog"


class Hedge(Settings, frozen=True, kw_only=True):
    """When to send once more."""

    after_s: Annotated[float, msgspec.Meta(ge=0.005, le=30)]
    share: Annotated[float, msgspec.Meta(gt=0)] = 0.5

    def __post_init__(self) -> None:
        if self.share > self.after_s * 1000:
            raise ValueError("share must fit after_s")


class Rule(Settings, frozen=True, kw_only=True):
    name: str
    tier: Tier = Tier.EDGE
    hedge: Hedge | None = None
    require: Literal["any"] | Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] = "any"
    slots: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 1
    on_demand: bool = False
    keys_file: Path | None = None


@dataclass(frozen=True)
class Limits:
    idle_s: float = 1.0


class Top(Settings, frozen=True, kw_only=True):
    rules: tuple[Rule, ...] = ()
    networks: dict[str, Rule] = msgspec.field(default_factory=dict)
    countries: tuple[str, ...] = ()
    limits: Limits = Limits()


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "top.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def told(folder: Path, text: str | bytes) -> list[str]:
    """What is wrong with a file, without the folder's name."""
    problems = problems_in(write(folder, text), Top)
    return [str(problem).removeprefix(f"{folder}/") for problem in problems]


def test_a_file_becomes_frozen_structs_and_its_paths_count_from_its_folder(tmp_path):
    path = write(
        tmp_path,
        "rules:\n- name: a\n  tier: cloud\n  hedge: {after_s: 1, share: 1e-3}\n"
        "  require: [x, y]\n  keys_file: keys/a\ncountries: ['no', NOR]\n",
    )
    top = load_settings(path, Top)
    rule = top.rules[0]
    assert rule.tier is Tier.CLOUD
    assert rule.hedge == Hedge(after_s=1.0, share=0.001)
    assert rule.require == ("x", "y")
    assert rule.keys_file == tmp_path / "keys" / "a"
    assert top.countries == ("no", "NOR")
    with pytest.raises(AttributeError):
        rule.name = "b"  # type: ignore[misc]  # that it cannot is what is tested


def test_an_empty_file_is_an_empty_mapping(tmp_path):
    assert load_settings(write(tmp_path, "# nothing\n"), Top) == Top()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            "rules:\n- name: a\n  hedge: {after_s: 50ms}\n",
            "top.yaml:3:20: rules[0].hedge.after_s must be a number in [0.005, 30], not '50ms'",
            id="wrong kind",
        ),
        pytest.param(
            "rules:\n- {name: a, hedge: {after_s: 31}}\n",
            "top.yaml:2:30: rules[0].hedge.after_s must be a number in [0.005, 30], not 31",
            id="out of range",
        ),
        pytest.param(
            "rules: [{name: a, hedge: {after_s: 1, share: 0}}]",
            "top.yaml:1:46: rules[0].hedge.share must be a number above 0, not 0",
            id="open range",
        ),
        pytest.param(
            "rules: [{name: a, slots: 1.5}]",
            "top.yaml:1:26: rules[0].slots must be a whole number in [1, 1000000], not 1.5",
            id="a fraction for a count",
        ),
        pytest.param(
            "rules: [{name: a, slots: 010}]",
            "top.yaml:1:26: rules[0].slots must be a whole number in [1, 1000000], not '010'",
            id="an octal number of YAML 1.1",
        ),
        pytest.param(
            "rules: [{name: a, tier: egde}]",
            "top.yaml:1:25: rules[0].tier must be one of edge, cloud, fog, not 'egde';"
            " did you mean edge?",
            id="not one of the choices",
        ),
        pytest.param(
            "rules: [{nmae: a, name: b}]",
            "top.yaml:1:10: rules[0].nmae is not a key here; the keys are name, tier, hedge,"
            " require, slots, on_demand, keys_file; did you mean name?",
            id="a typo in a key",
        ),
        pytest.param(
            "networks:\n  10.0.0.0/8:\n    tier: edge\n",
            'top.yaml:2:3: networks["10.0.0.0/8"].name is missing; it must be text',
            id="a missing key",
        ),
        pytest.param(
            "rules: [{name: 1.10}]",
            "top.yaml:1:16: rules[0].name must be text, not 1.1; put it in quotes",
            id="a number for text",
        ),
        pytest.param(
            "rules: [{name: a, require: []}]",
            "top.yaml:1:28: rules[0].require must be any or a list of at least 1, not a list of 0",
            id="an empty list",
        ),
        pytest.param(
            "rules: [{name: a, require: [b, 3]}]",
            "top.yaml:1:32: rules[0].require[1] must be text, not 3; put it in quotes",
            id="inside one of several kinds",
        ),
        pytest.param(
            "rules: [{name: a, on_demand: 'yes'}]",
            "top.yaml:1:30: rules[0].on_demand must be true or false, not 'yes'",
            id="text for a boolean",
        ),
        pytest.param(
            "rules: [{name: a, keys_file: 3}]",
            "top.yaml:1:30: rules[0].keys_file must be a path or null, not 3",
            id="a number for a path",
        ),
        pytest.param(
            "countries: [NO]",
            'top.yaml:1:13: NO is a boolean to some readers of YAML and text to others: write "NO"'
            " in quotes for text, or true or false",
            id="the Norway problem in a value",
        ),
        pytest.param(
            "on: 1",
            'top.yaml:1:1: on is a boolean to some readers of YAML and text to others: write "on"'
            " in quotes for text, or true or false",
            id="the Norway problem in a key",
        ),
        pytest.param(
            "rules: []\ncountries: []\nrules: []\n",
            "top.yaml:3:1: rules stands here twice; it is already in line 1",
            id="a duplicate key",
        ),
        pytest.param(
            "limits: {idel_s: 1}",
            "top.yaml:1:10: limits.idel_s is not a key here; the keys are idle_s;"
            " did you mean idle_s?",
            id="a typo inside a dataclass",
        ),
        pytest.param(
            "- a",
            "top.yaml:1:1: the file must be a mapping with the keys rules, networks, countries,"
            " limits, not a list of 1",
            id="no mapping at all",
        ),
        pytest.param(
            "rules: [{name: a, hedge: {after_s: 0.005, share: 9}}]",
            "top.yaml:1:26: rules[0].hedge is refused: share must fit after_s",
            id="what a struct itself refuses",
        ),
        pytest.param(
            "rules: [{name: .nan, slots: 1}]\ncountries: [1e999, .inf]\nnope: 1",
            "top.yaml:3:1: nope is not a key here; the keys are rules, networks, countries, limits",
            id="numbers that are none stay text",
        ),
    ],
)
def test_a_mistake_is_told_with_file_line_column_key_and_remedy(tmp_path, text, expected):
    assert told(tmp_path, text) == [expected]


def test_every_structural_problem_is_told_at_once(tmp_path):
    text = "rules:\n- {name: 3, tier: fgo}\n- {}\ncountries: x\n"
    assert [line.split(" ")[0] for line in told(tmp_path, text)] == [
        "top.yaml:2:10:",
        "top.yaml:2:19:",
        "top.yaml:3:3:",
        "top.yaml:4:12:",
    ]
    with pytest.raises(ConfigError) as caught:
        load_settings(tmp_path / "top.yaml", Top)
    assert len(caught.value.message.splitlines()) == 4


@pytest.mark.parametrize(
    ("text", "code"),
    [
        pytest.param("rules: [", "syntax", id="syntax"),
        pytest.param("a: !!python/object/apply:os.system [ls]", "syntax", id="a tag"),
        pytest.param("a: \x00", "syntax", id="a control character"),
        pytest.param("a: " + "[" * 5000, "syntax", id="deep nesting"),
        pytest.param("? [a, b]\n: c", "invalid_key", id="a list for a key"),
        pytest.param("--- 1\n--- 2", "syntax", id="two documents"),
        pytest.param("a: *b", "syntax", id="an unknown alias"),
        pytest.param("a: &a [*a]", "too_large", id="an alias of itself"),
        pytest.param(b"a: \xff", "encoding", id="not UTF-8"),
        pytest.param(b"#" * (MAX_BYTES + 1), "too_large", id="too many bytes"),
        pytest.param(
            "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1},' * 9}]\n" for n in range(1, 12)),
            "too_large",
            id="a billion laughs",
        ),
    ],
)
def test_what_is_no_sound_yaml_is_one_problem(tmp_path, text, code):
    problems = problems_in(write(tmp_path, text), Top)
    assert [problem.code for problem in problems] == [code]


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"nowhere\.yaml:1:1: cannot be read: No such file"):
        load_settings(tmp_path / "nowhere.yaml", Top)


def test_a_document_knows_where_its_keys_and_values_stand(tmp_path):
    text = "rules:\n  - name: a\n    hedge:\n      after_s: 1\nnetworks: {x: {name: b}}\n"
    _, document = read_settings(write(tmp_path, text), Top)
    assert document.position(("rules", 0, "name")) == (2, 11)
    assert document.position(("rules", 0, "name"), of_key=True) == (2, 5)
    assert document.position(("rules", 0, "hedge")) == (3, 5)
    assert document.position(("networks", "x", "name")) == (5, 22)
    assert document.position(("networks", "y", "name")) == (5, 11)
    assert document.position(("nothing",)) == (1, 1)


def test_an_alias_stands_for_the_same_value(tmp_path):
    text = "rules: [{name: a, require: &eu [x, y]}, {name: b, require: *eu}]"
    first, second = load_settings(write(tmp_path, text), Top).rules
    assert first.require == second.require == ("x", "y")


def test_a_key_path_is_written_as_people_write_it():
    assert written(("rules", 2, "match", "tenant")) == "rules[2].match.tenant"
    assert written(("networks", "10.0.0.0/8")) == 'networks["10.0.0.0/8"]'


def test_only_a_close_name_is_suggested():
    assert did_you_mean("eu-wst", ["us-east", "eu-west"]) == "did you mean eu-west?"
    assert did_you_mean("tokyo", ["us-east", "eu-west"]) is None


def test_the_schema_accepts_what_the_loader_accepts_and_refuses_unknown_keys(tmp_path):
    made = schema(Top, "Top file")
    jsonschema.Draft202012Validator.check_schema(made)
    validator = jsonschema.Draft202012Validator(made)
    text = "rules: [{name: a, hedge: {after_s: 1}, keys_file: x}]"
    assert validator.is_valid(read_document(write(tmp_path, text)).data)
    assert not validator.is_valid({"rules": [{"name": "a", "nope": 1}]})
    assert not validator.is_valid({"nope": 1})


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 40)
    | st.floats(-1, 40).filter(lambda number: not number.is_integer())
    | st.sampled_from(["edge", "cloud", "any", "a", "", "name", "10"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "tier", "require", "hedge", "after_s", "slots", "rules", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


class Near(Settings, frozen=True, tag_field="tier", tag="edge"):
    name: str


class Far(Settings, frozen=True, tag_field="tier", tag="cloud"):
    slots: int = 1


KINDS = [Top, Rule, Hedge, dict[str, int], tuple[int, str], Tier, Near | Far, Near | Far | None]


@given(kind=st.sampled_from(KINDS), data=PLAIN)
def test_the_shape_check_and_msgspec_agree_on_what_fits(kind, data):
    found = list(differences(inspect.type_info(kind), data))
    assert bool(found) == (_refused_by_msgspec(kind, data) is not None)


def _refused_by_msgspec(kind, data) -> str | None:
    """Why msgspec itself does not convert it, the structs' own checks included."""
    try:
        msgspec.convert(data, kind, str_keys=True)
    except msgspec.ValidationError as error:
        return str(error)
    return None
