"""`model.yaml`: what a model takes and gives, and the files that hold its weights. Data only.

No code comes with a package: a torch variant describes its network as a list of layers.
"""

from collections.abc import Iterable
from typing import Annotated, Literal, Protocol, Self

import msgspec
from msgspec import Meta

from isochrone.router.process.settings import Settings
from isochrone.router.wire.report import Name
from isochrone.router.wire.tensor import TensorSpec

TEXT_INPUT = "text_input"
TEXT_OUTPUT = "text_output"

Engine = Literal["onnx", "torch"]
Accelerator = Literal["any", "cpu", "gpu"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]
Isolation = Literal["none", "process"]
DatatypeName = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64",
    "FP16", "BF16", "FP32", "FP64", "BYTES",
]  # fmt: skip
Digest = Annotated[
    str, Meta(pattern=r"^[0-9a-f]{64}$", description="a sha256 of 64 hexadecimal digits")
]
FileName = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*$",
        description="a file name of letters, digits, dashes, underscores and single dots",
    ),
]
"""A file of the package's own directory: no separator, no leading dot, no two dots in a row."""
Size = Annotated[int, Meta(ge=1, le=1 << 20)]
MAX_DIMENSION = 1 << 30
Dimension = Annotated[int, Meta(ge=-1, le=MAX_DIMENSION)]
MAX_TENSOR_NAME = 256
TensorName = Annotated[str, Meta(min_length=1, max_length=MAX_TENSOR_NAME)]
Metadata = Annotated[
    dict[
        Annotated[str, Meta(min_length=1, max_length=256)],
        Annotated[str, Meta(max_length=1 << 18)],
    ],
    Meta(max_length=64),
]
KEPT_SUFFIX = ".tensor"
SUFFIX = {"onnx": ".onnx", "torch": ".safetensors"}


class Declared(Settings, frozen=True):
    """A tensor of the model as callers see it; -1 stands for a variable dimension.

    A call may leave out an input that is `optional`.
    """

    name: TensorName
    datatype: DatatypeName
    shape: tuple[Dimension, ...]
    optional: bool = False

    def spec(self) -> TensorSpec:
        """The same in the words of the wire."""
        return TensorSpec(self.name, self.datatype, self.shape)

    @classmethod
    def of(cls, spec: TensorSpec) -> Self:
        """The same as it stands in a manifest.

        Raises:
            ValueError: the datatype cannot stand in one.
        """
        return msgspec.convert(
            {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}, cls
        )


class StoredFile(Protocol):
    """A file of a package, and what the manifest promises of it."""

    @property
    def file(self) -> str:
        """Its name in the package's directory."""
        ...

    @property
    def bytes(self) -> int:
        """Its size."""
        ...

    @property
    def sha256(self) -> str:
        """Its digest."""
        ...


class KeptTensor(Settings, frozen=True, kw_only=True):
    """The file with a tensor's data, as the binary extension of the protocol has them."""

    file: FileName
    bytes: Annotated[int, Meta(ge=0)]
    sha256: Digest

    def __post_init__(self) -> None:
        if not self.file.endswith(KEPT_SUFFIX):
            raise ValueError(f"file {self.file} must end in {KEPT_SUFFIX}")


class SampleTensor(Settings, frozen=True):
    """One input of a warm-up sample, row-major.

    Its elements are in `data` or in the file of `kept`; without both they are made up, the same
    every time.
    """

    name: TensorName
    shape: tuple[Annotated[int, Meta(ge=0, le=MAX_DIMENSION)], ...]
    data: tuple[bool | int | float | str, ...] | None = None
    kept: KeptTensor | None = None

    def __post_init__(self) -> None:
        if self.data is not None and self.kept is not None:
            raise ValueError(f"{self.name} has its data in two places: data and kept")


class Sample(Settings, frozen=True):
    """One request that the model must answer before it counts as warm; `real` if it was given."""

    inputs: tuple[SampleTensor, ...]
    parameters: dict[str, bool | int | float | str] = msgspec.field(default_factory=dict)
    real: bool = False


