"""Runs ONNX files with onnxruntime."""

import ctypes
import os
import re
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Executor
from mmap import mmap
from weakref import ref

import numpy as np

from isochrone.edge_agent.runtime.calls.model import DirectModel, Feed
from isochrone.edge_agent.runtime.engines import onnx_guards
from isochrone.edge_agent.runtime.engines.ort import onnxruntime as ort
from isochrone.edge_agent.runtime.engines.ort import state
from isochrone.edge_agent.runtime.engines.ort_reason import reason, remedy
from isochrone.edge_agent.runtime.memory import process_memory as memory
from isochrone.edge_agent.runtime.package.checked import checked_copy
from isochrone.edge_agent.runtime.package.fit import check_inputs, check_outputs
from isochrone.edge_agent.runtime.package.manifest import Variant
from isochrone.edge_agent.runtime.package.onnx_file import has_external_data
from isochrone.edge_agent.runtime.package.package import Package, PackageError
from isochrone.router.errors import BadRequest, Unavailable, Uncomputable
from isochrone.router.process import freed_memory
from isochrone.router.wire.tensor import Array, Tensor, TensorSpec

_DATATYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(bfloat16)": "BF16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
_REFUSALS = (
    state.Fail,
    state.InvalidArgument,
    state.InvalidGraph,
    state.InvalidProtobuf,
    state.NoModel,
    state.NoSuchFile,
    state.NotImplemented,
    state.RuntimeException,
    RuntimeError,
    ValueError,
)
"""What onnxruntime raises for files and inputs that it does not like; they share no parent."""
_OF_MEMORY_TOO = (state.Fail, state.RuntimeException, RuntimeError)
"""Those of them that it raises where memory runs out as well: its arena, and C++ itself."""
_LOADING_TIMES = 2
"""So many times its file a model takes while it is loaded."""
_LEAST_RUN_BYTES = 16 << 20
_RUN_TIMES = 8
"""A run takes so many times its inputs, at least, where no more is known of it."""
_SILENT = 4
_LARGE_BYTES = 256 << 10
_MOST_WAITING = 8
"""So many large outputs may wait for their clients before runs have the arena shrink."""
_MOST_TOLD = 3
"""Inputs that an error names."""
_BFLOAT16 = 16
"""Its number in TensorProto.DataType."""
_OPTIONAL = re.compile(r"optional\((tensor\(\w+\))\)")
_REMEDIES = {
    "seq": "take the tensors out of the sequence, and export each as an input or output of its own",
    "map": "export it with plain tensors (skl2onnx: options={'zipmap': False})",
    "sparse_tensor": "make it dense before it is given",
}


def has_gpu() -> bool:
    """onnxruntime was built for CUDA and its provider is there."""
    return "CUDAExecutionProvider" in ort.get_available_providers()


def open_session(
    data: bytes, where: str, threads: int, *, gpu: bool = False
) -> ort.InferenceSession:
    """A session on the bytes of an ONNX file that must be whole in itself.

    Raises:
        PackageError: onnxruntime cannot use it; the message begins with `where`.
        MemoryError: it does not fit.
    """
    return _session(data, data, where, threads, gpu=gpu)


def _session(
    content: bytes | mmap, source: bytes | str, where: str, threads: int, *, gpu: bool
) -> ort.InferenceSession:
    """A session on `source`, which is `content` or the path of a file that holds it."""
    try:
        if has_external_data(content):
            raise PackageError(
                f"{where}: keeps weights in other files; isochrone package build puts them inside"
            )
        wishes = ["CUDAExecutionProvider"] if gpu and has_gpu() else []
        return ort.InferenceSession(
            onnx_guards.guarded(content) or source,
            _options(threads),
            providers=[*wishes, "CPUExecutionProvider"],
            enable_fallback=0,  # it would print, and load the file a second time
        )
    except _REFUSALS as error:
        if _may_lack_memory(error, _LOADING_TIMES * len(content)):
            raise MemoryError(reason(error)) from error
        raise PackageError(
            f"{where}: onnxruntime cannot load it ({reason(error)}); {remedy(error)}"
        ) from error


