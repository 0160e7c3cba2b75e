"""That the documents say what is so. Run by `make docs`, and `python docs/check.py tutorial` by `make tutorial`.

- Every command of a guide can be typed: mmfakes takes it, make has such a target. It is run by the tutorial, by a
  notebook that is named, or there stands why not.
- No page of the site leads nowhere, and none needs a network.
- The reference has the library's public names, with words.
"""
import argparse
import ast
import contextlib
import html
import io
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pages import verbs

from multimodal_fakes import cli
from multimodal_fakes.reach import library

ROOT = Path(__file__).resolve().parent.parent
DOCS, MADE, SITE = ROOT/"docs", ROOT/"_docs/made", ROOT/"_docs/site"
BLOCK = re.compile(r"^( *)```(?:bash|sh)[^\n]*\n(.*?)^\1```", re.M | re.S)
INDENTED = re.compile(r"(?:^ {4}\S.*\n)+(?:(?:^ {4}.*)?\n)*", re.M)
SAID = re.compile(r"^\*(Run by|Not run here)\b.*$", re.M)
PIECE = re.compile(r'^--8<-- "(.+)"$', re.M)
NOWHERE = "not in the reference"
OWN = "README.md", "CONTRIBUTING.md", "deploy/README.md"
LEAST = 0.95         # of the public names: in the reference, with words, with words for each parameter


# ---- commands

def expanded(text):
    "A page with the pieces of the repository's texts that it quotes"
    def piece(match):
        path = next(path for path in (MADE/"pieces"/match[1], ROOT/match[1]) if path.exists())
        return path.read_text(encoding="utf-8")
    return PIECE.sub(piece, text)


def blocks(text):
    "Every block of commands, fenced or indented"
    for match in BLOCK.finditer(text): yield match[2]
    for match in INDENTED.finditer(re.sub(r"^ *```.*?^ *```", "", text, flags=re.M | re.S)): yield match[0]


def commands(block):
    "The words of each mmfakes and make in a block, without what pipes, joins and comments it"
    for line in block.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>()")
        lexer.whitespace_split, lexer.commenters = True, "#"
        try: words = list(lexer)
        except ValueError: continue                     # a line of a text that begins in another
        command = []
        for word in [*words, ";"]:
            if word and set(word) <= set("|&;<>()"):
                while command and "=" in command[0]: command = command[1:]
                if command and command[0] in ("mmfakes", "make") and command[-1] != "…": yield command
                command = []
            else: command.append(word)


def refusal(command, parser, targets):
    "What is against a command; none where it can be typed"
    program, *words = command
    if program == "make":
        named = [word for word in words if "=" not in word and not word.startswith("-")]
        wrong = [word for word in named if word not in targets]
        return f"make has no target {wrong[0]}" if wrong else None
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()): parser.parse_args(words)
    except SystemExit as e:
        if e.code: return told.getvalue().strip().splitlines()[-1]
    return None


def spans(text):
    "Commands that stand in a sentence"
    return re.findall(r"(?<!`)`((?:mmfakes|make) [^`\n]+)`(?!`)", text)


def unknown(command, parser, targets):
    "What is against a command that a sentence may name in part, such as a verb and one of its options"
    program, *words = command
    is_whole = program == "make" or len(words) > 2 and "…" not in words
    if is_whole: return refusal(command, parser, targets)
    if not words or words[0].isupper() or words[0].startswith("-"): return None     # `mmfakes VERB --help`
    verb = verbs().get(words[0])
    if verb is None: return f"there is no verb {words[0]}"
    wrong = [word for word in words if word.startswith("--") and word not in verb._option_string_actions]
    return f"{words[0]} has no option {wrong[0]}" if wrong else None


def wrong_page(path, parser, targets):
    "All that is against the commands of a page"
    text = expanded(path.read_text(encoding="utf-8"))
    found = [command for block in blocks(text) for command in commands(block)]
    in_words = [command for span in spans(text) for command in commands(span)]
    reasons = [(command, refusal(command, parser, targets)) for command in found]
    reasons += [(command, unknown(command, parser, targets)) for command in in_words]
    for command, reason in reasons:
        if reason: yield f"{path.relative_to(ROOT)}: {' '.join(command)}: {reason}"
    if path.parent == DOCS or DOCS not in path.parents or not list(blocks(text)): return
    said = SAID.search(text)
    if not said: yield f"{path.relative_to(ROOT)}: no line *Run by …* or *Not run here: why* beside its commands"
    elif said[1] == "Run by": yield from unrun(path, said[0], found)


def unrun(path, line, found):
    "Verbs of a page that the notebooks which it names do not run"
    names = re.findall(r"\(([^)]+)\)", line)
    ran = "".join((path.parent/".."/name).with_suffix(".ipynb").read_text(encoding="utf-8") for name in names)
    for verb in {command[1] for command in found if command[0] == "mmfakes"}:
        if re.search(rf"mmfakes {verb}\b|\"{verb}\\?\"", ran): continue
        yield f"{path.relative_to(ROOT)}: mmfakes {verb} is not in {', '.join(names)}"


def check_commands():
    "Every page that a person wrote, and the repository's own"
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT/"Makefile").read_text(encoding="utf-8"), re.M))
    parser, pages = cli.make_parser(), [*sorted(DOCS.rglob("*.md")), *(ROOT/name for name in OWN)]
    said = [line for path in pages for line in wrong_page(path, parser, targets)]
    print(f"commands of {len(pages)} pages: {len(said)} that cannot be typed, or that nothing runs")
    return said


# ---- the site

def links(text):
    "(tag, address) of all that a page points at"
    for tag, rest in re.findall(r"<(a|img|script|link|iframe|source|video)\b([^>]*)>", text):
        for address in re.findall(r'\b(?:href|src)="([^"]*)"', rest): yield tag, html.unescape(address)