class Generate(Settings, frozen=True, kw_only=True):
    """How a graph from token ids to the next token's logits writes text.

    A token is a character, its id is its place in `alphabet`, whose first character fills a
    context that is still too short. The graph takes `ids`, INT64 [1, context], and gives `logits`,
    FP32 [1, len(alphabet)].
    """

    alphabet: Annotated[str, Meta(min_length=2, max_length=65536)]
    context: Annotated[int, Meta(ge=1, le=65536)]
    ids: TensorName = "ids"
    logits: TensorName = "logits"
    max_tokens: Annotated[int, Meta(ge=1, le=1 << 20)] = 1024
    """The most that one request may ask for."""

    def __post_init__(self) -> None:
        _check_unique(self.alphabet, "alphabet")

    def takes(self) -> tuple[TensorSpec, ...]:
        """The graph's inputs."""
        return (TensorSpec(self.ids, "INT64", (1, self.context)),)

    def gives(self) -> tuple[TensorSpec, ...]:
        """The graph's outputs."""
        return (TensorSpec(self.logits, "FP32", (1, len(self.alphabet))),)


class Conv2d(Settings, frozen=True, kw_only=True, tag_field="layer", tag="conv2d"):
    """A convolution with bias and a square kernel."""

    inputs: Size
    outputs: Size
    kernel: Annotated[int, Meta(ge=1, le=64)]
    padding: Annotated[int, Meta(ge=0, le=64)] = 0
    stride: Annotated[int, Meta(ge=1, le=64)] = 1


class Linear(Settings, frozen=True, kw_only=True, tag_field="layer", tag="linear"):
    """A fully connected layer with bias."""

    inputs: Size
    outputs: Size


class MaxPool2d(Settings, frozen=True, kw_only=True, tag_field="layer", tag="max_pool2d"):
    """The largest value of each square; squares do not overlap."""

    kernel: Annotated[int, Meta(ge=1, le=64)]


class Relu(Settings, frozen=True, tag_field="layer", tag="relu"):
    """Negative values become zero."""


class Flatten(Settings, frozen=True, tag_field="layer", tag="flatten"):
    """Every dimension after the first becomes one."""


class Softmax(Settings, frozen=True, tag_field="layer", tag="softmax"):
    """Probabilities over the last dimension."""


Layer = Conv2d | Linear | MaxPool2d | Relu | Flatten | Softmax
Architecture = tuple[Layer, ...]
"""A network without branches. Layer i keeps its weights as `i.weight` and `i.bias`."""


class KeepIf(Settings, frozen=True, kw_only=True):
    """When a variant made from another one is worth keeping; all three must hold.

    Against the variant it was made from: the share of right answers it may lose, how many times
    faster it must answer, and how many times smaller its file must be. Below 1 it may be slower,
    or larger.
    """

    accuracy_loss: Annotated[float, Meta(ge=0, le=1)] = 0.01
    speed_up: Annotated[float, Meta(ge=0, le=1000)] = 1.1
    compression: Annotated[float, Meta(ge=0, le=1000)] = 0.9


class Made(Settings, frozen=True, kw_only=True):
    """How a variant was made from another one, and what was found when it was.

    `right_share` is the share of the `items_count` items of the evaluation set that it answered
    right, `right_share_before` that of its source, and what the source had lost by its own making;
    without labels, right is what the source says. `deviation` is how far any number of its answers
    was from the source's, and those from what the source was made from.
    """

    source: str
    by: str
    right_share: Annotated[float, Meta(ge=0, le=1)]
    right_share_before: Annotated[float, Meta(ge=0, le=1)]
    deviation: Annotated[float, Meta(ge=0)]
    items_count: Annotated[int, Meta(ge=1)]
    evaluation: Literal["labels", "agreement", "made-up inputs"]


class BatchMeasured(Settings, frozen=True, kw_only=True):
    """What the verdict `batch` was found on: the most rows of a run, how many runs, and by what.

    `reason` says why rows do not share runs, or no more of them.
    """

    rows: Annotated[int, Meta(ge=1)]
    runs: Annotated[int, Meta(ge=0)]
    on: str
    reason: str = ""


