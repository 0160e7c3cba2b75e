"""Drop from saved outputs what is no result: progress bars, standard error, empty displays. Run by `make book`.

`python .ci/book.py` cleans the notebooks; `soiled`, which .ci/house.py calls, names what should not be in them.
"""
import re
from pathlib import Path

import nbformat

NBS = Path(__file__).resolve().parent.parent/"nbs"
BAR = re.compile(r"\d+%\|.*\| *[\d,]+/[\d,]+|\d+(\.\d+)? ?(it|s)/(s|it)\b|\b0it \[")
PLACE = re.compile(r"(?<![\w.:/])/(work|tmp|root|home)/[\w./-]+|\b0x[0-9a-f]{8,}\b")


def notebooks():
    "Every notebook of the book"
    return sorted(p for p in NBS.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)


def words(output):
    "What an output shows as text"
    return output.get("text", "") or output.get("data", {}).get("text/plain", "")


def is_noise(output):
    "Whether an output is no result"
    is_empty = output["output_type"] == "display_data" and not output["data"]     # the place of a curve never drawn
    is_module = words(output).startswith("<module ")                              # what `need` found
    return is_empty or is_module or output.get("name") == "stderr" or bool(BAR.search(words(output)))


def soiled(path):
    "(cell number, what) of saved outputs that should not be there"
    for i, cell in enumerate(nbformat.read(path, 4).cells):
        outputs = cell.get("outputs", [])
        if any(map(is_noise, outputs)): yield i, "a progress bar, standard error, a module or an empty display"
        places = [PLACE.search(words(output)) for output in outputs]
        if any(places): yield i, f"{next(filter(None, places))[0]}, of one machine"


def joined(outputs):
    "With what was printed in pieces as one"
    whole = []
    for output in outputs:
        follows = whole and output.get("name") == "stdout" == whole[-1].get("name")
        if follows: whole[-1].text += output.text
        else: whole.append(output)
    return whole


def clean(path):
    "Write the notebook without noise"
    nb = nbformat.read(path, 4)
    for cell in nb.cells:
        if cell.cell_type != "code": continue
        cell.outputs = joined([output for output in cell.outputs if not is_noise(output)])
    nbformat.write(nb, path)


if __name__ == "__main__":
    for path in notebooks(): clean(path)
