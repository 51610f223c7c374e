"""`python -m isochrone.edge_agent CONFIG`: one agent, without the whole command line."""

import sys
from pathlib import Path

from isochrone.edge_agent.app import main
from isochrone.router.errors import ConfigError

_USAGE = 2

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m isochrone.edge_agent CONFIG")
    try:
        sys.exit(main(Path(sys.argv[1])))
    except ConfigError as error:
        print(error.message, file=sys.stderr)
        sys.exit(_USAGE)