def wrong_link(path, tag, address, anchors):
    "What is against a link; none where it leads on, or to another site that a reader may open"
    parts = urlsplit(address)
    if parts.scheme in ("data", "mailto"): return None
    if parts.scheme or parts.netloc: return None if tag == "a" else f"fetches {address}"
    target = (path.parent/unquote(parts.path)).resolve() if parts.path else path
    if target.is_dir(): target = target/"index.html"
    if not target.exists(): return f"leads to {address}, which is not there"
    named = unquote(parts.fragment)
    if not named or target not in anchors or named in anchors[target] or named.startswith("__"): return None
    return f"leads to {address}, where nothing is called so"


def check_site():
    "Links that lead nowhere, and what a page would fetch; 404.html begins at the root of a server, so it is left out"
    files = [path for path in sorted(SITE.rglob("*.html")) if path.name != "404.html"]
    pages = {path: path.read_text(encoding="utf-8") for path in files}
    anchors = {path: set(re.findall(r'\b(?:id|name)="([^"]+)"', text)) for path, text in pages.items()}
    said = set()
    for path, text in pages.items():
        reasons = {wrong_link(path, tag, address, anchors) for tag, address in links(text)} - {None}
        said |= {f"{path.relative_to(SITE)} {reason}" for reason in reasons}
    print(f"site: {len(pages)} pages, {len(said)} links that lead nowhere or to a network")
    return sorted(said)


# ---- public names

FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef


def shown_names(tree):
    "What a module has in `__all__`"
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def assigned(node):
    "Names that an assignment of a module sets"
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]


def public(tree):
    "(name, node) of all that a module shows: constants, functions, classes and their methods, those by `@patch` too"
    shown = shown_names(tree)
    for node in tree.body:
        owner = patched(node)
        if isinstance(node, ast.Assign | ast.AnnAssign):
            yield from ((name, node) for name in assigned(node) if name in shown)
        elif owner:
            if "_" not in (owner[0], node.name[0]): yield f"{owner}.{node.name}", node
        elif isinstance(node, FUNCTION | ast.ClassDef) and node.name in shown:
            yield node.name, node
            inside = node.body if isinstance(node, ast.ClassDef) else []
            methods = [part for part in inside if isinstance(part, FUNCTION)]
            yield from ((f"{node.name}.{part.name}", part) for part in methods if not part.name.startswith("_"))


def patched(node):
    "The class that `@patch` gives a function to"
    if not isinstance(node, ast.FunctionDef): return None
    decorators = [ast.unparse(decorator).partition("(")[0] for decorator in node.decorator_list]
    return ast.unparse(node.args.args[0].annotation).strip("'\"") if "patch" in decorators else None


def shares(names, told):
    "(what, share) of the public names, and a line for each that lacks it"
    lacking = [f"{name}: {words}" for name, said in names.items() for words in said]
    functions = [name for name in names if name in told]
    counted = {
        "in the reference": sum(NOWHERE not in said for said in names.values()) / len(names),
        "of the functions with words": sum(told[name]["text"] for name in functions) / len(functions),
        "of the functions with words for every parameter":
            sum(not told[name]["lacking"] for name in functions) / len(functions)}
    return counted, lacking


def check_names():
    "How much of the library the reference has, and with what words"
    told = json.loads((MADE/"told.json").read_text(encoding="utf-8"))
    text = "".join(path.read_text(encoding="utf-8") for path in (SITE/"reference/python").glob("*.html"))
    there = set(re.findall(r'id="multimodal_fakes\.([^"]+)"', text))
    told = {name.removeprefix("multimodal_fakes."): said for name, said in told.items()}
    homes = {".".join(name.split(".")[-2:]): name for name in told}        # of methods by `@patch`
    names = {}
    for module, path in library().items():
        for name, node in public(ast.parse(path.read_text(encoding="utf-8"))):
            home = homes.get(name) if patched(node) else f"{module}.{name}"
            said = told.get(home, {"text": True, "lacking": []})
            names[home or f"{module}.{name}"] = [
                *([] if home in there else [NOWHERE]), *([] if said["text"] else ["no words"]),
                *(f"no words for {parameter}" for parameter in said["lacking"])]
    counted, lacking = shares(names, told)
    print(f"{len(names):,} public names: " + ", ".join(f"{share:.1%} {what}" for what, share in counted.items()))
    short = [what for what, share in counted.items() if share < LEAST]
    return [f"public names {what}: {counted[what]:.1%}, {LEAST:.0%} at least" for what in short], lacking


# ---- the tutorial

def tutorial():
    "Run its commands, one after the other, as a reader types them"
    text = (DOCS/"tutorial.md").read_text(encoding="utf-8")
    steps = [match[2] for match in BLOCK.finditer(text)]
    script = "set -eEuo pipefail\ntrap 'jobs -p | xargs -r kill' EXIT\n"
    for step in steps: script += f"cat <<'END_OF_STEP'\n\n$ {step.strip()}\nEND_OF_STEP\n{step}\n"
    print(f"{len(steps)} steps of docs/tutorial.md", flush=True)
    return subprocess.run(["bash", "-c", script], cwd=ROOT).returncode


def main():
    "What is asked for: commands, site or tutorial; --lacking lists what has no words"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("commands", "site", "tutorial"))
    parser.add_argument("--lacking", action="store_true")
    args = parser.parse_args()
    if args.what == "tutorial": sys.exit(tutorial())
    if args.what == "commands": said = check_commands()
    else:
        short, lacking = check_names()
        said = [*check_site(), *short]
        if args.lacking: print("\n".join(lacking))
    print("\n".join(said), end="\n" if said else "")
    sys.exit(bool(said))


if __name__ == "__main__": main()
