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
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

from bench.memory import entry
from multimodal_fakes.core import read_yaml, root
from multimodal_fakes.detect.corruptions import SEVERITIES, corrupt
from multimodal_fakes.detect.predict import Detector
from multimodal_fakes.memory.prints import make_prints
from multimodal_fakes.memory.recall import Memory
from multimodal_fakes.metrics import resamples
from multimodal_fakes.pilots.drawing import imagine
from multimodal_fakes.pilots.pilot import contradict, expand, facts, grammar, make_memes, paint_meme, paint_post, tidy

FAMILIES, REMEMBERED, COPIES, GENUINE = 30, 5, 10, 1000
TEMPLATES, READ = 1000, 50         # pairs of memes with their words given, and read by the detector
FALSE = 0.01                       # share of genuine posts that may be accused
TASK = "fake_news"
FITTED = dict(      # settings of an expert, of which a head that is fitted asks for none
    frozen_epochs=0, epochs=0, frozen_lr=1e-3, lr=1e-3, weight_decay=0.01, batch_size=32, patience=3, loss="weighted",
    label_smoothing=0.0, n_workers=0, seed=0)
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
    threshold = np.quantile(genuine, 1 - FALSE, method="higher")
    found = np.stack([own > threshold for own in hoaxes]).astype(float)       # (families, posts)
    drawn = np.concatenate([w @ found.mean(1) / len(found) for w in resamples(len(found), n_boot=2000, seed=0)])
    return found.mean(), *np.quantile(drawn, [0.025, 0.975])


def with_neighbours(project, home):
    "Two detectors on the pilot's vectors: neighbours alone, and beside the experts that were trained"
    from multimodal_fakes.experts.expert import load_task, train_expert
    from multimodal_fakes.fuse.fusion import fuse
    from multimodal_fakes.settings import Recipe
    from multimodal_fakes.trust.calibrate import calibrate_all
    for name in ("Step_1", "Step_2", "Step_3"):
        (home/name).symlink_to(project/name)
    for name in (f"Step_4/{TASK}", f"models/{TASK}"):
        shutil.copytree(project/name, home/name)
    trained = {"text": "text", "vision": "vision"}
    near = {f"{name}_near": modality for name, modality in trained.items()}
    named = read_yaml(project/"params.yaml")["tasks"][TASK]
    task = partial(load_task, home, TASK, named["field"], named["datasets"], tests=named["tests"])
    for name, modality in near.items():
        encoder = home/"models"/TASK/f"{TASK}_{modality}_expert"
        recipe = Recipe(**FITTED, encoder=f"small_{modality}", head="neighbours", load_from=str(encoder))
        train_expert(home, home, task(experts=near), name, recipe)
    for called, experts in (("alone", near), ("beside", trained | near)):
        made = task(experts=experts)
        fuse(home, home, made, "auto", ["mean", "weighted"])
        calibrate_all(home, home, TASK, made.field, made.datasets, experts, made.tests)
        shutil.copytree(home/"models"/TASK, home/called)
    return {called: Detector.load(home/called, "torch") for called in ("alone", "beside")}


def figure(what, ours, unit, data, **limits):
    "A figure of this bench"
    return entry(f"family: {what}", ours, unit, f"pilot, {data}", "python -m bench memory family", **limits)


def within(found):
    "An interval in words"
    return f"{found[1]:.3f} to {found[2]:.3f} by family"


