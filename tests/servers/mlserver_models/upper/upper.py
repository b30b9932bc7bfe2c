"""A model for MLServer: a text in capitals."""

from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.errors import InferenceError
from mlserver.types import InferenceRequest, InferenceResponse


class Upper(MLModel):
    """Refuses texts that begin with `bad`."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        texts = StringCodec.decode_input(payload.inputs[0])
        if any(text.startswith("bad") for text in texts):
            raise InferenceError("a text is bad")
        output = StringCodec.encode_output("upper", [text.upper() for text in texts])
        return InferenceResponse(model_name=self.name, outputs=[output])
