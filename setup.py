"""Takes the notebooks and studies into the package where it is built: an installed wheel then has them too.

All else about the package is in pyproject.toml. In a checkout (an editable install) they are read from notebooks/.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

NOTEBOOKS = Path("notebooks")
KINDS = (".ipynb", ".yaml", ".md")


class BuildWithNotebooks(build_py):
    """build_py, which also copies notebooks/ to asit_lab/notebooks/."""

    def run(self) -> None:
        super().run()
        for source, target in self._copies().items():
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return [*super().get_outputs(include_bytecode), *self._copies().values()]

    def _copies(self) -> dict[str, str]:
        """File in the checkout -> file in the package that is built; none for an editable install."""
        if self.editable_mode:
            return {}
        files = [path for path in sorted(NOTEBOOKS.rglob("*")) if path.suffix in KINDS and not _hidden(path)]
        return {str(path): str(Path(self.build_lib) / "asit_lab" / path) for path in files}


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


setup(cmdclass={"build_py": BuildWithNotebooks})
