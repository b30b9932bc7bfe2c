"""When does somebody speak? A row is a WAV file of 16 kHz, 16 bits, one channel; the answer the stretches of speech."""

import io
import wave

from idunno_model_server.api import BatchModel, Parameter, RowError

RATE, FRAME, CONTEXT = 16000, 512, 64


class SpeechActivity(BatchModel):
    description = "when somebody speaks in a WAV file of 16 kHz, by silero-vad"
    batch_max = 16
    parameters = {"threshold": Parameter(0.5, "from which probability on it is speech", low=0.0, high=1.0)}

    def setup(self, context):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.net = onnxruntime.InferenceSession(context.folder / "silero_vad.onnx", options)

    def decode(self, content):
        import numpy

        try:
            with wave.open(io.BytesIO(content)) as sound:
                if (sound.getframerate(), sound.getsampwidth(), sound.getnchannels()) != (RATE, 2, 1):
                    raise RowError("the sound must have 16 kHz, 16 bits and one channel")
                return numpy.frombuffer(sound.readframes(sound.getnframes()), "<i2").astype("f4") / 32768
        except (wave.Error, EOFError):
            raise RowError("not a WAV file of PCM") from None

    def predict(self, inputs):
        return [self._stretches(sound) for sound in inputs]

    def _stretches(self, sound):
        import numpy

        # Frames of 32 ms, each behind the end of the one before it.
        frames = numpy.zeros((max(1, -(-len(sound) // FRAME)), FRAME), "f4")
        frames.reshape(-1)[: len(sound)] = sound
        before = numpy.vstack([numpy.zeros((1, CONTEXT), "f4"), frames[:-1, -CONTEXT:]])
        start = numpy.zeros((1, 1, 128), "f4")
        given = {"input": numpy.hstack([before, frames]), "h": start, "c": start}
        speech = self.net.run(["speech_probs"], given)[0].reshape(-1)
        edges = numpy.flatnonzero(numpy.diff(speech >= self.options["threshold"], prepend=False, append=False))
        seconds = (edges * FRAME / RATE).round(3).tolist()
        stretches = [{"from_s": a, "to_s": b} for a, b in zip(seconds[::2], seconds[1::2], strict=True)]
        return {"speech": stretches, "highest": round(float(speech.max()), 3)}

    def canary(self):
        out = io.BytesIO()
        with wave.open(out, "wb") as sound:
            sound.setparams((1, 2, RATE, 0, "NONE", ""))
            sound.writeframes(bytes(RATE))
        return out.getvalue()
