"""What onnxruntime says is wrong, in terms of the model and not of its own source code."""

import re

from isochrone.edge_agent.runtime.engines import onnx_guards
from isochrone.edge_agent.runtime.engines.ort import onnxruntime as ort

_MOST = 400
_PLACE = re.compile(r"\S+\.(?:cc|cpp|cu|cuh|h|hpp):\d+ ")
"""File and line of onnxruntime's source; what follows is a function's name or signature."""
_FUNCTION = re.compile(r"[^()]{0,200}?[\w>~]\(")
_PLAIN = (
    (re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : "), ""),
    (re.compile(r"Load model from \S+ failed: ?"), ""),
    (re.compile(r"Non-zero status code returned while running (\w+) node\. Name:'(.*?)' "
                r"Status Message: "), r"\1 \2: "),
    (re.compile(r"^This is an invalid model\. "), ""),
    (re.compile(r"\S*/dev/fd/\d+"), "the file"),
    (re.compile(r" Please fix either the inputs/outputs or the model\."), ""),
)  # fmt: skip
_GUARDS = dict.fromkeys(("Div", "Mod"), "its {kind} divides whole numbers by 0")
_GUARDS["STFT"] = "its {kind} gets frames of 0 samples"
"""What a guard of `onnx_guards` has refused, where that is no size."""
_TAKES = f"onnxruntime {ort.__version__} takes up to"
_KNOWN = (
    (re.compile(r"Unsupported model IR version: (\d+), max supported IR version: (\d+)"),
     r"its IR version is \1, " + _TAKES + r" \2",
     r"save it with an older onnx, or set ir_version to \2, or install a newer onnxruntime"),
    (re.compile(r"Opset (\d+) is under development.* for domain ai\.onnx is till opset (\d+)"),
     r"its opset is \1, " + _TAKES + r" \2",
     r"export it with opset_version=\2, or install a newer onnxruntime"),
    (re.compile(r"Opset (\d+) is under development.* for domain (\S+) is till opset (\d+)"),
     r"its opset of \2 is \1, " + _TAKES + r" \3",
     r"export it with target_opset={'\2': \3}, or install a newer onnxruntime"),
    (re.compile(r"Failed to construct locale with name: ?([\w.@-]+)"),
     r"an operator on texts needs the locale \1, which this machine lacks",
     r"install that locale here and on every agent (Debian: package locales, then locale-gen \1)"),
)  # fmt: skip
"""What onnxruntime says, the same in the words of the model, and the remedy."""
_AGAIN = "export it to ONNX again"


def remedy(error: Exception) -> str:
    """What to do where onnxruntime cannot load a file."""
    text = " ".join(str(error).split())
    found = ((pattern.search(text), told) for pattern, _, told in _KNOWN)
    return next((match.expand(told) for match, told in found if match is not None), _AGAIN)


def reason(error: Exception) -> str:
    """Why onnxruntime cannot load or run something, on one line, without places in its source."""
    guard = onnx_guards.refused_by(error)
    if guard is not None:
        return _GUARDS.get(guard, "a size of 0 comes to its {kind}").format(kind=guard)
    text = " ".join(str(error).split())
    for pattern, plain, _ in _KNOWN:
        found = pattern.search(text)
        if found is not None:
            return found.expand(plain)
    for pattern, plain in _PLAIN:
        text = pattern.sub(plain, text)
    while (place := _PLACE.search(text)) is not None:
        text = text[: place.start()] + _after_function(text[place.end() :])
    return text.strip(" .")[:_MOST] or "it does not say why"


def _after_function(text: str) -> str:
    """Without the name or signature of the function that a message begins with."""
    found = _FUNCTION.match(text)
    if found is None:
        return text.partition(" ")[2]
    depth = 1
    for at in range(found.end(), len(text)):
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        if not depth:
            return re.sub(r"^(?:::\S+| const\b)", "", text[at + 1 :]).lstrip()
    return text