def _may_lack_memory(error: Exception, needed_bytes: int) -> bool:
    """Of the codes with which it fails for want of memory, and there is too little of it.

    It has no code of its own for that: its arena fails as a wrong shape does.
    """
    return isinstance(error, _OF_MEMORY_TOO) and not memory.can_take(needed_bytes)


def declared(nodes: list[ort.NodeArg], where: str) -> list[TensorSpec]:
    """The inputs or outputs of a session as the protocol names them.

    Raises:
        PackageError: a type has no datatype in the protocol; the message begins with `where`.
    """
    specs = []
    for node in nodes:
        datatype = _DATATYPES.get(_OPTIONAL.sub(r"\1", node.type))
        if datatype is None:
            kinds = re.findall("map|seq|sparse_tensor", node.type)
            remedy = _REMEDIES.get(kinds[-1] if kinds else "", "cast it to a plain number type")
            raise PackageError(
                f"{where}: {node.name!r} is {node.type}, which the inference protocol cannot carry;"
                f" {remedy}"
            )
        shape = (size if isinstance(size, int) and size >= 0 else -1 for size in node.shape)
        specs.append(TensorSpec(node.name, datatype, tuple(shape)))
    return specs


def optional(nodes: list[ort.NodeArg]) -> frozenset[str]:
    """The names of those inputs that a graph also runs without."""
    return frozenset(node.name for node in nodes if _OPTIONAL.fullmatch(node.type))


class OnnxModel(DirectModel):
    """One ONNX variant of a package."""

    def __init__(
        self, package: Package, variant: Variant, executor: Executor, threads: int
    ) -> None:
        super().__init__(package, executor)
        self._package = package
        self._variant = variant
        self._threads = threads
        self._session: ort.InferenceSession | None = None
        self._bfloats: list[str] = []
        self._waiting: list[ref[Array]] = []
        """Large outputs, in the arena until their clients have taken them."""
        self._is_spread = False
        """Many waited: the arena has become larger than a run needs."""

    def startup(self) -> None:
        """Check the digest, read the graph, prepare it.

        Raises:
            PackageError: the file is not what the manifest promises.
        """
        where = str(self._package.file(self._variant))
        gpu = self._variant.accelerator != "cpu"
        with checked_copy(self._package, self._variant) as file:
            session = _session(file.content, file.path, where, self._threads, gpu=gpu)
        check_inputs(where, self._package.takes, declared(session.get_inputs(), where))
        check_outputs(where, self._package.gives, declared(session.get_outputs(), where))
        self._session = session
        specs = (*self._package.takes, *self._package.gives)
        self._bfloats = [spec.name for spec in specs if spec.datatype == "BF16"]

    def compute(self, feed: Feed) -> tuple[Tensor, ...]:
        """The outputs; see `DirectModel`."""
        # Only this frame refers to the session: whoever has the answer may count on its end.
        session = self._session
        if session is None:
            raise Unavailable(f"{self.name} is not loaded")
        frees = self._frees() or feed.frees
        options = _FREEING if frees else _QUIETLY
        try:
            outputs = run_session(
                session, feed.arrays, feed.outputs, self._bfloats, options, self.name
            )
        finally:
            if frees:
                freed_memory.give_back()
        self._waiting += [ref(one.data) for one in outputs if one.data.nbytes >= _LARGE_BYTES]
        return outputs

    def _frees(self) -> bool:
        """The arena is to shrink after this run: while many outputs wait, and once after."""
        if not self._waiting and not self._is_spread:
            return False
        self._waiting = [one for one in self._waiting if one() is not None]
        frees = self._is_spread or len(self._waiting) >= _MOST_WAITING
        self._is_spread = frees and bool(self._waiting)
        return frees

    def shutdown(self) -> None:
        """Release the session; a call that still runs keeps it until its end."""
        self._session = None

    def is_healthy(self) -> bool:
        """The session is there."""
        return self._session is not None


def build(package: Package, variant: Variant, executor: Executor, threads: int) -> OnnxModel:
    """A model that is not loaded yet; its calls run in `executor`, on `threads` cores each."""
    return OnnxModel(package, variant, executor, threads)


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _SILENT
    options.add_session_config_entry("session.load_model_format", "ONNX")
    # What a model of bytes keeps outside itself is looked for in this folder, else in the current
    # one; we refuse such files before, and should one slip through, nothing is in here.
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", os.devnull
    )
    # A thread that spins between calls takes the cores from the models beside it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _quietly() -> ort.RunOptions:
    options = ort.RunOptions()
    options.log_severity_level = _SILENT
    return options


