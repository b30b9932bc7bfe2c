"""What is said? A row is a WAV file of 16 kHz, 16 bits, one channel, in English; the answer its words."""

import io
import math
import wave

from idunno_model_server.api import BatchModel, RowError


class Transcription(BatchModel):
    description = "the words in a WAV file of 16 kHz, in US English, by PocketSphinx"
    batch_max = 4
    row_timeout_s = 600  # about as long as the sound

    def setup(self, context):
        from pocketsphinx import Decoder

        self.decoder = Decoder(loglevel="FATAL")

    def decode(self, content):
        try:
            with wave.open(io.BytesIO(content)) as sound:
                if (sound.getframerate(), sound.getsampwidth(), sound.getnchannels()) != (16000, 2, 1):
                    raise RowError("the sound must have 16 kHz, 16 bits and one channel")
                return sound.readframes(sound.getnframes())
        except (wave.Error, EOFError):
            raise RowError("not a WAV file of PCM") from None

    def predict(self, inputs):
        return [self._words(sound) for sound in inputs]

    def _words(self, sound):
        # What it adapted to in the row before must not change this one's words.
        self.decoder.reinit_feat()
        self.decoder.start_utt()
        # In samples that are all zero it hears anything.
        if any(sound):
            self.decoder.process_raw(sound, full_utt=True)
        self.decoder.end_utt()
        heard = self.decoder.hyp()
        if heard is None:
            return {"text": "", "words": [], "score": 0.0}
        words = [
            {"word": part.word, "from_s": part.start_frame / 100, "to_s": (part.end_frame + 1) / 100}
            for part in self.decoder.seg()
            if part.word[0] not in "<["
        ]
        return {"text": heard.hypstr, "words": words, "score": round(heard.score, 6)}

    def canary(self):
        out = io.BytesIO()
        with wave.open(out, "wb") as sound:
            sound.setparams((1, 2, 16000, 0, "NONE", ""))
            tone = (round(1000 * math.sin(i / 8)) for i in range(8000))
            sound.writeframes(b"".join(value.to_bytes(2, "little", signed=True) for value in tone))
        return out.getvalue()
