"""The design that most projects of this field ship, as a server of its own: FastAPI, torch, every text padded to 128 tokens, one post at a time inside the event loop. `python -m bench.serve_reference models/<task> PORT`

It runs the same weights with the same preprocessing, in inference mode, on all cores, and answers only the prediction: nothing is added that would slow it down."""
import sys
from contextlib import asynccontextmanager

import torch
import uvicorn
from fastapi import FastAPI, File, Form, UploadFile

from multimodal_fakes.detect.predict import Detector


class Reference:
    "The chain of a bundle, as a training script would write it"
    def __init__(self, folder):
        detector = Detector.load(folder)
        self.classes, self.threshold, self.experts, self.fusion = detector.classes, detector.bundle["threshold"], detector.experts, detector.fusion
        self.tokenizer = self.experts["text"].encoder.tokenizer

    @torch.inference_mode()
    def predict(self, text, image):
        tokens = self.tokenizer(text, padding="max_length", truncation=True, max_length=128, return_tensors="pt")
        pixels = self.experts["vision"].encoder.preprocess([image])
        features = {"features_text": self.experts["text"].encoder.encode(tokens).pooled, "features_vision": self.experts["vision"].encoder.encode(pixels).pooled}
        p = self.fusion(present=torch.ones(1, 2, dtype=torch.bool), quality=torch.zeros(1, 0), **features)["logits"].softmax(1)[0].tolist()
        label = int(p[1] >= self.threshold)
        return {"prediction": self.classes[label], "probability_fake": p[1], "confidence": p[label], "label_id": label}


def make_app(folder):
    "One endpoint, and one that says the model is loaded"
    loaded = {}
    @asynccontextmanager
    async def lifespan(app):
        loaded["model"] = Reference(folder)
        yield
    app = FastAPI(lifespan=lifespan)

    @app.post("/predict")
    async def predict(text: str = Form(), image: UploadFile = File()): return loaded["model"].predict(text, await image.read())

    @app.get("/health")
    async def health(): return {"ready": "model" in loaded}
    return app


if __name__ == "__main__": uvicorn.run(make_app(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", access_log=False)
