"""A Dockerfile followed step by step without Docker.

Each stage is a folder laid over that of its base (overlayfs), each RUN happens inside it (chroot). Needs Linux, root,
and namespaces of its own for mounts and processes, see rehearse.py. It knows the instructions that the files here use,
and refuses any other.
"""
import ctypes
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

INSTRUCTIONS = ("FROM", "ARG", "ENV", "WORKDIR", "COPY", "ADD", "RUN", "LABEL", "EXPOSE", "USER", "HEALTHCHECK",
                "STOPSIGNAL", "ENTRYPOINT", "CMD")
PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
PASSED = re.compile(r"(?i)^((https?|no)_proxy|ssl_cert_(file|dir)|pip_cert|curl_ca_bundle|requests_ca_bundle)$")
STEP_SECONDS = 3600      # that one RUN may take
NO_NEW_PRIVS = 38        # of prctl

class StepError(Exception):
    "A step that cannot be followed, and why"

@dataclass
class Step:
    "One instruction"
    word:str     # FROM, RUN, …
    rest:str     # as it is written, lines joined
    line:int     # where it begins

    def flags(self) -> tuple: # dict of its --name=value, and what follows them
        "The options of an instruction"
        named, rest = {}, self.rest
        while match := re.match(r"--([a-z-]+)=(\S+)\s+", rest):
            named[match[1]] = match[2]
            rest = rest[match.end():]
        return named, rest

def read_dockerfile(
    path,
) -> list: # of Step
    "Instructions of a Dockerfile; raises StepError over one that is not known here"
    steps, open_step = [], None
    for number, line in enumerate(Path(path).read_text().splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if open_step is None:
            word, _, rest = line.strip().partition(" ")
            open_step = Step(word.upper(), "", number)
        else:
            rest = line.strip()
        open_step.rest += rest.rstrip("\\").strip() + " "
        if not line.endswith("\\"):
            steps.append(open_step)
            open_step = None
    for step in steps:
        step.rest = step.rest.strip()
        if step.word not in INSTRUCTIONS or "<<" in step.rest:
            raise StepError(f"{path}, line {step.line}: {step.word} is not followed here")
    return steps

def substituted(text, values):
    "$NAME and ${NAME} by their values, as Docker puts them in; raises StepError over a name without one"
    def value(match):
        name = match[1] or match[2]
        if name not in values:
            raise StepError(f"{text!r}: {name} has no value")
        return values[name]
    return re.sub(r"(?<!\\)\$(?:\{(\w+)\}|(\w+))", value, text)

def ignored(path, patterns):
    "Whether .dockerignore leaves a file out: the last pattern that fits it or a folder above it decides"
    parts = path.split("/")
    names = ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]
    out = False
    for pattern in patterns:
        keep = pattern.startswith("!")
        glob = pattern.lstrip("!").strip("/")
        globs = glob, glob.replace("**/", "")
        if any(fnmatchcase(name, g) for name in names for g in globs):
            out = not keep
    return out

def read_context(
    folder,   # what `docker build` is given
) -> list: # paths in it
    "Files that reach the builder: those that git knows, less what .dockerignore names"
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    lines = (Path(folder)/".dockerignore").read_text().splitlines()
    patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return [path for path in listed.stdout.splitlines() if not ignored(path, patterns)]

@dataclass
class Image:
    "A stage under way: where its files lie, and what the instructions set"
    name:str
    lower:Path       # the file system below
    home:Path        # holds `upper`, which has its own files, and `root`, which shows both
    env:dict = field(default_factory=dict)
    args:dict = field(default_factory=dict)
    user:tuple = (0, 0)
    workdir:str = "/"
    entrypoint:list = field(default_factory=list)
    cmd:list = field(default_factory=list)
    health:dict = field(default_factory=dict)
    stopsignal:str = "SIGTERM"
    port:int = 0
    digest:str = ""  # of everything that made it

    @property
    def root(self):
        "Its file system"
        return self.home/"root"

    def inside(self, path):
        "Where a path of the image lies here"
        return self.root/os.path.join(self.workdir, path).lstrip("/")

def mount(*arguments):
    "Mount, in the namespace of this process"
    subprocess.run(["mount", *map(str, arguments)], check=True)

def unmount(folder):
    "Take away a mount and those inside it"
    subprocess.run(["umount", "--recursive", str(folder)], check=True)

def lay_over(image):
    "Show the image's own files over those below"
    for name in ("upper", "work", "root"):
        (image.home/name).mkdir(parents=True, exist_ok=True)
    layers = f"lowerdir={image.lower},upperdir={image.home/'upper'},workdir={image.home/'work'}"
    mount("-t", "overlay", "overlay", "-o", layers, image.root)
    mount("-t", "proc", "proc", image.root/"proc")
    (image.root/"dev").mkdir(exist_ok=True)
    mount("--rbind", "/dev", image.root/"dev")

