"""Each attack of `serve_strangers` meets a service of its own, and a bystander says what others get meanwhile.

At the settings that the service has by default, but where an attack names others. Before it and during it somebody else
posts five short texts a second and a cluster probes. What must hold: p95 of these posts at most twice the calm one, the
probes fast, the memory back afterwards, the log short, and refused what should be. `python -m bench serve attack` runs
all, `--only NAME` some."""
import io
import time
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.serve_bystander import PATIENCE, Bystander, p95, statuses
from bench.serve_hosts import Ours, running
from bench.serve_posts import TASK
from bench.serve_scene import Detectors, Sampler, Scene, comes_true
from bench.serve_strangers import ATTACKS, training_project
from multimodal_fakes.core import FakesError
from multimodal_fakes.service.access import make_key

CALM, LASTS, BACK = 5.0, 20.0, 15.0     # seconds before an attack, of it, and until memory must be back
LIMITS = dict(
    slower=2.0,         # p95 of the posts over the calm one
    probe=0.2,          # seconds of the slowest probe
    growth=128.0,       # MiB of all processes over those before
    log=2.0,            # MB that are written during an attack
)
SETTLED = 3             # posts that are answered before anything is measured


def with_home(value, home):
    "Settings in which {home} stands for a folder"
    if isinstance(value, dict):
        return {k: with_home(v, home) for k, v in value.items()}
    return value.replace("{home}", str(home)) if isinstance(value, str) else value

def make_keys(home):
    "The attacker's key and the bystander's; their lines are in a file"
    scopes = ("predict", "feedback", "train", "metrics")
    with redirect_stdout(io.StringIO()):        # it prints the keys
        keys = [make_key(name, scopes) for name in ("attacker", "bystander")]
    lines = "".join(f"{line}\n" for _, line in keys)
    (home/"keys.yaml").write_text(lines)
    return [key for key, _ in keys]

def host_of(attack, home, detectors):
    "The service that an attack meets, the attacker's key and the bystander's"
    sections = dict(access={}, limits={}) | with_home(attack.sections, home)
    if "train" in sections:
        training_project(home)
    keys = [None, None]
    if attack.keys:
        keys = make_keys(home)
        sections["access"] = sections["access"] | dict(keys=str(home/"keys.yaml"))
    engine = dict(models=str(detectors.models), tasks=[detectors.text, detectors.video])
    host = Ours(home, engine=engine, http=dict(default_task=detectors.text), **sections)
    if attack.files:
        host.before = ("sh", "-c", f'ulimit -n {attack.files} && exec "$@"', "sh")
    return host, *keys

def memory_of_each(host):
    "MiB of the process that listens, and of all others"
    memory = []
    for process in host.tree():
        with suppress(psutil.NoSuchProcess):
            memory.append(process.memory_full_info().pss / 2**20)
    return memory[0], sum(memory[1:]), len(memory)

@dataclass
class Report:
    "What came of one attack"
    name:str
    about:str
    calm:float          # seconds: p95 of the bystander's posts before
    during:float        # and meanwhile
    posts:dict          # status → posts of the bystander's, meanwhile
    probe:float         # seconds of the slowest probe, meanwhile
    probes:dict         # status → probes
    before:tuple        # MiB of the first process and of the others, number of processes
    after:tuple
    most:float          # MiB of all
    log:float           # MB written
    answers:dict        # status → what was sent by the attacker
    claims:dict         # what should be → whether it was

    @property
    def growth(self):
        "MiB over those before"
        return sum(self.after[:2]) - sum(self.before[:2])

    def broken(self):
        "What does not hold, in words"
        slower = f"p95 {1000 * self.during:.0f} ms, calm {1000 * self.calm:.0f}"
        checks = {
            slower: self.during <= LIMITS["slower"] * self.calm,
            f"slowest probe {self.probe:.2f} s": self.probe <= LIMITS["probe"],
            f"{self.growth:.0f} MiB are not back": self.growth <= LIMITS["growth"],
            f"{self.log:.1f} MB of log": self.log <= LIMITS["log"],
        }
        claims = {f"not so: {claim}": true for claim, true in self.claims.items()}
        return [words for words, holds in (checks | claims).items() if not holds]

def wait_until_back(host, before):
    "Memory of each once it is as it was, or time is up"
    def over():
        return sum(memory_of_each(host)[:2]) - sum(before[:2])
    comes_true(lambda: over() <= LIMITS["growth"] / 4, BACK)
    return memory_of_each(host)

def slowest(seen):
    "Seconds of the slowest probe; one without answer waited in vain"
    return max((each.seconds if each.status else PATIENCE for each in seen), default=PATIENCE)

