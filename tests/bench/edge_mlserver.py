"""MLServer's runtime class for the edge benchmark: onnxruntime, opened as the agent opens it.

It runs in an environment of MLServer's own, so it imports nothing of this project.
"""

import onnxruntime as ort
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OnnxRuntime(MLModel):  # type: ignore[misc]  # it is not installed with us
    """One ONNX file with one input and one output."""

    async def load(self) -> bool:
        """Open the file that the settings name."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = self.settings.parameters.uri
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """One answer, computed on the loop: the fastest way for a model that takes so little."""
        given = NumpyCodec.decode_input(payload.inputs[0])
        (answer,) = self._session.run(None, {payload.inputs[0].name: given})
        output = NumpyCodec.encode_output("out", answer)
        return InferenceResponse(model_name=self.name, outputs=[output])