def enter(image, user):
    "In the child, before it becomes the command: into the image, as the user, without a way to more rights"
    os.chroot(image.root)
    os.chdir(image.workdir)
    os.setgroups([])
    os.setgid(user[1])
    os.setuid(user[0])
    if user[0]:
        ctypes.CDLL(None, use_errno=True).prctl(NO_NEW_PRIVS, 1, 0, 0, 0)

def start(
    image,
    argv,       # command and arguments
    user=None,  # (uid, gid), the image's if none
    env=None,   # the image's if none
    **more,     # of Popen
) -> subprocess.Popen:
    "A process inside an image"
    env = {"PATH": PATH} | (image.env if env is None else env)
    into = partial(enter, image, image.user if user is None else user)
    return subprocess.Popen(argv, env=env, preexec_fn=into, cwd="/", **more)

class Builder:
    "Follows a Dockerfile"
    def __init__(self,
        context,       # folder that `docker build` is given
        base,          # folder with the file system of the base image
        scratch,       # folder for the stages
        sources=None,  # folder with files that ADD would fetch, known by their checksum
        cache=None,    # folder of uv's cache, lent to the build; none: as the Dockerfile says
    ):
        self.context = Path(context).resolve()
        self.base = Path(base).resolve()
        self.scratch = Path(scratch).resolve()
        self.sources = sources and Path(sources).resolve()
        self.cache = cache and Path(cache).resolve()
        self.files = read_context(context)
        self.arguments = {}      # ARG before the first FROM
        self.images = {}         # name → Image
        self.image = None
        self.departures = []     # where this was not what Docker would have done

    def say(self, text):
        "A line about a step"
        print(text, flush=True)

    def depart(self, text):
        "A difference to Docker, for the end"
        if text not in self.departures:
            self.departures.append(text)
            self.say(f"    ! {text}")

    def follow(self,
        path,   # of the Dockerfile
    ) -> Image: # the last stage, laid out
        "Build every stage"
        stages = []
        for step in read_dockerfile(path):
            if step.word == "FROM":
                stages.append([])
            if not stages:
                self.argument(step, self.arguments)
            else:
                stages[-1].append(step)
        for number, steps in enumerate(stages):
            self.build(number, steps)
        return self.image

    def build(self, number, steps):
        "One stage; its files are kept from an earlier run, of whichever Dockerfile, if the same made them"
        reference, _, name = substituted(steps[0].rest, self.arguments).partition(" AS ")
        lower = self.images[reference].root if reference in self.images else self.base
        if lower == self.base:
            self.depart(f"{self.base} stands for {reference}, which cannot be pulled here")
        digest = self.digest_of(steps)
        home = self.scratch/f"{name or 'image'}-{digest[:12]}"
        self.image = Image(name=name or str(number), lower=lower, home=home, digest=digest)
        seal = home/"seal"
        kept = seal.exists()
        if not kept and home.exists():
            shutil.rmtree(home)
        lay_over(self.image)
        self.say(f"FROM {reference} AS {home.name}" + (" (kept: the same made it)" if kept else ""))
        self.prepare()
        for step in steps[1:]:
            self.take(step, kept)
        seal.touch()
        self.images[self.image.name] = self.image

    def digest_of(self, steps):
        "Of the steps, the files they copy, and the stages they stand on"
        digest = hashlib.sha256(f"{self.base} {self.arguments}".encode())
        for step in steps:
            digest.update(f"{step.word} {step.rest}\n".encode())
            flags, rest = step.flags()
            if step.word == "COPY" and "from" in flags:
                digest.update(self.images[flags["from"]].digest.encode())
            elif step.word == "COPY":
                for path in self.chosen(rest.split()[:-1]):
                    digest.update(path.encode() + (self.context/path).read_bytes())
        return digest.hexdigest()

    def prepare(self):
        "Names of hosts and certificates of this machine"
        for path in ("etc/resolv.conf", "etc/ssl/certs/ca-certificates.crt"):
            (self.image.root/path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(f"/{path}", self.image.root/path)

    def take(self, step, kept):
        "One instruction; what only makes files is passed over where they are kept"
        if kept and step.word in ("COPY", "ADD", "RUN"):
            return
        began = time.perf_counter()
        self.say(f"  {step.word} {step.rest[:150]}")
        getattr(self, step.word.lower())(step)
        seconds = time.perf_counter() - began
        if seconds > 1:
            self.say(f"    {seconds:.0f} s")

    def values(self):
        "What $NAME may stand for"
        return {"PATH": PATH} | self.image.args | self.image.env

    def argument(self, step, values):
        "ARG name=value"
        name, _, value = step.rest.partition("=")
        values[name] = value or self.arguments.get(name, "")

    def arg(self, step):
        self.argument(step, self.image.args)

    def env(self, step):
        values = self.values()
        for word in shlex.split(step.rest):
            name, _, value = word.partition("=")
            self.image.env[name] = substituted(value, values)

    def workdir(self, step):
        self.image.workdir = os.path.join(self.image.workdir, step.rest)
        self.image.inside("").mkdir(parents=True, exist_ok=True)

    def user(self, step):
        self.image.user = tuple(map(int, step.rest.split(":")))

    def label(self, step):
        shlex.split(step.rest)

    def expose(self, step):
        self.image.port = int(step.rest)

    def stopsignal(self, step):
        self.image.stopsignal = step.rest

    def entrypoint(self, step):
        self.image.entrypoint = json.loads(step.rest)
        self.image.cmd = []

    def cmd(self, step):
        self.image.cmd = json.loads(step.rest)

    def healthcheck(self, step):
        flags, rest = step.flags()
        self.image.health = flags | {"cmd": json.loads(rest.removeprefix("CMD "))}

    def chosen(self, patterns):
        "Files of the context that a COPY names; raises StepError where there is none, as after a hole in .dockerignore"
        paths = []
        for pattern in patterns:
            below = [p for p in self.files if fnmatchcase(p, pattern) or p.startswith(pattern.rstrip("/") + "/")]
            if not below:
                raise StepError(f"COPY {pattern}: no such file in the context (is it in .dockerignore?)")
            paths += below
        return paths

    def copy(self, step):
        flags, rest = step.flags()
        *sources, target = rest.split()
        if "from" in flags:
            return self.copy_from(self.images[flags["from"]], sources, target)
        for source in sources:
            whole = source in self.files or "*" in source      # else a folder, whose content is copied
            for path in self.chosen([source]):
                name = Path(path).name if whole else str(Path(path).relative_to(source))
                as_file = whole and not target.endswith("/") and len(sources) == 1 and "*" not in source
                to = self.image.inside(target) if as_file else self.image.inside(target)/name
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(self.context/path, to)

    def copy_from(self, stage, sources, target):
        "Files of a stage: linked where they are its own, for gigabytes of CUDA"
        for source in sources:
            for path in sorted(stage.inside("/").glob(source.lstrip("/"))):
                relative = path.relative_to(stage.root)
                to = self.image.inside(target)/path.name if "*" in source else self.image.inside(target)
                to.parent.mkdir(parents=True, exist_ok=True)
                if not path.is_dir():
                    shutil.copy2(path, to)
                    continue
                if to.exists():
                    raise StepError(f"COPY --from={stage.name} {source}: {to} is there already")
                unmount(self.image.root)      # files below a mounted overlay must not change
                where = self.image.home/"upper"/to.relative_to(self.image.root)
                where.parent.mkdir(parents=True, exist_ok=True)      # it may be there in the base alone
                subprocess.run(["cp", "-al", stage.home/"upper"/relative, where], check=True)
                lay_over(self.image)

    def add(self, step):
        flags, rest = step.flags()
        url, target = substituted(rest, self.values()).split()
        checksum = flags["checksum"].removeprefix("sha256:")
        to = self.image.inside(target)/url.rsplit("/", 1)[1]
        to.parent.mkdir(parents=True, exist_ok=True)
        source = self.source_of(checksum)
        if source:
            self.depart(f"{url} was not fetched: {source} has its checksum")
            shutil.copyfile(source, to)
        else:
            urllib.request.urlretrieve(url, to)
        if hashlib.sha256(to.read_bytes()).hexdigest() != checksum:
            raise StepError(f"{url} has another checksum than {checksum}")

    def source_of(self, checksum):
        "A file at hand with this content, if any"
        files = [p for p in sorted(self.sources.iterdir()) if p.is_file()] if self.sources else []
        return next((p for p in files if hashlib.sha256(p.read_bytes()).hexdigest() == checksum), None)

    def run(self, step):
        env = self.image.env | self.image.args | {k: v for k, v in os.environ.items() if PASSED.match(k)}
        env = {"DEBIAN_FRONTEND": "noninteractive", "HOME": "/root"} | env
        with self.lent_cache(env), (self.image.home/"log").open("ab") as log:
            process = start(self.image, ["/bin/sh", "-c", step.rest], env=env, stdout=log, stderr=log)
            code = process.wait(STEP_SECONDS)
        if code:
            tail = Path(log.name).read_text(errors="replace")[-3000:]
            raise StepError(f"line {step.line}: RUN ended with {code}\n{tail}\nThe whole is in {log.name}")

    @contextmanager
    def lent_cache(self, env):
        "uv's cache of this machine, for one step"
        if not (self.cache and env.pop("UV_NO_CACHE", None)):
            yield
            return
        self.depart(f"uv takes wheels from {self.cache}, where Docker would download them")
        place = self.image.root/"var/cache/uv"
        place.mkdir(parents=True, exist_ok=True)
        mount("--bind", self.cache, place)
        env["UV_CACHE_DIR"] = "/var/cache/uv"
        try:
            yield
        finally:
            unmount(place)
            place.rmdir()
