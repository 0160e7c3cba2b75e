"""Hoaxes that training never saw, told five times and remembered: how many of their copies are found then.

A family is a hoax: one scene and what is said of it, drawn by the pilot's makers from other seeds, and told in other
words and photographed anew each time. Five tellings are remembered; what comes back are copies of these through the
platforms, and tellings that nobody remembered. Two kinds: `staged` looks like any genuine post, and only who looks
into it knows better; `contradicted` has a caption that its picture refutes. Thresholds are those at which one genuine
post in a hundred is accused, among posts that are as unseen. `PROJECT=folder` names the finished pilot run."""
import io
import os
import random
import shutil
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

from bench.scale import MACHINE
from multimodal_fakes.core import root
from multimodal_fakes.detect.corruptions import SEVERITIES, corrupt
from multimodal_fakes.detect.predict import Detector
from multimodal_fakes.memory.prints import make_prints
from multimodal_fakes.memory.recall import Memory
from multimodal_fakes.metrics import resamples
from multimodal_fakes.pilots.drawing import imagine
from multimodal_fakes.pilots.pilot import contradict, expand, facts, grammar, make_memes, paint_meme, paint_post, tidy

FAMILIES, REMEMBERED, COPIES, GENUINE = 30, 5, 10, 1000
TEMPLATES, READ = 1000, 100        # pairs of memes with their words given, and read by the detector
FALSE = 0.01                       # share of genuine posts that may be accused
TASK = "fake_news"
ON_THE_WAY = ("typos", "emoji", "casing", "zero_width")       # what happens to a caption


def saved(image, quality):
    "A picture as a file"
    file = io.BytesIO()
    image.save(file, "JPEG" if quality else "PNG", **({"quality": quality} if quality else {}))
    return file.getvalue()


def telling(scene, said, key):
    "A post about a scene: a photograph of its own, and a sentence of its own about what is `said` to be there"
    rng = random.Random(key)
    text = tidy(expand(grammar("world", "en"), "post", rng, **facts(said, "en")))
    return {"text": text, "image": saved(*paint_post(random.Random(f"{key}/picture"), scene))}


def passed_on(post, id):
    "A post on its way: its picture through the platforms, half of the captions changed a little"
    rng = random.Random(id)
    picture = corrupt("vision", "shared", post["image"], rng.choice(SEVERITIES), id)
    text = post["text"]
    if rng.random() < 0.5:
        text = corrupt("text", rng.choice(ON_THE_WAY), text, rng.choice(SEVERITIES[:3]), id)
    return {"text": text, "image": saved(picture, 85)}


def family(kind, i):
    "Tellings that are remembered, copies of these, and tellings that are not"
    rng = random.Random(f"hoaxes/{kind}/{i}")
    scene = imagine(rng)
    said = contradict(scene, rng) if kind == "contradicted" else scene
    told = [telling(scene, said, f"hoaxes/{kind}/{i}/{n}") for n in range(2 * REMEMBERED)]
    copies = [passed_on(told[n % REMEMBERED], f"{kind}/{i}/{n}") for n in range(COPIES)]
    return told[:REMEMBERED], copies, told[REMEMBERED:]


def genuine_posts():
    "Posts that are what they seem, and no family's"
    scenes = [imagine(random.Random(f"genuine/{i}")) for i in range(GENUINE)]
    return [telling(scene, scene, f"genuine/{i}/post") for i, scene in enumerate(scenes)]


def p_fake(detector, posts):
    "Probability of each"
    return detector.predict_proba(posts)[:, detector.classes.index("fake")]


def recalled(hoaxes, genuine):
    "Share of hoaxes above the threshold that one genuine post in a hundred passes, with its interval by family"
    threshold = np.quantile(np.concatenate(genuine), 1 - FALSE, method="higher")
    found = np.stack([own > threshold for own in hoaxes]).astype(float)       # (families, posts)
    drawn = np.concatenate([w @ found.mean(1) / len(found) for w in resamples(len(found), n_boot=2000, seed=0)])
    return found.mean(), *np.quantile(drawn, [0.025, 0.975])
