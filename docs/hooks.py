"""What the site has besides the pages in docs/: notebooks, the texts beside the code, and a page for each package.

Links in the pages are those of the repository, so that they work where its files are shown; here those to Python files
lead to the reference, and those to files that the site does not have become plain text.
"""

import posixpath
import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("data", "benchmarks", "notebooks/ablations", "reports/reference", "asit_lab/zoo/shipped")
TEXTS = ("*.md", *(f"{folder}/*.md" for folder in FOLDERS))
OTHERS = ("notebooks/*.ipynb", "notebooks/ablations/*.ipynb", "reports/*/*.png")
PACKAGE = "asit_lab"
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def _modules(folder: Path) -> list[str]:
    """Dotted names of the modules in a package that have something to show."""
    names = []
    for file in sorted(folder.rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        public = not any(part.startswith("_") and part != "__init__" for part in parts)
        if public and file.read_text(encoding="utf-8").strip():
            names.append(".".join(parts).removesuffix(".__init__"))
    return names


def _rooms() -> dict[str, list[str]]:
    """Page -> its modules: one page for each package, one for the modules beside them."""
    folders = sorted(path.parent for path in (ROOT / PACKAGE).glob("*/__init__.py"))
    single = [f"{PACKAGE}.{path.stem}" for path in sorted((ROOT / PACKAGE).glob("*.py")) if path.stem[0] != "_"]
    return {f"reference/{PACKAGE}.md": single} | {f"reference/{f.name}.md": _modules(f) for f in folders}


def on_config(config: MkDocsConfig) -> None:
    listed = str(config.nav)
    guide = next(group["Guide"] for group in config.nav if "Guide" in group)
    guide += [path.name for path in sorted((ROOT / "docs").glob("*.md")) if path.name not in listed]
    notebooks = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "notebooks").glob("*.ipynb"))
    config.nav.append({"Notebooks": notebooks})
    config.nav.append({"Reference": list(_rooms())})


@event_priority(100)  # before the plugin that converts notebooks looks for them
def on_files(files: Files, config: MkDocsConfig) -> Files:
    for pattern in (*TEXTS, *OTHERS):
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File(name, str(ROOT), config.site_dir, use_directory_urls=False))
    for page, modules in _rooms().items():
        title = PurePosixPath(page).stem
        text = "\n\n".join([f"# {title}", *(f"::: {module}" for module in modules)])
        files.append(File.generated(config, page, content=text + "\n"))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    uri = page.file.src_uri
    if uri.startswith("reference/"):
        return markdown
    inside = (Path(config.docs_dir) / uri).is_file()
    origin = posixpath.dirname(f"docs/{uri}" if inside else uri)

    def rewritten(match: re.Match) -> str:
        picture, text, target = match.groups()
        path, hash_, anchor = target.partition("#")
        if "://" in target or not path:
            return match[0]
        from_root = posixpath.normpath(posixpath.join(origin, path))
        uri_there = from_root.removeprefix("docs/")
        if files.get_file_from_path(uri_there):
            return f"{picture}[{text}]({posixpath.relpath(uri_there, posixpath.dirname(uri) or '.')}{hash_}{anchor})"
        if from_root.startswith(f"{PACKAGE}/") and from_root.endswith(".py"):
            module = from_root.removesuffix(".py").replace("/", ".")
            return f"[{text}][{module}]"
        if not (ROOT / from_root).exists():
            raise ValueError(f"{uri}: {target} leads nowhere")
        return text

    return LINK.sub(rewritten, markdown)
