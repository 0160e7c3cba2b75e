"""What holds for any file that git keeps, whatever its kind. Run by `make check-files`, as a part of `make check`."""
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
MOST_KB = 2048                             # of one file: data, models and what is made of them stay out of git
MARKERS = tuple(f"{mark * 7} " for mark in "<>|")
WRITTEN = (".ipynb", ".lock", ".svg")      # by programs, whose blanks and ends are their own
BREAKS = "README.md"                       # nbconvert writes it
FIXTURES = ROOT/"nbs/data/fixtures"        # published layouts as they are, broken ones among them

def parse_yaml(text):
    "Every document, whatever tags only its program knows"
    return list(yaml.parse(text, Loader=yaml.SafeLoader))

PARSERS = {".json": json.loads, ".ipynb": json.loads, ".toml": tomllib.loads, ".yaml": parse_yaml, ".yml": parse_yaml}

def wrong_syntax(path, text):
    "What its kind of file cannot be read as"
    parse = PARSERS.get(path.suffix)
    if parse is None:
        return
    try:
        parse(text)
    except (ValueError, yaml.YAMLError) as e:
        yield f"no {path.suffix[1:].upper()}: {' '.join(str(e).split())}"

def wrong_lines(path, text):
    "Marks of a merge, blanks at the end of a line, an end that is no single line break"
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        if line.startswith(MARKERS):
            yield f"line {number}: a mark of a merge"
        if line != line.rstrip() and not is_written(path):
            yield f"line {number}: blanks at its end"
    if text and not is_written(path) and (not text.endswith("\n") or text.endswith("\n\n")):
        yield "should end with one line break"

def is_written(path):
    "Whether a program writes it"
    return path.suffix in WRITTEN or path.name == BREAKS

def wrong(path):
    "All that is against a file"
    size = path.stat().st_size
    if size > MOST_KB * 1024:
        yield f"{size / 1024:.0f} KB, {MOST_KB} at most"
    if FIXTURES in path.parents:
        return
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return                             # a picture, a font
    yield from wrong_lines(path, text)
    yield from wrong_syntax(path, text)

def kept_files():
    "Those that git knows, with their paths"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT/name for name in listed.stdout.split("\0") if name]

def main():
    "Say what is wrong, a line each"
    files = [path for path in kept_files() if path.is_file()]
    said = [f"{path.relative_to(ROOT)}: {what}" for path in files for what in wrong(path)]
    print("\n".join(said) or f"{len(files)} files: whole, and as their kinds are written")
    sys.exit(bool(said))

if __name__ == "__main__":
    main()
