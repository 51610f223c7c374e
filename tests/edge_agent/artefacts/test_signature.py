"""Packages that somebody trusted has signed, and the others."""

import base64
import shutil

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from isochrone.edge_agent.artefacts import signature
from isochrone.edge_agent.artefacts.parts import trust_of
from isochrone.edge_agent.artefacts.pull import Wish
from isochrone.edge_agent.artefacts.settings import ArtefactsConfig, public_bytes
from isochrone.edge_agent.runtime.package.package import (
    MANIFEST,
    SIGNATURE,
    PackageError,
    open_package,
    packages_in,
)
from isochrone.router.errors import ConfigError
from tests.edge_agent.artefacts.conftest import config_for, pulling

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))


def trusting(*keys):
    return signature.Trust(public_bytes(signature.told(key.public_key())) for key in keys)


def sign(package, key):
    manifest = (package.path / MANIFEST).read_bytes()
    (package.path / SIGNATURE).write_bytes(signature.sign(manifest, key))


def test_a_signed_package_is_taken_by_who_trusts_one_of_its_keys(package):
    sign(package, KEY)
    assert open_package(package.path, trusting(OTHER, KEY)).digest == package.digest


def _change_manifest(package):
    path = package.path / MANIFEST
    path.write_bytes(path.read_bytes() + b"\n")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        pytest.param(lambda p: (p.path / SIGNATURE).unlink(), "is not signed", id="unsigned"),
        pytest.param(lambda p: sign(p, OTHER), "no trusted key", id="by somebody else"),
        pytest.param(_change_manifest, "no trusted key", id="one byte more"),
        pytest.param(
            lambda p: (p.path / SIGNATURE).write_text("Zm9v"), "no trusted key", id="too short"
        ),
        pytest.param(
            lambda p: (p.path / SIGNATURE).write_text("§"), "no signature", id="no base64"
        ),
    ],
)
def test_what_nobody_trusted_has_signed_is_refused(tmp_path, package, spoil, says):
    sign(package, KEY)
    good = tmp_path / "remote" / "net" / "2"
    shutil.copytree(package.path, good)
    (good / MANIFEST).write_text((good / MANIFEST).read_text().replace("'1'", "'2'"))
    sign(open_package(good), KEY)
    spoil(package)
    packages, (error,) = packages_in(tmp_path / "remote", trusting(KEY))
    assert [one.version for one in packages] == ["2"]
    assert says in error.message
    assert "isochrone package sign" in error.message


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_a_signature_holds_for_its_bytes_only(manifest, other):
    made = signature.sign(manifest, KEY)
    trusting(KEY).check("it", manifest, made)
    if other != manifest:
        with pytest.raises(PackageError):
            trusting(KEY).check("it", other, made)


async def test_with_keys_a_pull_needs_a_signature_and_no_digest(tmp_path, package, shop):
    async with pulling(tmp_path / "here", config_for(shop), trusting(KEY)) as here:
        for digest in (None, package.digest):
            with pytest.raises(PackageError, match="is not signed"):
                await here.have(Wish("net", "1", digest))
        sign(package, OTHER)
        with pytest.raises(PackageError, match="no trusted key"):
            await here.have(Wish("net", "1", package.digest))
        assert not list(here.root.iterdir()), "nothing was written"
        sign(package, KEY)
        come = await here.have(Wish("net", "1"))
        assert open_package(come.path, trusting(KEY)), "and it is taken at the next start too"


def test_keys_stand_in_the_configuration_or_in_files(tmp_path):
    texts = [signature.told(key.public_key()) for key in (KEY, OTHER)]
    (tmp_path / "keys").write_text(f"{texts[1]}\n")
    assert trust_of(ArtefactsConfig()) is None
    for config in (
        ArtefactsConfig(trusted_keys=(texts[0],)),
        ArtefactsConfig(trusted_key_files=(tmp_path / "keys",)),
    ):
        trust = trust_of(config)
        assert trust is not None
        signed = [_taken(trust, key) for key in (KEY, OTHER)]
        assert signed == ([True, False] if config.trusted_keys else [False, True])


def _taken(trust, key):
    try:
        trust.check("it", b"manifest", signature.sign(b"manifest", key))
    except PackageError:
        return False
    return True


@pytest.mark.parametrize("text", ["", "abc", base64.b64encode(b"short").decode(), "§"])
def test_what_is_no_key_is_told(tmp_path, text):
    with pytest.raises(ValueError, match=r"base64|32"):
        ArtefactsConfig(trusted_keys=(text,))
    (tmp_path / "keys").write_text(text)
    with pytest.raises(ConfigError, match="keys"):
        trust_of(ArtefactsConfig(trusted_key_files=(tmp_path / "keys",)))
