"""The pages that nobody writes: settings, commands, HTTP, Python, files, and the book. Run by `make docs`.

`python docs/pages.py FOLDER` writes them, from the schemas, the parser, the service's document, the exported modules
and the notebooks as they were saved; nothing is run or trained. mkdocs.yml lays them beside what stands in docs/.
"""
import argparse
import ast
import inspect
import json
import os
import re
import shutil
import sys
import textwrap
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter
from traitlets.config import Config

from multimodal_fakes import cli
from multimodal_fakes.core import read_yaml
from multimodal_fakes.experts.confs import CONFS
from multimodal_fakes.record import DatasetConf, TaskWords
from multimodal_fakes.service.engine import Engine
from multimodal_fakes.service.respond import ServeConf
from multimodal_fakes.service.serve import make_app
from multimodal_fakes.settings import SECTIONS, Whole
from multimodal_fakes.stubs import comment_of

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\]\((?!\w+:|#|/)([^)\s#]+)(#[^)\s]*)?\)")
HOME = {    # what a file or folder of the repository is called here
    "README.md": "index.md",
    "nbs": "index.md",
    "deploy": "deploy/README.md",
    "deploy/clouds": "deploy/README.md",
    "conf/dataset": "reference/datasets.md",
    "conf/encoder": "reference/encoders.md",
    "conf/task": "reference/tasks.md",
}
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<", "minItems": "items ≥"}


# ---- links, tables

def at_home(path, text, page):
    "A text of the repository with links that lead where its targets stand in these pages"
    def moved(match):
        target = os.path.normpath(Path(path).parent/match[1])
        target = HOME.get(target, target).removeprefix("docs/").replace(".ipynb", ".md")
        return f"]({os.path.relpath(target, Path(page).parent)}{match[2] or ''})"
    text = re.sub(r"\]\((#[^)\s]+)\)", lambda match: f"]({match[1].lower()})", text)      # as titles are called here
    return LINK.sub(moved, text)


def cell(value):
    "A value inside a table"
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;")


def table(head, rows):
    "A Markdown table"
    lines = [head, ["---"] * len(head), *([cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def code(value):
    "A value as it is written in a file of settings"
    return f"`{json.dumps(value, ensure_ascii=False)}`" if value not in ("", None) else "" if value is None else '`""`'


# ---- settings

def comments(model):
    "field → the comment beside it, of a class and those that it is made of"
    words = {}
    for part in reversed(model.__mro__):
        if not hasattr(part, "model_fields") or part.__module__.startswith("pydantic"): continue
        source = textwrap.dedent(inspect.getsource(part))
        fields = [node for node in ast.parse(source).body[0].body if isinstance(node, ast.AnnAssign)]
        words |= {node.target.id: comment_of(node, source) for node in fields}
    return words


def kind(schema):
    "What values a schema takes, in words"
    if "$ref" in schema: return schema["$ref"].split("/")[-1]
    if "const" in schema: return f"`{schema['const']}`"
    if "enum" in schema: return ", ".join(f"`{value}`" for value in schema["enum"])
    if "anyOf" in schema: return " or ".join(map(kind, schema["anyOf"])).replace("null", "none")
    bounds = [f"{sign} {schema[name]:,}".removesuffix(".0") for name, sign in BOUNDS.items() if name in schema]
    name = schema.get("type", "anything")
    if name == "array" and "items" in schema: name = f"list of {kind(schema['items'])}"
    return ", ".join([name, *bounds])


def nested(model):
    "field → the class of settings that it holds"
    found = {name: field.annotation for name, field in model.model_fields.items()}
    return {name: part for name, part in found.items() if hasattr(part, "model_fields")}


def settings(model, title, stated=None, depth=2, prefix=""):
    "A heading and a table of what can be set, and of the settings inside, whose names begin with a prefix"
    words, inside = comments(model), nested(model)
    properties = model.model_json_schema()["properties"]
    rows = []
    for name, field in model.model_fields.items():
        if name in inside: continue
        own = None if field.is_required() else field.get_default(call_default_factory=True)
        default = (stated or {}).get(name, own)
        plain = code(default) if isinstance(default, str | int | float | list | dict | None) else ""
        rows.append([f"`{name}`", plain, kind(properties[name]), field.description or words.get(name, "")])
    told = [f"{'#' * depth} {title}\n", f"{inspect.getdoc(model) or ''}\n"]
    if rows: told.append(table(["setting", "value", "may be", "what it means"], rows))
    for name, part in inside.items():
        told.append(settings(part, f"`{prefix}{name}`", (stated or {}).get(name), depth + 1, f"{prefix}{name}."))
    return "\n".join(told)


def params_page():
    "params.yaml, section by section, with the values of the pilot"
    stated = read_yaml(ROOT/"params.yaml")
    head = ("# params.yaml\n\nA section a stage. `value` is the pilot's, in `params.yaml`; a profile of `conf/profile` "
            "states another. What a value may be is checked before the first stage runs, and all that is wrong is said "
            "at once.\n")
    told = [head, settings(Whole, "The run as a whole", stated)]
    for name, model in SECTIONS.items():
        values = stated.get(name, {})
        if name in ("expert", "tasks"): values = next(iter(values.values()), {})
        title = {"expert": "expert.<modality>", "tasks": "tasks.<task>"}.get(name, name)
        told.append(settings(model, f"`{title}`", values, prefix=f"{title}."))
    return "\n".join(told)


def files_of(folder):
    "Links to the files of a folder of conf"
    return ", ".join(f"[{path.stem}](../{folder}/{path.name})" for path in sorted((ROOT/folder).glob("*.yaml")))


def encoders_page():
    "Files of conf/encoder: what each modality takes"
    told = [f"# Encoders: conf/encoder\n\nOne file an encoder. There are: {files_of('conf/encoder')}.\n"]
    models = {}
    for modality, model in CONFS.items(): models.setdefault(model, []).append(modality)
    for model, modalities in models.items(): told.append(settings(model, " and ".join(modalities)))
    return "\n".join(told)


def conf_page(title, folder, model, words):
    "Files of one folder of conf"
    return f"# {title}\n\n{words} There are: {files_of(folder)}.\n\n" + settings(model, "Keys of a file")


def serve_page():
    "conf/serve.yaml"
    head = ("# conf/serve.yaml\n\nSettings of `mmfakes serve`, in [conf/serve.yaml](../conf/serve.yaml) with their "
            "defaults; `--conf` reads another file.\n\n")
    return head + settings(ServeConf, "All of it")


# ---- commands

def options(verb):
    "A table of what a verb takes"
    rows = []
    for action in verb._actions:
        if isinstance(action, argparse._HelpAction): continue
        value = f"`{action.metavar or action.dest}`"
        names = ", ".join(f"`{name}`" for name in action.option_strings)
        takes = ", ".join(f"`{choice}`" for choice in action.choices or []) or value
        about = (action.help or "").replace("%(default)s", str(action.default)).replace("%%", "%")
        rows.append([names or value, takes if names and action.nargs != 0 else "", about])
    return table(["argument", "takes", "what it means"], rows)


def verbs():
    "name → parser of every verb"
    parser = cli.make_parser()
    return next(action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))


def as_text(words):
    "Words as they stand in a terminal"
    return f"```text\n{words.strip()}\n```\n"


def cli_page():
    "Every verb of mmfakes"
    told = ["# mmfakes", "", "Exit status: 0, 1 on an error, 2 where the command was not understood. "
            "`mmfakes VERB --help` says the same in a terminal.", ""]
    for name, verb in verbs().items():
        told += [f"## mmfakes {name}", "", verb.description or "", "", as_text(verb.format_usage()), options(verb)]
        if verb.epilog: told.append(as_text(textwrap.dedent(verb.epilog)))
    return "\n".join(told)


# ---- HTTP

def fields(schema, components):
    "A table of the fields of a body or an answer"
    while "$ref" in schema: schema = components[schema["$ref"].split("/")[-1]]
    must = schema.get("required", [])
    rows = [[f"`{name}`", "must" if name in must else "", kind(field), field.get("description", "")]
            for name, field in schema.get("properties", {}).items()]
    return table(["field", "", "may be", "what it means"], rows) if rows else ""


def operation(method, path, asked, components):
    "One way to ask the service"
    told = [f"## {method.upper()} {path}", "", asked.get("description", ""), ""]
    parameters = [[f"`{p['name']}`", p["in"], kind(p.get("schema", {})), p.get("description", "")]
                  for p in asked.get("parameters", [])]
    if parameters: told.append(table(["parameter", "in", "may be", "what it means"], parameters))
    for content, body in asked.get("requestBody", {}).get("content", {}).items():
        told += [f"Body, `{content}`:", "", fields(body.get("schema", {}), components)]
    answers = []
    for status, answer in asked["responses"].items():
        bodies = [kind(body["schema"]) for body in answer.get("content", {}).values() if "schema" in body]
        named = ", ".join(f"`{body}`" for body in bodies if body != "anything")
        answers.append([status, answer.get("description", ""), named])
    return "\n".join([*told, table(["status", "when", "body"], answers)])


def http_page():
    "The service, from its own OpenAPI document"
    conf = ServeConf()
    document = make_app(conf, Engine(conf.engine, folders={})).openapi()
    components = document["components"]["schemas"]
    told = [f"# HTTP\n\n{document['info']['description']}\n\nA service that runs says the same at `/docs`, and as "
            "OpenAPI at `/openapi.json`.\n"]
    for path, methods in document["paths"].items():
        told += [operation(method, path, asked, components) for method, asked in methods.items()]
    told += ["## Bodies", ""]
    for name, schema in components.items():
        told += [f"### {name}", "", schema.get("description", ""), "", fields(schema, components)]
    return "\n".join(told)


# ---- the book, and what was exported from it

def book():
    "(chapter, notebooks) in the order of the README"
    chapters = []
    for line in (ROOT/"README.md").read_text(encoding="utf-8").splitlines():
        chapter = re.match(r"\| \*\*(\w+)\*\* \|", line)
        notebook = re.match(r"\| \[\w+\]\((nbs/\S+)\) \|", line)
        if chapter: chapters.append((chapter[1].replace("nbs", "ground"), []))
        if notebook: chapters[-1][1].append(notebook[1])
    return chapters


def exporter():
    "nbconvert's, with pictures in files of their own"
    shown = Config()
    shown.ExtractOutputPreprocessor.enabled = True
    return MarkdownExporter(config=shown)


def with_anchors(path, notebook):
    "A notebook whose code cells can be linked to, without those that are hidden, and with links that lead on"
    cells = []
    for part in notebook.cells:
        if part.source.startswith("#| hide"): continue
        if part.cell_type == "markdown": part.source = at_home(path, part.source, path)
        else: cells.append(nbformat.v4.new_markdown_cell(f'<a id="cell-{part.id}" class="cell"></a>'))
        cells.append(part)
    notebook.cells = cells
    notebook.metadata.language_info = {"name": "python"}      # nbdev keeps none, and code would have no colours
    return notebook


def write(folder, name, text):
    "One page"
    path = folder/name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.rstrip() + "\n", encoding="utf-8")


def write_notebook(convert, name, folder):
    "A notebook as it was saved, as a page and its pictures"
    notebook = nbformat.read(ROOT/name, 4)
    stem = Path(name).stem
    text, resources = convert.from_notebook_node(
        with_anchors(name, notebook), {"unique_key": stem, "output_files_dir": f"{stem}_files"})
    write(folder, Path(name).with_suffix(".md"), text)
    for picture, content in resources["outputs"].items():
        target = (folder/name).parent/picture
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(content)


def module_of(name):
    "The module that a notebook is exported to; none where it is exported to none"
    source = nbformat.read(ROOT/name, 4).cells[1].source
    found = re.match(r"#\| default_exp (\S+)", source)
    return found and found[1]


def python_pages(folder):
    "A page a module, which mkdocstrings fills"
    nav = {}
    for chapter, notebooks in book():
        for name in notebooks:
            module = module_of(name)
            if not module: continue
            notebook = Path("../..")/Path(name).with_suffix(".md")
            words = f"# {module}\n\n[The notebook]({notebook})\n\n::: multimodal_fakes.{module}\n"
            write(folder, f"reference/python/{module}.md", words)
            nav.setdefault(chapter, []).append({module: f"reference/python/{module}.md"})
    return [{chapter: pages} for chapter, pages in nav.items()]


# ---- pieces of the repository's own texts

def pieces(name):
    "slug → text, of the parts of a file that begin in bold, or with a heading"
    text = (ROOT/name).read_text(encoding="utf-8")
    for part in re.split(r"^(?=\*\*|## )", text, flags=re.M):
        head = re.match(r"\*\*(.+?)\.?\*\*|## (.+)", part)
        if head: yield re.sub(r"\W+", "-", (head[1] or head[2]).lower()).strip("-"), part


def write_pieces(folder):
    "What guides quote instead of saying it once more, with links as they are from a folder of pages"
    for name in ("README.md", "deploy/README.md"):
        for slug, part in pieces(name):
            write(folder, Path(name).parent/f"{slug}.md", at_home(name, part, "howto/page.md"))


def floors():
    "The chapters on their floors, top first, from the notebook that holds them"
    cells = nbformat.read(ROOT/"nbs/00a_reach.ipynb", 4).cells
    source = next(part.source for part in cells if part.source.startswith("FLOORS = "))
    stated = ast.literal_eval(ast.parse(source).body[0].value)
    rows = []
    for floor in reversed(stated):
        chapters = " beside ".join(chapter or "*top level*" for chapter in floor)
        rows.append([chapters, " / ".join(floor.values())])
    return table(["chapter", "rooms, each importing only from those before it and from the floors below"], rows)


def words():
    "Names of parameters that mean the same everywhere"
    everywhere = read_yaml(ROOT/"docs/words.yaml")["everywhere"]
    return table(["name", "is"], [[f"`{name}`", about] for name, about in everywhere.items()])


def files_page():
    "What each Step_N holds, as its own file says"
    parts = [(ROOT/f"Step_{n}/README.md").read_text(encoding="utf-8") for n in range(1, 6)]
    head = "# Files\n\nWhat a run writes, stage by stage; a profile's in `runs/<profile>`, with the same folders.\n"
    return "\n".join([head, *(f"#{part}" for part in parts)])


def main(folder):
    "Write all of it, and the part of the navigation that follows from it"
    pages = folder/"pages"
    shutil.rmtree(folder, ignore_errors=True)
    pages.mkdir(parents=True)
    write(pages, "reference/params.md", params_page())
    write(pages, "reference/encoders.md", encoders_page())
    write(pages, "reference/serve.md", serve_page())
    datasets = "One file a dataset: what its published files mean."
    write(pages, "reference/datasets.md", conf_page("Datasets: conf/dataset", "conf/dataset", DatasetConf, datasets))
    tasks = "One file for each task that somebody has written about, for report and cards."
    write(pages, "reference/tasks.md", conf_page("Words of a task: conf/task", "conf/task", TaskWords, tasks))
    write(pages, "reference/cli.md", cli_page())
    write(pages, "reference/http.md", http_page())
    write(pages, "reference/files.md", files_page())
    for name in ("deploy/README.md", "deploy/LICENCES.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        write(pages, name, at_home(name, (ROOT/name).read_text(encoding="utf-8"), name))
    convert, chapters = exporter(), book()
    for _, notebooks in chapters:
        for name in notebooks: write_notebook(convert, name, pages)
    write_pieces(folder/"pieces")
    write(folder/"pieces", "floors.md", floors())
    write(folder/"pieces", "words.md", words())
    shown = [{chapter: [name.replace(".ipynb", ".md") for name in names]}
             for chapter, names in chapters if chapter != "guides"]      # which stand among the other guides
    write(folder, "nav.json", json.dumps({"Book": shown, "Python": python_pages(pages)}))


if __name__ == "__main__": main(Path(sys.argv[1]))
