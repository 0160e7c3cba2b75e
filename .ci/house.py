"""What no linter sees: that notebooks, library and helpers stay as readable as they are. Run by `make check`.

Directions of imports are held by nbs/00a_reach.ipynb, widths by ruff, types by mypy.
"""
import ast
import builtins
import json
import symtable
import sys
from collections import defaultdict
from pathlib import Path

from book import notebooks, soiled

ROOT = Path(__file__).resolve().parent.parent
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
FUNCTION_LINES = 40      # of a function, at most
CELL_LINES = 14, 35      # of an exported cell: half of them are shorter than the first, nine in ten than the second
NODES = 15, 22           # of syntax a line, over functions of three lines and more, likewise
NESTED = 1               # comprehensions inside comprehensions, in 1,000 lines
TWIN_LINES = 6           # lines that stand twice make a twin
TWINS = 0                # of the library, at most


def exported_cells():
    "(where, source) of each exported cell"
    for path in notebooks():
        for i, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
            source = "".join(cell["source"])
            if source.startswith("#| export"): yield f"{path.relative_to(ROOT)}, cell {i}", source


def functions(tree):
    "Every function below"
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def density(function):
    "Syntax nodes a line of its body, and how many lines that is"
    nodes = [node for statement in function.body for node in ast.walk(statement)]
    lines = {node.lineno for node in nodes if hasattr(node, "lineno")}
    return len(nodes) / max(len(lines), 1), len(lines)


def share(values, part):
    "The value below which that part of them lies"
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def too_long():
    "Functions longer than half a screen"
    for where, source in exported_cells():
        for function in functions(ast.parse(source)):
            lines = function.end_lineno - function.lineno + 1
            if lines > FUNCTION_LINES: yield f"{where}: {function.name} has {lines} lines, {FUNCTION_LINES} at most"


def too_dense():
    "Cells, lines and comprehensions beyond what the project set itself"
    lengths, densities, nested, lines = [], [], 0, 0
    for _, source in exported_cells():
        tree = ast.parse(source)
        lengths.append(sum(bool(line.strip()) for line in source.splitlines()))
        lines += lengths[-1]
        densities += [nodes for nodes, n in map(density, functions(tree)) if n >= 3]
        nested += sum(is_nested(node) for node in ast.walk(tree) if isinstance(node, COMPREHENSIONS))
    measures = ("lines an exported cell", lengths, CELL_LINES), ("nodes a line", densities, NODES)
    for name, values, (half, most) in measures:
        measured = share(values, 0.5), share(values, 0.9)
        print(f"{name}: {measured[0]:.0f} and {measured[1]:.0f} (half, nine in ten)")
        if measured[0] > half or measured[1] > most: yield f"{name}: more than {half} and {most}"
    print(f"nested comprehensions in 1,000 lines: {1000 * nested / lines:.1f}")
    if 1000 * nested / lines > NESTED: yield f"{nested} nested comprehensions in {lines} lines"


def is_nested(comprehension):
    "Whether a comprehension holds another"
    return any(isinstance(node, COMPREHENSIONS) for node in ast.walk(comprehension) if node is not comprehension)


def telling(path):
    "(line number, line) of those that say something: no blanks, comments, imports or lone punctuation"
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        line = line.strip()
        if line.startswith(("#", "import ", "from ")) or not any(c.isalnum() for c in line): continue
        yield number, line


def twins():
    "Places of the library that share lines with another"
    seen = defaultdict(list)
    for path in sorted((ROOT/"multimodal_fakes").rglob("*.py")):
        if path.name == "_modidx.py": continue
        lines = list(telling(path))
        for i in range(len(lines) - TWIN_LINES + 1):
            run = tuple(line for _, line in lines[i:i + TWIN_LINES])
            seen[run].append(f"{path.relative_to(ROOT)}:{lines[i][0]}")
    return [places for places in seen.values() if len(places) > 1]


def repeated():
    "More twins than there were"
    pairs = twins()
    print(f"runs of {TWIN_LINES} lines that stand twice: {len(pairs)}")
    if len(pairs) > TWINS: yield from (" and ".join(places) + " share six lines" for places in pairs)


def untagged():
    "Stage notebooks without exactly one parameters cell"
    for path in notebooks():
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        is_stage = any("".join(cell["source"]).startswith("#| stage") for cell in cells)
        tagged = sum("parameters" in cell["metadata"].get("tags", []) for cell in cells)
        if is_stage and tagged != 1: yield f"{path.relative_to(ROOT)}: {tagged} cells tagged `parameters`, not one"


def without_types(source):
    "A source without what only type checkers see"
    tree = ast.parse(source)
    tree.body = [node for node in tree.body if not ast.unparse(node).startswith("if TYPE_CHECKING:")]
    return ast.unparse(tree)


def asked_of_all(table):
    "Global names that a source, its functions and comprehensions ask for"
    is_module = table.get_type() == "module"
    names = {s.get_name() for s in table.get_symbols() if s.is_referenced() and (is_module or s.is_global())}
    return names.union(*map(asked_of_all, table.get_children()))


def starred(source):
    "Names that `from … import *` of our own rooms brings"
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.ImportFrom) and node.names[0].name == "*"): continue
        room = (ROOT/node.module.replace(".", "/")).with_suffix(".py")
        lines = ast.parse(room.read_text(encoding="utf-8")).body
        names = next(line.value for line in lines if ast.unparse(line).startswith("__all__"))
        yield from ast.literal_eval(names)


def unknown_names():
    "Names that a stage asks for and none of the cells that it runs defines"
    for path in notebooks():
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        stage = "\n".join(source for source in sources if source.startswith("#| stage"))
        if not stage: continue
        tagged = ["".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
        runs = [*tagged, *(s for s in sources if s.startswith("#| export")), stage]
        defined = symtable.symtable(without_types("\n".join(runs)), str(path), "exec")
        known = {s.get_name() for s in defined.get_symbols() if s.is_assigned() or s.is_imported() or s.is_namespace()}
        asked = asked_of_all(symtable.symtable(stage, str(path), "exec"))
        for name in sorted(asked - known - {*starred(stage), *dir(builtins)}):
            yield f"{path.relative_to(ROOT)}: the stage asks for {name}, which no cell that it runs defines"


def dirty():
    "Saved outputs with progress bars, warnings or paths"
    for path in notebooks():
        name = path.relative_to(ROOT)
        for cell, what in soiled(path): yield f"{name}, cell {cell}: the output has {what}; `make book`"


if __name__ == "__main__":
    wrong = [*too_long(), *too_dense(), *repeated(), *untagged(), *unknown_names(), *dirty()]
    if wrong: sys.exit("\n".join(wrong))
