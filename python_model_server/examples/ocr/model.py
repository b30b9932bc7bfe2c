"""The words in an image: a row is a file (PNG, JPEG, WebP, ...), the answer its lines from top to bottom."""

from idunno_model_server.api import BatchModel, RowError


class Ocr(BatchModel):
    description = "the text in an image, by RapidOCR (PP-OCR)"
    batch_max = 8
    row_timeout_s = 60  # a page full of text takes seconds

    def setup(self, context):
        from rapidocr import RapidOCR

        # One thread: each member reads images of its own.
        threads = {f"EngineConfig.onnxruntime.{kind}_op_num_threads": 1 for kind in ("intra", "inter")}
        # Small images are read as they are: enlarged to 736 pixels, the default, one takes seconds instead of tenths.
        size = {"Det.limit_type": "min", "Det.limit_side_len": 64}
        self.engine = RapidOCR(params={"Global.log_level": "warning", **threads, **size})

    def decode(self, content):
        import cv2
        import numpy

        image = cv2.imdecode(numpy.frombuffer(content, "u1"), cv2.IMREAD_COLOR) if len(content) else None
        if image is None:
            raise RowError("not an image that OpenCV reads")
        return image

    def predict(self, inputs):
        return [self._lines(self.engine(image)) for image in inputs]

    def _lines(self, found):
        lines = zip(found.txts or (), found.scores or (), strict=True)
        return {"lines": [{"text": text, "score": round(float(score), 3)} for text, score in lines]}

    def canary(self):
        import cv2
        import numpy

        # With a word in it, so that everything is loaded.
        image = numpy.full((64, 256, 3), 255, "u1")
        cv2.putText(image, "ready", (20, 45), cv2.FONT_HERSHEY_SIMPLEX, 1.5, (0, 0, 0), 3)
        return cv2.imencode(".png", image)[1].tobytes()
