"""Copies the licence texts of a corpus's collections."""

import re
import shutil
from pathlib import Path

from ...config import resolve

LICENCE_FILES = re.compile(r"(licen[cs]e|copying|copyright)[^/]*", re.IGNORECASE)


def copy_licences(collections: list, out: Path) -> list[str]:
    """Copy each collection's licence text to OUT/licences/NAME.txt; notes name the collections that have none.

    Without a text of its own, the first file called LICENSE, COPYING or the like in the collection's folder is taken.
    """
    notes = []
    for collection in collections:
        folder = resolve(collection.spec.partition(":")[2])
        near = sorted(folder.iterdir()) if folder.is_dir() else []
        texts = [path for path in near if path.is_file() and LICENCE_FILES.fullmatch(path.name)]
        text = collection.licence_file or next(iter(texts), None)
        if text is not None and text.is_file():
            target = out / "licences" / f"{collection.name}.txt"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(text, target)
        elif not collection.licence:
            notes.append(f"{collection.name}: no licence text in {folder}")
    return notes
