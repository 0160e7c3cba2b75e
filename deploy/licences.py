"""Licences of what the images hold: read from installed packages, held against judged.yaml, written to LICENCES.md.

    python deploy/licences.py cpu=FOLDER cuda=FOLDER mlflow=FOLDER    # site-packages; `make deploy-licences` makes them

What is linked into a library leaves no trace but in licence files: one that names the GPL needs a line of its own in
judged.yaml.
"""
import re
import sys
from fnmatch import fnmatch
from importlib.metadata import distributions
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
TABLE = HERE/"LICENCES.md"
ORDER = ("free", "replaceable", "terms", "nobody judged", "binds")     # from what asks least
LICENCE_FILE = re.compile(r"(?i)(licen[cs]e|copying|notice|third.?party)")
GPL = re.compile(r"GNU\s+(AFFERO\s+)?GENERAL\s+PUBLIC|(?<![A-Z])A?GPL", re.I)
LIBRARY = re.compile(r"(^|/)lib[^/]*\.so[.\d]*$|\.libs/[^/]+$")
ROW = re.compile(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|", re.M)

def canonical(name):
    "A name as locks write it"
    return re.sub(r"[-_.]+", "-", name).lower()

def judgement(
    licence,   # SPDX expression
    judged,    # of judged.yaml
) -> str: # of ORDER
    "What a licence asks: of licences joined by OR the least, of those joined by AND the most"
    licence = licence.strip()
    if re.fullmatch(r"\([^()]*\)", licence):
        licence = licence[1:-1]
    for joint, choose in ((" AND ", max), (" OR ", min)):
        parts = re.split(rf"{joint}(?![^(]*\))", licence)
        if len(parts) > 1:
            return choose((judgement(part, judged) for part in parts), key=ORDER.index)
    return judged["licences"].get(licence, "nobody judged")

def stated_licence(distribution, judged):
    "SPDX: as judged, or as metadata state it, exactly or in words; what they state if that is not known"
    name = canonical(distribution.metadata["Name"])
    if name in judged["distributions"]:
        return judged["distributions"][name]
    exact = distribution.metadata.get("License-Expression")
    if exact:
        return exact
    first = (distribution.metadata.get("License") or "").strip().splitlines()[:1]
    classifiers = distribution.metadata.get_all("Classifier", [])
    stated = [*first, *(c.split(" :: ")[-1] for c in classifiers if c.startswith("License"))]
    known = [judged["words"].get(words, words) for words in stated]
    return next((k for k in known if k in judged["licences"]), ", ".join(stated) or "none stated")

def libraries_of(distribution):
    "Names of the shared libraries that a wheel brings beside its modules"
    files = [str(file) for file in distribution.files or []]
    return sorted({Path(file).name for file in files if LIBRARY.search(file) and ".cpython-" not in file})

def library_licence(file, judged):
    "By the longest beginning of its name that is judged"
    known = [start for start in judged["libraries"] if file.startswith(start)]
    return judged["libraries"][max(known, key=len)] if known else "unknown"

def names_gpl(distribution):
    "Its licence files that name the GPL"
    for file in distribution.files or []:
        path = Path(distribution.locate_file(file))
        if LICENCE_FILE.search(str(file)) and path.suffix in ("", ".txt", ".md", ".rst") and path.is_file():
            if GPL.search(path.read_text(errors="replace")):
                yield str(file)

def row_of(
    distribution,
    judged,   # of judged.yaml
) -> dict:
    "What one distribution asks"
    name = canonical(distribution.metadata["Name"])
    licence = stated_licence(distribution, judged)
    libraries = {}
    for file in libraries_of(distribution):
        plain = re.sub(r"[-.][0-9a-f]{8}(?=[-.])|\.so.*", "", file)      # without the sum that auditwheel adds
        libraries.setdefault(library_licence(file, judged), []).append(plain)
    asked = [judgement(each, judged) for each in (licence, *libraries)]
    explained = any(fnmatch(name, pattern) for pattern in judged["gpl_named"])
    if not explained and any(names_gpl(distribution)):
        asked.append("nobody judged")
    return {
        "name": name,
        "version": distribution.version,
        "licence": licence,
        "libraries": libraries,
        "judgement": max(asked, key=ORDER.index),
    }

def read_judged():
    "judged.yaml"
    return yaml.safe_load((HERE/"judged.yaml").read_text())

def read_environments(
    environments,   # image → site-packages
) -> dict: # name → row, with the images that hold it
    "Every distribution of every image but our own; PyAV too, where it is there, for its wheel binds"
    judged, rows = read_judged(), {}
    for image, folder in environments.items():
        for distribution in distributions(path=[str(folder)]):
            row = row_of(distribution, judged)
            if row["name"] != "multimodal-fakes":
                rows.setdefault(row["name"], row | {"images": []})["images"].append(image)
    return rows

def written(row) -> str:
    "A line of the table"
    inside = sorted(row["libraries"].items())
    libraries = [f"{', '.join(sorted(set(names)))} ({licence})" for licence, names in inside]
    images = " ".join(row["images"])
    cells = row["name"], row["version"], images, row["judgement"], row["licence"], "; ".join(libraries) or "–"
    return f"| {' | '.join(cells)} |"

def built_row(name, version, licence, where, judged):
    "What the images build themselves; `where` says how"
    return {
        "name": name,
        "version": str(version),
        "licence": licence,
        "libraries": {where: ["built from source"]},
        "judgement": judgement(licence, judged),
        "images": ["cpu", "cuda"],
    }

def write_table(rows):
    "LICENCES.md"
    judged = read_judged()
    built = [built_row(name, *about, judged) for name, about in judged["built"].items()]
    rows = {row["name"]: row for row in built} | rows
    lines = [written(row) for _, row in sorted(rows.items())]
    pipeline = [f"- {name}: {licence}; {where}." for name, (licence, where) in judged["pipeline"].items()]
    TABLE.write_text(HEAD + "\n".join(lines) + TAIL + "\n".join(pipeline) + "\n")

HEAD = """# Licences of what the images hold

Written by `make deploy-licences` from the metadata of the installed packages and deploy/judged.yaml; `make deploy-lint`
fails where a lock holds what is not here, what nobody judged, or what binds. *free*: its notice stays with it.
*replaceable*: LGPL, MPL; besides, its source is to be had, and it lies in files of its own that can be exchanged.
*terms*: NVIDIA's, which let an application carry what it uses. The packages of the base image, Debian's and Python,
have theirs in /usr/share/doc and /usr/local/lib/python3.11/LICENSE.txt.

| distribution | version | images | judgement | licence | libraries inside |
|---|---|---|---|---|---|
"""
TAIL = """

## In the image that trains, which whoever uses it builds, and in an environment that does; in no other image

"""

def wrong_licences(
    locks,   # image → {name: versions} of its lock
):
    "What binds, what nobody judged, and what the table lacks"
    found = ROW.findall(TABLE.read_text())
    rows = {name: (version, images.split(), asked) for name, version, images, asked, _ in found}
    for image, pinned in locks.items():
        for name, versions in pinned.items():
            version, images, _ = rows.get(name, ("", (), ""))
            if version not in versions or image not in images:
                yield (f"LICENCES.md lacks {name} {', '.join(sorted(versions))} of the image {image}; "
                       "run `make deploy-licences`, and judge what is new in judged.yaml")
    for name, (version, images, asked) in rows.items():
        if asked in ("binds", "nobody judged"):
            yield f"{name} {version} of {' and '.join(images)}: {asked}; see LICENCES.md and judged.yaml"

if __name__ == "__main__":
    named = dict(argument.split("=", 1) for argument in sys.argv[1:])
    found = read_environments(named)
    write_table(found)
    wrong = [row for row in found.values() if row["judgement"] in ("binds", "nobody judged")]
    for row in wrong:
        print(f"{row['name']} {row['version']}: {row['judgement']} ({row['licence']}; {row['libraries']})")
    print(f"{len(found)} distributions, {len(wrong)} that may not be in an image")
    sys.exit(bool(wrong))