def _freeing() -> ort.RunOptions:
    options = _quietly()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


_QUIETLY, _FREEING = _quietly(), _freeing()
"""Runs only read them, so that all share them. The arena keeps what a run took, for the next one;
what the second took is given back, for a tenth to a half of a small run's time."""


def run_session(
    session: ort.InferenceSession,
    arrays: Mapping[str, Array],
    outputs: Sequence[TensorSpec],
    bfloats: Collection[str] = (),
    options: ort.RunOptions = _QUIETLY,
    name: str = "the model",
) -> tuple[Tensor, ...]:
    """The outputs for some inputs; those of both that `bfloats` names hold BF16. Blocks.

    Raises:
        Uncomputable: the graph cannot compute these inputs; the message says why.
        Unavailable: there is no memory left.
    """
    texts = {name: _texts(name, data) for name, data in arrays.items() if data.dtype == object}
    given = {**arrays, **texts} if texts else arrays
    try:
        if bfloats:
            results = _run_values(session, given, outputs, bfloats, options)
        else:
            results = session.run([spec.name for spec in outputs], given, options)
    except MemoryError as error:
        raise Unavailable("the model ran out of memory", retry_after_s=1.0) from error
    except _REFUSALS as error:
        inputs_bytes = sum(array.nbytes for array in arrays.values())
        if _may_lack_memory(error, max(_LEAST_RUN_BYTES, _RUN_TIMES * inputs_bytes)):
            raise Unavailable("the model ran out of memory", retry_after_s=1.0) from error
        why = f"{name} cannot compute these inputs: {_empty_ones(arrays)}{reason(error)}"
        raise Uncomputable(why) from error
    return tuple(
        [
            Tensor(spec.name, spec.datatype, _bytes(data) if spec.datatype == "BYTES" else data)
            for spec, data in zip(outputs, results, strict=True)
        ]
    )


def _empty_ones(arrays: Mapping[str, Array]) -> str:
    """Which inputs have a size of 0: that is what most operators refuse."""
    empty = [f"{one!r} has shape {[*data.shape]}" for one, data in arrays.items() if not data.size]
    return "".join(f"{one}; " for one in empty[:_MOST_TOLD])


def _run_values(
    session: ort.InferenceSession,
    arrays: Mapping[str, Array],
    outputs: Sequence[TensorSpec],
    bfloats: Collection[str],
    options: ort.RunOptions,
) -> list[Array]:
    """As `session.run`, which has no numpy type for BF16."""
    values = {name: _value(data, name in bfloats) for name, data in arrays.items()}
    results = session.run_with_ort_values([spec.name for spec in outputs], values, options)
    pairs = zip(outputs, results, strict=True)
    return [_bits(one) if spec.datatype == "BF16" else one.numpy() for spec, one in pairs]


def _value(data: Array, is_bfloat: bool) -> ort.OrtValue:
    data = np.ascontiguousarray(data).reshape(data.shape)
    if is_bfloat:
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(data, _BFLOAT16)
    return ort.OrtValue.ortvalue_from_numpy(data)


def _bits(value: ort.OrtValue) -> Array:
    size_bytes = value.tensor_size_in_bytes()
    raw = ctypes.string_at(value.data_ptr(), size_bytes) if size_bytes else b""
    return np.frombuffer(raw, "<u2").reshape(value.shape())


def _texts(name: str, data: Array) -> Array:
    """onnxruntime's strings are text, the protocol's are bytes."""
    try:
        texts = [element.decode() for element in data.ravel().tolist()]
    except UnicodeDecodeError:
        raise BadRequest(f"input {name!r} must be UTF-8 text") from None
    return np.array(texts, object).reshape(data.shape)


def _bytes(data: Array) -> Array:
    encoded = np.empty(data.size, object)
    encoded[:] = [str(element).encode() for element in data.ravel()]
    return encoded.reshape(data.shape)