def before_and_after(called, detector, families, genuine, decides, least=None):
    "Entries of one detector: what it finds without a memory, and with five tellings of each family remembered"
    parts = {"copies": 1, "other tellings": 2}
    alone = p_fake(detector, genuine)
    before = {part: recalled([p_fake(detector, own[n]) for own in families], alone) for part, n in parts.items()}
    with tempfile.TemporaryDirectory() as d, Memory.open(d, create=True) as memory:
        began = time.process_time()
        remember(memory, detector, families[0][0])
        detector.use_memory(memory, decides)
        detector.predict(**families[0][1][0])
        seconds = time.process_time() - began
        for told, _, _ in families[1:]:
            remember(memory, detector, told)
        with_memory = p_fake(detector, genuine)
        for part, n in parts.items():
            after = recalled([p_fake(detector, own[n]) for own in families], with_memory)
            posts = f"{len(families)} families, {len(genuine):,} genuine posts"
            data = f"{posts}; {within(after)}, {within(before[part])} before"
            limit = least if part == "copies" else None
            yield figure(f"{called}, {part}", after[0], "recall at FPR 1 %", data, peer=before[part][0], least=limit)
        detector.use_memory(None, False)
    yield figure(f"{called}, five remembered and one judged", seconds, "CPU s", "one family", most=1)


def remember(memory, detector, posts):
    "Remember posts as fake"
    for post in posts:
        memory.remember(detector.prints_of(**post), TASK, "fake", "bench")


def meme(label, halves, scene, key, lettering):
    "A meme and its words"
    top, bottom = halves.split("|")
    picture, _ = paint_meme(random.Random(lettering), scene, key, top, bottom)
    return {"image": saved(picture, None), "words": f"{top} {bottom}"}


def templates(n):
    "Pairs of memes of one picture, with other words"
    triples = [make_memes(i, "triple", "templates") for i in range(n)]
    return [[meme(*own, f"templates/{i}/{k}") for k, own in enumerate((one, other))]
            for i, (one, _, other) in enumerate(triples)]


def other_words(how, prints_of, pairs):
    "Entries of memes of which one was remembered: the other of its template, and the same passed on"
    with tempfile.TemporaryDirectory() as d, Memory.open(d, create=True) as memory:
        ids = [memory.remember(prints_of(one), "hateful_memes", "hateful", "bench") for one, _ in pairs]
        told = [memory.recall(prints_of(other), "hateful_memes", k=20) for _, other in pairs]
        again = [memory.recall(prints_of(shared(one, i)), "hateful_memes") for i, (one, _) in enumerate(pairs)]
    copies = [any(item["relation"] == "copy" for item in known) for known in told]
    named = [any(item["id"] == own and item["relation"] == "same template" for item in known)
             for own, known in zip(ids, told)]
    found = [any(item["id"] == own and item["relation"] == "copy" for item in known) for own, known in zip(ids, again)]
    data = f"{len(pairs):,} templates, words {how}"
    yield figure(f"memes with other words, {how}: taken for copies", np.mean(copies), "share", data, most=0.005)
    yield figure(f"memes with other words, {how}: told as same template", np.mean(named), "share", data)
    yield figure(f"memes passed on, {how}: told as copies", np.mean(found), "share", data)


def shared(one, i):
    "A meme on its way through the platforms"
    severity = SEVERITIES[i % len(SEVERITIES)]
    return one | {"image": saved(corrupt("vision", "shared", one["image"], severity, str(i)), 85)}


def run():
    "All entries of this part"
    project = Path(os.environ.get("PROJECT", root()))
    genuine = genuine_posts()
    kinds = {kind: [family(kind, i) for i in range(FAMILIES)] for kind in ("staged", "contradicted")}
    shipped = Detector.load(project/"models"/TASK)
    with tempfile.TemporaryDirectory() as d:
        near = with_neighbours(project, Path(d))
        for kind, families in kinds.items():
            yield from before_and_after(f"{kind}, the memory decides", shipped, families, genuine, True, least=0.9)
            yield from before_and_after(f"{kind}, neighbours alone", near["alone"], families, genuine, False)
            yield from before_and_after(f"{kind}, neighbours beside", near["beside"], families, genuine, False)
            yield from before_and_after(f"{kind}, neighbours, and it decides", near["alone"], families, genuine, True)
    given = lambda one: make_prints(image=one["image"], written=one["words"])
    yield from other_words("given", given, templates(TEMPLATES))
    reader = Detector.load(project/"models/hateful_memes")
    yield from other_words("read", lambda one: reader.prints_of(image=one["image"]), templates(READ))
