"""A look at a data set before a run starts on it: a sample of its clips is decoded, so that no run ends for what could
be known before its first step."""

from dataclasses import dataclass, field

from ..config import RunConfig
from ..data import Manifest
from ..data.check import check_sample, sample_notes
from ..data.statistics import measure
from ..errors import InputError

_MEASURED = 32  # clips whose log-mel is compared with features.mean and features.std


@dataclass(frozen=True)
class LookedAt:
    """The outcome for a sample of the data set."""

    clips: int = 0
    bad: dict[str, str] = field(default_factory=dict)
    """path -> reason of the files that could not be read"""
    notes: list[str] = field(default_factory=list)

    def expected_bad(self, manifest: Manifest) -> float:
        """How many files of the data set cannot be used, by their headers and by the share of the sample."""
        readable = manifest.table["path"].nunique()
        return len(manifest.bad) + readable * len(self.bad) / max(1, self.clips)


def look(cfg: RunConfig, manifest: Manifest, keep: bool = True) -> LookedAt:
    """Decode a sample of a data set. keep: remember what was measured, as `data check` does."""
    result = check_sample(manifest, keep=keep)
    if not len(result.table):
        return LookedAt()
    table = result.table[result.table["reason"].fillna("") != ""]
    bad = dict(zip(table["path"], table["reason"], strict=True))
    return LookedAt(len(result.table), bad, [*sample_notes(result), *_level_notes(cfg, manifest)])


def _level_notes(cfg: RunConfig, manifest: Manifest) -> list[str]:
    """A sentence where the log-mel is far from what the configuration says it is."""
    features = cfg.features
    try:
        mean, std, _, _ = measure(manifest, features, clips=_MEASURED)
    except InputError:  # nothing to measure: the loader will say so
        return []
    given_mean, given_std = float(features.mean), float(features.std)
    if abs(mean - given_mean) <= given_std and 0.5 <= std / given_std <= 2:
        return []
    measured = f"mean {mean:.3g} and standard deviation {std:.3g} (of {min(_MEASURED, len(manifest))} clips)"
    return [
        f"the log-mel has {measured}, far from features.mean {given_mean:.3g} and features.std {given_std:.3g}; "
        "features.mean=auto and features.std=auto measure them"
    ]
