"""Names and versions of packages as the command line gives them."""

import msgspec

from isochrone.router.errors import ConfigError
from isochrone.router.wire.report import NAME_WORDS, Name


def check_name(option: str, name: str) -> None:
    """Hold a name or a version to what a package can have.

    Raises:
        ConfigError: it is no name; the message begins with the option.
    """
    try:
        msgspec.convert(name, Name)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{option} {name}: must be {NAME_WORDS}") from error