class Variant(Settings, frozen=True, kw_only=True):
    """One way to run the model: an engine, a precision and a file of weights.

    `batch`: whether each row is computed as if it were alone, so that calls may share runs. Where
    it is absent, an agent finds it out when it first loads the variant.
    """

    name: Name
    engine: Engine
    precision: Precision = "fp32"
    accelerator: Accelerator = "any"
    file: FileName
    bytes: Annotated[int, Meta(ge=1)]
    sha256: Digest
    architecture: Annotated[Architecture, Meta(min_length=1)] | None = None
    made: Made | None = None
    batch: Literal["rows", "none"] | None = None
    batch_measured: BatchMeasured | None = None

    def __post_init__(self) -> None:
        suffix = SUFFIX[self.engine]
        if not self.file.endswith(suffix):
            raise ValueError(f"file {self.file} must end in {suffix} for engine {self.engine}")
        if (self.architecture is not None) != (self.engine == "torch"):
            raise ValueError("architecture belongs to engine torch, which needs one")


class Manifest(Settings, frozen=True, kw_only=True):
    """Everything that `model.yaml` says.

    Variants answer alike within `tolerance` (absolute and relative); one that was `made` from
    another may deviate by what was found then as well. A call may be sent again after a failure
    where `repeatable`. With `isolation: process` the engine runs in a process of its own: what it
    leaks is given back, and its crash is not the agent's. `metadata` is what the model's own file
    says of itself.
    """

    name: Name
    version: Name
    inputs: Annotated[tuple[Declared, ...], Meta(min_length=1)]
    outputs: Annotated[tuple[Declared, ...], Meta(min_length=1)]
    labels: tuple[str, ...] = ()
    tolerance: Annotated[float, Meta(ge=0)] = 1e-3
    repeatable: bool = True
    isolation: Isolation = "none"
    keep_if: KeepIf = KeepIf()
    generate: Generate | None = None
    metadata: Metadata = msgspec.field(default_factory=dict)
    warm_up: Annotated[tuple[Sample, ...], Meta(min_length=1)]
    variants: Annotated[tuple[Variant, ...], Meta(min_length=1)]

    def __post_init__(self) -> None:
        _check_unique((one.name for one in self.inputs), "inputs")
        _check_unique((one.name for one in self.outputs), "outputs")
        _check_unique((one.name for one in self.variants), "variants")
        _check_unique(self.labels, "labels")
        classes = self.outputs[0].shape[-1:] if self.labels else ()
        if any(size not in (-1, len(self.labels)) for size in classes):
            raise ValueError(
                f"labels: {len(self.labels)} are given, {self.outputs[0].name} has {classes[0]};"
                " give one for each class"
            )
        if self.generate is not None and not self._speaks_text():
            raise ValueError(
                f"a model with generate takes {TEXT_INPUT} and gives {TEXT_OUTPUT}, both BYTES [1]"
            )
        names = {one.name for one in self.inputs}
        needed = {one.name for one in self.inputs if not one.optional}
        for index, sample in enumerate(self.warm_up):
            if not needed <= {one.name for one in sample.inputs} <= names:
                raise ValueError(f"warm_up[{index}] must hold exactly {', '.join(sorted(names))}")

        digests: dict[str, str] = {}
        for one in self._named_files():
            if digests.setdefault(one.file, one.sha256) != one.sha256:
                raise ValueError(f"{one.file} is named twice, with different contents")

    def kept(self) -> tuple[KeptTensor, ...]:
        """The files that hold data of warm-up samples."""
        tensors = (tensor for sample in self.warm_up for tensor in sample.inputs)
        return tuple(tensor.kept for tensor in tensors if tensor.kept is not None)

    def files(self) -> tuple[StoredFile, ...]:
        """Every file of the package but the manifest itself."""
        return tuple({one.file: one for one in self._named_files()}.values())

    def _named_files(self) -> list[StoredFile]:
        """A file may be named by several."""
        return [*self.variants, *self.kept()]

    def takes(self) -> tuple[TensorSpec, ...]:
        """The inputs as callers see them."""
        return tuple(one.spec() for one in self.inputs)

    def gives(self) -> tuple[TensorSpec, ...]:
        """The outputs as callers see them."""
        return tuple(one.spec() for one in self.outputs)

    def _speaks_text(self) -> bool:
        text = (TensorSpec(TEXT_INPUT, "BYTES", (1,)),), (TensorSpec(TEXT_OUTPUT, "BYTES", (1,)),)
        return (self.takes(), self.gives()) == text


def _check_unique(values: Iterable[str], what: str) -> None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{what}: {value!r} is there twice")
        seen.add(value)