def meet(attack, home, stock, detectors) -> Report:
    "A service, calm and attacked"
    host, key, others_key = host_of(attack, home, detectors)
    log = home/f"{host.name}.log"
    with running(host), Bystander(host, others_key) as bystander:
        warm = comes_true(lambda: len(bystander.between(0, time.time(), "post")) > SETTLED, 20)
        if not warm:
            raise FakesError(f"The service answers nobody before the attack: {host.output()[-1000:]}")
        calm = (time.time(), time.time() + CALM)
        time.sleep(CALM)
        before = memory_of_each(host)
        written = log.stat().st_size
        scene = Scene(host, stock, detectors, key)
        with Sampler(host) as sampler:
            scene.begin(LASTS)
            attack.launch(scene)
        bystander.settle()
        after = wait_until_back(host, before)
        scene.claims["ready afterwards"] = comes_true(host.is_ready, 5)
        posts = bystander.between(*scene.window, "post")
        probes = bystander.between(*scene.window, "live", "ready")
    return Report(
        name=attack.name,
        about=attack.about,
        calm=p95(bystander.between(*calm, "post")),
        during=p95(posts),
        posts=statuses(posts),
        probe=slowest(probes),
        probes=statuses(probes),
        before=before,
        after=after,
        most=max(sampler.most, sum(after[:2])),
        log=(log.stat().st_size - written) / 1e6,
        answers={status: scene.answers.count(status) for status in sorted(set(scene.answers))},
        claims=scene.claims,
    )

def in_words(report):
    "What its entries say beside the figures"
    first, others, n = report.after
    answers = report.answers or "nothing to count"
    claims = ", ".join(f"{claim}: {'yes' if true else 'no'}" for claim, true in report.claims.items())
    memory = (f"first process {report.before[0]:.0f} → {first:.0f} MiB, the {n - 1} others {report.before[1]:.0f} → "
              f"{others:.0f}, at most {report.most:.0f} in all")
    return (f"{report.about}; the attacker got {answers}; others' posts got {report.posts}, probes {report.probes}; "
            f"{memory}; {report.log:.2f} MB of log; {claims}")

def entries_of(report, entry):
    "Its figures as results.json keeps them"
    about = in_words(report)
    before, after = sum(report.before[:2]), sum(report.after[:2])
    n_true = sum(report.claims.values())
    name = f"attack, {report.name}"
    measured = [
        (f"{name}: p95 of others against the calm one", report.during, report.calm, "s", False),
        (f"{name}: slowest probe, against its limit", report.probe, LIMITS["probe"], "s", False),
        (f"{name}: memory afterwards against before", after, before, "MiB", False),
        (f"{name}: claims that hold", n_true, len(report.claims), "claims", True),
    ]
    entries = [entry(*figures, about) for figures in measured]
    entries[0]["broken"] = [f"{report.name}: {words}" for words in report.broken()]
    return entries

def table_of(reports):
    "All of them, a line each"
    head = f"{'attack':32} {'calm':>6} {'p95':>7} {'ratio':>6} {'probe':>6} {'memory':>15} {'most':>6} {'claims':>7}"
    lines = [head]
    for r in reports:
        before, after = sum(r.before[:2]), sum(r.after[:2])
        claims = f"{sum(r.claims.values())}/{len(r.claims)}"
        lines.append(f"{r.name:32} {1000 * r.calm:6.0f} {1000 * r.during:7.0f} {r.during / r.calm:6.1f} {r.probe:6.2f} "
                     f"{before:6.0f} → {after:6.0f} {r.most:6.0f} {claims:>7}")
        lines += [f"{'':4}{words}" for words in r.broken()]
    return "\n".join(lines)

def detectors_of(home, models=None) -> Detectors:
    "Those of a finished pilot, where its folder is named; else the one that was made, and one of clips"
    if models:
        return Detectors(Path(models).resolve(), "fake_news", "deepfake")
    from bench.serve_made import make_clips
    if not (home/"models/clips").exists():
        make_clips(home)
    return Detectors(home/"models", TASK, "clips")

def attack_part(home, stock, entry, detectors, only=()) -> list:
    "All attacks, each on a service of its own"
    reports, entries = [], []
    for name in only or ATTACKS:
        report = meet(ATTACKS[name], home, stock, detectors)
        print(f"  {name}: {'holds' if not report.broken() else '; '.join(report.broken())}", flush=True)
        reports.append(report)
        entries += entries_of(report, entry)
    print(table_of(reports))
    return entries
