"""Joins, splits and encodes multiple labels of a clip: names joined by semicolons in the manifest's column `label`."""

from collections.abc import Iterable, Sequence

import numpy as np

from ..errors import InputError

SEPARATOR = ";"


def join(names: Iterable[str]) -> str:
    """One text of several names, each once, in the order given."""
    return SEPARATOR.join(dict.fromkeys(name.strip() for name in names if name.strip()))


def split(label: str) -> list[str]:
    """The names in a joined label; none in an empty one."""
    return label.split(SEPARATOR) if label else []


def indicators(labels: Iterable[str], classes: Sequence[str], multi: bool) -> np.ndarray:
    """float32 [clips, classes]: 1 where a clip has the class, 0 elsewhere; a row of zeros for an unlabelled clip.

    Raises InputError for a label that is not among `classes`.
    """
    column = {name: place for place, name in enumerate(classes)}
    labels = list(labels)
    targets = np.zeros((len(labels), len(column)), np.float32)
    for row, label in enumerate(labels):
        for name in split(label) if multi else [label] if label else []:
            if name not in column:
                raise InputError(f"label {name!r} is not one of the data set's {len(column)} classes")
            targets[row, column[name]] = 1
    return targets
