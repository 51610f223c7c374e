"""cloud.yaml: what it refuses, and how it travels."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import yaml

from isochrone.cloud.app import check_port, main
from isochrone.cloud.config import CloudConfig, ModelConfig, as_arguments, check, from_arguments
from isochrone.cloud.environment import for_ray
from isochrone.cloud.serve_file import IMPORT_PATH, write_serve_file
from isochrone.router.errors import ConfigError

GOOD = {"name": "here", "region": "us-east", "packages": "store", "models": [{"name": "digits"}]}

GRPC_BYTES = "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH"


def written(folder: Path, **changes) -> Path:
    path = folder / "cloud.yaml"
    path.write_text(yaml.safe_dump({**GOOD, **changes}))
    return path


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"models": []}, "models"),
        ({"models": [{"name": "a"}, {"name": "a"}]}, "a stands here twice"),
        ({"models": [{"name": "a", "replicas_min": 2}]}, "replicas_min must not be more"),
        ({"models": [{"name": "a", "target_ongoing_requests": 9}]}, "target_ongoing_requests"),
        ({"models": [{"name": "_ingress"}]}, "models[0].name"),
        ({"models": [{"name": "a", "replica_max": 2}]}, "did you mean replicas_max?"),
        ({"listen": "8000"}, "listen"),
        ({"ray": {"temp_dir": "/tmp/" + "x" * 60}}, "at most 40 characters"),
        ({"ray": {"object_store_bytes": 1}}, "ray.object_store_bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_file_is_refused_with_its_key(tmp_path, changes, told):
    with pytest.raises(ConfigError) as refused:
        check(written(tmp_path, **changes))
    assert told in refused.value.message


def test_a_configuration_travels_as_plain_data(tmp_path):
    config = check(written(tmp_path))
    plain = yaml.safe_load(yaml.safe_dump(as_arguments(config)))
    assert from_arguments(plain) == config
    assert config.packages == tmp_path / "store"


def test_the_serve_file_names_host_port_and_builder(tmp_path):
    out = tmp_path / "serve.yaml"
    write_serve_file(written(tmp_path, listen="127.0.0.1:8123"), out)
    made = yaml.safe_load(out.read_text())
    assert made["http_options"] == {"host": "127.0.0.1", "port": 8123}
    (application,) = made["applications"]
    assert application["import_path"] == IMPORT_PATH
    assert application["args"]["name"] == "here"


def test_a_port_in_use_is_told(tmp_path, listening_port):
    config = check(written(tmp_path, listen=f"127.0.0.1:{listening_port}"))
    with pytest.raises(ConfigError, match="cannot be used"):
        check_port(config)


@pytest.mark.parametrize("address", [None, "auto"], ids=["own", "joined"])
def test_a_joined_rays_own_proxy_may_listen_there_already(
    tmp_path, listening_port, make_table, monkeypatch, address
):
    make_table(tmp_path / "store", "digits")
    listen = f"127.0.0.1:{listening_port}"
    file = written(tmp_path, listen=listen, ray={"address": address, "num_cpus": 4})
    begun: list[str] = []
    monkeypatch.setattr("os.execve", lambda _program, command, _environment: begun.extend(command))
    if address is None:
        with pytest.raises(ConfigError, match="cannot be used"):
            main(file)
    else:
        main(file)
    assert ("isochrone.cloud" in begun) == (address is not None)


def test_what_goes_to_a_replica_may_be_as_long_as_a_body(tmp_path):
    made = for_ray({}, Path("/run/token"))
    with pytest.raises(ConfigError, match="body_bytes"):
        check(written(tmp_path, body_bytes=int(made[GRPC_BYTES])))
    check(written(tmp_path, body_bytes=int(made[GRPC_BYTES]) - (1 << 20)))


def test_the_environment_holds_a_path_to_our_token_and_no_other_rays():
    before = {"PATH": "/bin", "RAY_ADDRESS": "elsewhere", "RAY_AUTH_TOKEN": "theirs"}
    made = for_ray(before, Path("/run/token"))
    assert made["PATH"] == "/bin"
    assert (made["RAY_AUTH_MODE"], made["RAY_AUTH_TOKEN_PATH"]) == ("token", "/run/token")
    assert not {"RAY_ADDRESS", "RAY_AUTH_TOKEN"} & made.keys()


def test_the_environment_leads_to_another_ray_where_we_join_one():
    before = {"RAY_AUTH_TOKEN": "theirs"}
    assert for_ray(before, None).items() >= before.items()


def test_checking_a_file_imports_no_ray():
    told = "import sys; from isochrone.cloud import app, serve_file; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", told], check=False).returncode == 0


def test_a_model_config_has_usable_defaults():
    config = CloudConfig(
        name="here", region="eu", packages=Path("x"), models=(ModelConfig(name="a"),)
    )
    assert msgspec.structs.replace(config, listen="[::1]:80").host == "::1"
    assert config.port == 8000
