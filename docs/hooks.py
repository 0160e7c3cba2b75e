"""For mkdocs: what pages.py made and files of the repository; formulas and search without a network."""
import html
import json
import re
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.structure.files import File
from mkdocs.utils import get_relative_url

ROOT = Path(__file__).resolve().parent.parent
MADE = ROOT/"_docs/made"
CARRIED = ("conf/**/*.yaml", "conf/*.json", "deploy/**/*.yaml", "deploy/*.conf", "deploy/*.py", "README_files/*",
           "LICENSE")
FETCHED, COPY = "https://unpkg.com/iframe-worker/shim", "assets/iframe-worker.js"
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.S)


def placed(nav, made):
    "The navigation with what was made in place of its name"
    if isinstance(nav, list): return [placed(part, made) for part in nav]
    if isinstance(nav, dict): return {name: placed(part, made) for name, part in nav.items()}
    return made.get(nav, nav)


def on_config(config):
    "Chapters of the book and modules, into the navigation"
    made = json.loads((MADE/"nav.json").read_text(encoding="utf-8"))
    config.nav = placed(config.nav, {f"made:{name}": part for name, part in made.items()})
    return config


def on_files(files, config):
    "What was made, and what the texts of the repository point at"
    carried = [path.relative_to(ROOT) for pattern in CARRIED for path in sorted(ROOT.glob(pattern))]
    made = [path.relative_to(MADE/"pages") for path in sorted((MADE/"pages").rglob("*")) if path.is_file()]
    for folder, names in ((ROOT, carried), (MADE/"pages", made)):
        for name in names: files.append(File(str(name), str(folder), config.site_dir, config.use_directory_urls))
    return files


def drawn(match):
    "A formula as browsers draw it by themselves"
    return convert(html.unescape(match[2]), display="block" if match[1] == "div" else "inline")


def on_page_content(content, page, config, files):
    "Formulas as MathML"
    return FORMULA.sub(drawn, content)


def on_post_page(output, page, config):
    "The one script that the theme would fetch, from our own copy"
    return output.replace(FETCHED, get_relative_url(COPY, page.url))


def on_post_template(output_content, template_name, config):
    "Likewise in the page of an address that does not exist"
    return output_content.replace(FETCHED, f"/{COPY}")
