"""Built with every sdist and wheel: the files that `mmfakes init` makes a project of, its notebooks without outputs."""
import json
import tempfile
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


def without_outputs(notebook):
    "The text of a notebook as it was written, before anybody ran it"
    nb = json.loads(notebook.read_text(encoding="utf-8"))
    for cell in nb["cells"]:
        if cell["cell_type"] == "code": cell.update(outputs=[], execution_count=None)
    return json.dumps(nb, indent=1, ensure_ascii=False) + "\n"


class CustomBuildHook(BuildHookInterface):
    "Adds the files that pyproject.toml lists; an editable install reads them in the clone"
    def initialize(self, version, build_data):
        if version == "editable": return
        place = {"wheel": "multimodal_fakes/project/", "sdist": ""}[self.target_name]
        self.bare = tempfile.TemporaryDirectory()
        for name in self.config["project"]:
            build_data["force_include"][str(self._bare(Path(self.root)/name))] = f"{place}{name}"

    def _bare(self, path):
        "A notebook without its outputs; anything else as it is"
        if path.suffix != ".ipynb": return path
        copy = Path(self.bare.name)/path.name
        copy.write_text(without_outputs(path), encoding="utf-8")
        return copy

    def finalize(self, version, build_data, artifact_path):
        if version != "editable": self.bare.cleanup()
