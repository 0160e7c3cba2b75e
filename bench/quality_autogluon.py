"""AutoGluon MultiModal on one split, in its own environment: `python quality_autogluon.py SPLIT MINILM MOBILENET OUT`.

It imports nothing of this project. OUT gets scores.parquet (id, split, p_0, p_1, …) and about.json."""
import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import timm
import torch
from timm.models import register_model
from timm.models.efficientnet import EfficientNet, mobilenetv2_100

EPOCHS = 12


class StillNorm(EfficientNet):
    "A network whose BatchNorm keeps its statistics in training, as these weights need"
    def train(self, mode=True):
        super().train(mode)
        for module in self.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.training = False
        return self


@register_model
def mobilenetv2_still(pretrained=False, **options):
    "MobileNetV2 with TensorFlow's padding, for which the local weights were trained"
    model = mobilenetv2_100(pretrained=False, pad_type="same", **options)
    model.__class__ = StillNorm
    return model


def write_checkpoint(weights, folder):
    "The folder that AutoGluon reads a local timm model from"
    from safetensors.torch import load_file
    model = mobilenetv2_still(num_classes=0)
    state = {name: tensor.float() for name, tensor in load_file(weights).items() if not name.startswith("classifier")}
    model.load_state_dict(state)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), folder/"pytorch_model.bin")
    norm = dict(mean=[0.5] * 3, std=[0.5] * 3, input_size=[3, 224, 224])
    about = dict(architecture="mobilenetv2_still", num_features=model.num_features, pretrained_cfg=norm)
    (folder/"config.json").write_text(json.dumps(about))


def columns(posts, modalities):
    "What AutoGluon is given: the label and a column a modality; vectors, where there are any, a column a number"
    table = pd.DataFrame(dict(y=posts.y.astype(int)))
    if "vectors" in posts:
        vectors = np.stack(posts.vectors.to_list()).astype("float32")
        names = [f"v{i}" for i in range(vectors.shape[1])]
        return pd.concat([table, pd.DataFrame(vectors, columns=names, index=posts.index)], axis=1)
    if "text" in modalities:
        table["text"] = posts.text.fillna("")
    for name in ("image", "frame", "spectrogram"):
        if name in posts and posts[name].notna().any():
            table[name] = posts[name].fillna("")
    return table


def options(table, minilm, mobilenet):
    "Its usual settings, with the encoders at hand"
    names, images = [], [c for c in ("image", "frame", "spectrogram") if c in table]
    given = {"optim.max_epochs": EPOCHS, "env.num_gpus": 0, "env.num_workers": 0, "env.num_workers_inference": 0}
    if "text" in table:
        names.append("hf_text")
        given |= {"model.hf_text.checkpoint_name": minilm, "model.hf_text.pooling_mode": "mean"}
    if images:
        names.append("timm_image")
        given |= {"model.timm_image.checkpoint_name": mobilenet, "model.timm_image.image_norm": "inception"}
    if "v0" in table:
        names.append("numerical_mlp")
    if len(names) > 1:
        names.append("fusion_mlp")
    return given | {"model.names": names}


def column_types(table):
    "What each column is, said rather than guessed"
    kinds = dict(text="text", image="image_path", frame="image_path", spectrogram="image_path")
    return {c: kinds.get(c, "numerical") for c in table if c != "y"}


def cpu_seconds():
    "Of this process and those that it started and that ended"
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def main(split, minilm, weights, out):
    "Fit, score validation and test, write what came out"
    out = Path(out)
    mobilenet = out.parent.parent/"mobilenetv2"
    if not (mobilenet/"config.json").exists():
        write_checkpoint(weights, mobilenet)
    from autogluon.multimodal import MultiModalPredictor
    posts = pd.read_parquet(f"{split}/posts.parquet")
    about = json.loads(Path(f"{split}/about.json").read_text())
    table = columns(posts, about["modalities"])
    parts = {name: table[posts.split == name] for name in ("train", "val", "test")}
    kind = "binary" if len(about["classes"]) == 2 else "multiclass"
    given = options(table, minilm, str(mobilenet))
    predictor = MultiModalPredictor(label="y", path=str(out/"model"), problem_type=kind, verbosity=2)
    began, before = time.perf_counter(), cpu_seconds()
    predictor.fit(parts["train"], tuning_data=parts["val"], seed=0, hyperparameters=given,
                  column_types=column_types(table))
    fit = dict(cpu_seconds=cpu_seconds() - before, seconds=time.perf_counter() - began)
    before = cpu_seconds()
    k = len(about["classes"])
    scores = [score(predictor, posts[posts.split == name], parts[name], k) for name in ("val", "test")]
    pd.concat(scores).to_parquet(out/"scores.parquet")
    done = dict(fit=fit, score_cpu_seconds=cpu_seconds() - before, options=given, timm=timm.__version__)
    (out/"about.json").write_text(json.dumps(done, indent=1))


def score(predictor, posts, table, k):
    "Probability of each class; zero for one that training lacks"
    p = predictor.predict_proba(table.drop(columns="y"), as_pandas=True)
    scores = pd.DataFrame(dict(id=posts.id.to_numpy(), split=posts.split.to_numpy()))
    for c in range(k):
        scores[f"p_{c}"] = p[c].to_numpy() if c in p.columns else 0.0
    return scores


if __name__ == "__main__":
    main(*sys.argv[1:])
