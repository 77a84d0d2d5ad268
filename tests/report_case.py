"""A made-up study with made-up results, for the tests of asit_lab.report."""

import numpy as np
import pandas as pd

from asit_lab.batch.results import StudyResults
from asit_lab.batch.study import Study

NAN = float("nan")
COLUMNS = ("setting", "seeds", "mean", "spread", "difference", "low", "high", "inside_spread", "published")


def study_of(**changes) -> Study:
    content = {
        "name": "made_up",
        "title": "A & B",
        "rows": [{"name": "a"}, {"name": "b"}],
        "scales": {"smoke": {}},
        "published": {"source": "paper", "metric": "mAP of Audio_Set", "differs": "everything."},
    }
    return Study.model_validate({**content, **changes})


def collected_of(results: list[tuple], reference: str, **changes) -> StudyResults:
    """results: what COLUMNS says of each setting; the seeds' results lie evenly around their mean."""
    summary = pd.DataFrame(results, columns=COLUMNS).astype({"inside_spread": object})
    points = []
    for row in summary.to_dict("records"):
        around = np.zeros(row["seeds"])
        if row["seeds"] > 1:
            around = np.linspace(-1, 1, row["seeds"])
            around *= row["spread"] / around.std(ddof=1)
        for seed, offset in enumerate(around):
            value = (row["mean"] + offset) / 100
            points.append({"setting": row["setting"], "seed": seed, "state": "finished", "probe.teacher.mean": value})
    return StudyResults(study_of(**changes), "smoke", pd.DataFrame(points), summary, reference)
