"""The arguments that the commands which make variants have in common."""

import argparse
from pathlib import Path

from isochrone.deploy.result import add_json_argument

NOT_KEPT = 3
"""The exit code where a variant was made and is not better."""
DEFAULT = "(%(default)s)"
_VERDICT = f"""
The new variant is measured against the one it was made from, side by side on this machine, and is
kept only if it is better by the package's own rule, which stands in model.yaml (here its default):

  keep_if: {{accuracy_loss: 0.01, speed_up: 1.1, compression: 0.9}}

accuracy_loss: the share of right answers that it may lose. speed_up: how many times faster it must
answer at batch 1. compression: how many times smaller its file must be (below 1: it may be larger).

A data set is an .npz file with one array per input of the model, under the input's name, items
along the first axis, and optionally `labels` (the right class of each item); or, for a model with
one input, an .npy file. Without labels, right is what the original answers. Without --evaluation,
every fifth item of --data or --calibration is held out and judged on; without any data, the
package's own warm-up samples are, where 8 or more of them were given. Else 64 made-up inputs
are, of many values and sizes: what is judged on these is kept only with --keep-unproven, unless it
is the same network in another format (export).

exit codes: 0 kept; {NOT_KEPT} not kept; 1 it could not be made; 2 usage or configuration"""


def add_arguments(parser: argparse.ArgumentParser, told: str) -> None:
    """What to make a variant of, its name, and how to judge it; `told` goes into the help."""
    parser.description = f"{parser.description}\n\n{told}"
    parser.epilog = _VERDICT
    parser.add_argument("path", type=Path, help="a package: STORE/NAME/VERSION")
    parser.add_argument(
        "--variant", metavar="NAME", help="which to make it from (the first that suits)"
    )
    parser.add_argument("--as", dest="called", metavar="NAME", help="what to call the new variant")
    parser.add_argument("--evaluation", type=Path, metavar="FILE", help="data set to judge on")
    parser.add_argument(
        "--keep-if",
        type=_rule,
        metavar="KEY=NUMBER,...",
        default={},
        help="go over the package's rule, this time only",
    )
    parser.add_argument(
        "--keep-unproven",
        action="store_true",
        help="keep it though it was judged on made-up inputs only",
    )
    add_json_argument(parser)


def add_training(parser: argparse.ArgumentParser, epochs: int, rate: float) -> None:
    """How to train."""
    parser.add_argument("--epochs", type=_whole, default=epochs, help=DEFAULT)
    parser.add_argument("--rate", type=_positive, default=rate, help="of learning (%(default)s)")
    parser.add_argument(
        "--temperature", type=_positive, default=3.0, help="softens what is taught (%(default)s)"
    )
    parser.add_argument(
        "--label-share",
        type=_share_or_all,
        default=0.1,
        help="of the loss that labels give, where there are any (%(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help=DEFAULT)


def share(text: str) -> float:
    """Between 0 and 1."""
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"must lie between 0 and 1, not {text}")
    return value


def _share_or_all(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be 0 to 1, not {text}")
    return value


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0, not {text}")
    return value


def _whole(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be 1 or more, not {text}")
    return value


def widths(text: str) -> tuple[int, ...]:
    """Whole numbers with commas between them."""
    return tuple(_whole(width) for width in text.split(","))


def _rule(text: str) -> dict[str, float]:
    pairs = (pair.partition("=") for pair in text.split(","))
    try:
        return {key.strip(): float(value) for key, _, value in pairs}
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be KEY=NUMBER,..., not {text}") from None
