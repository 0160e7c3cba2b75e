"""The design that most projects of this field ship, as a server of its own.

FastAPI, torch, every text padded to 128 tokens, one post at a time inside the event loop.
`python -m bench.serve_reference models/<task> PORT`

It runs the same weights with the same preprocessing, in inference mode, on all cores, and answers only the prediction:
nothing is added that would slow it down."""
import sys
from contextlib import asynccontextmanager
from typing import Annotated

import torch
import uvicorn
from fastapi import FastAPI, File, Form, UploadFile

from multimodal_fakes.detect.predict import Detector


class Reference:
    "The chain of a bundle, as a training script would write it"
    def __init__(self, folder):
        detector = Detector.load(folder, "torch", device="cpu")
        self.classes = detector.classes
        self.threshold = detector.bundle["threshold"]
        self.text = detector.experts["text"].encoder
        self.vision = detector.experts["vision"].encoder
        self.fusion = detector.fusion

    @torch.inference_mode()
    def predict(self, text, image):
        tokens = self.text.tokenizer(
            text,
            padding="max_length",
            truncation=True,
            max_length=128,
            return_tensors="pt",
        )
        pixels = self.vision.preprocess([image])
        logits = self.fusion(
            present=torch.ones(1, 2, dtype=torch.bool),
            quality=torch.zeros(1, 0),
            features_text=self.text.encode(tokens).pooled,
            features_vision=self.vision.encode(pixels).pooled,
        )["logits"]
        p = logits.softmax(1)[0].tolist()
        label = int(p[1] >= self.threshold)
        return {
            "prediction": self.classes[label],
            "probability_fake": p[1],
            "confidence": p[label],
            "label_id": label,
        }


def make_app(folder):
    "One endpoint, and one that says the model is loaded"
    loaded = {}

    @asynccontextmanager
    async def lifespan(app):
        loaded["model"] = Reference(folder)
        yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/predict")
    async def predict(text: Annotated[str, Form()], image: Annotated[UploadFile, File()]):
        return loaded["model"].predict(text, await image.read())

    @app.get("/health")
    async def health():
        return {"ready": "model" in loaded}

    return app


if __name__ == "__main__":
    app = make_app(sys.argv[1])
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", access_log=False)
