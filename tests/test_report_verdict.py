"""What a report says in words of a difference."""

import pytest
from report_case import NAN, collected_of

from asit_lab.report.chosen import chosen_points
from asit_lab.report.verdict import in_short, sentences, unit_of_results, verdicts

REFERENCE = ("ref", 3, 60.0, 1.0, NAN, NAN, NAN, None, 28.1)


def words(mean, spread, difference, low, high, inside, seeds=3):
    row = ("other", seeds, mean, spread, difference, low, high, inside, 20.0)
    return verdicts(collected_of([row, REFERENCE], "ref"))[0]


@pytest.mark.parametrize(
    ("row", "short", "real", "said"),
    [
        (
            (64.0, 1.0, 4.0, 2.0, 6.0, False),
            "better",
            True,
            "other: 64.0 ± 1.0 over 3 seeds, better than ref by 4.0 points. The difference, +4.0 points, is "
            "outside the spread over seeds, 1.4; its 95 % interval over clips, +2.0 to +6.0, does not hold zero.",
        ),
        (
            (50.0, 3.0, -10.0, -14.0, -6.0, False),
            "worse",
            True,
            "other: 50.0 ± 3.0 over 3 seeds, worse than ref by 10.0 points. The difference, −10.0 points, is "
            "outside the spread over seeds, 3.2; its 95 % interval over clips, −14.0 to −6.0, does not hold zero.",
        ),
        (
            (60.5, 1.0, 0.5, -1.0, 2.0, True),
            "inside the spread",
            False,
            "not told apart from ref. The difference, +0.5 points, is inside the spread over seeds, 1.4; its 95 % "
            "interval over clips, −1.0 to +2.0, holds zero.",
        ),
        # Either alone is enough to doubt a difference.
        ((61.2, 1.0, 1.2, 0.2, 2.2, True), "inside the spread", False, "+0.2 to +2.2, does not hold zero"),
        (
            (63.0, 1.0, 3.0, -0.5, 6.5, False),
            "interval holds zero",
            False,
            "outside the spread over seeds, 1.4; its",
        ),
        # Without answers to single clips, or with one seed, less is known, and that is said.
        ((64.0, 1.0, 4.0, NAN, NAN, False), "better", True, "outside the spread over seeds, 1.4; there is no"),
        (
            (60.5, 1.0, 0.5, NAN, NAN, True),
            "inside the spread",
            False,
            "inside the spread over seeds, 1.4; there is no",
        ),
        (
            (64.0, NAN, 4.0, 2.0, 6.0, None, 1),
            "better (one seed)",
            True,
            "other: 64.0 with one seed, better than ref by 4.0 points. The difference, +4.0 points, rests on a "
            "single seed, so the spread over seeds is unknown; its 95 % "
            "interval over clips, +2.0 to +6.0, does not hold zero.",
        ),
        ((61.0, NAN, 1.0, -2.0, 4.0, None, 1), "interval holds zero", False, "rests on a single seed"),
        (
            (64.0, NAN, 4.0, NAN, NAN, None, 1),
            "not known",
            False,
            "other: 64.0 with one seed, the difference, +4.0 points, rests on a single seed, so the spread over "
            "seeds is unknown; there is no interval over clips.",
        ),
    ],
)
def test_words_about_a_difference(row, short, real, said):
    verdict = words(*row)
    assert (verdict.short, verdict.real) == (short, real) and said in verdict.words
    assert real == (" than ref by " in verdict.words)
    assert ("not told apart" in verdict.words) == (short in ("inside the spread", "interval holds zero"))


def test_reference_and_settings_without_results():
    rows = [("none", 0, NAN, NAN, NAN, NAN, NAN, None, 1.0), REFERENCE]
    none, reference = verdicts(collected_of(rows, "ref"))
    assert none.words == "none: no result yet." and none.short == "no result"
    assert reference.words == "ref is what the others are compared with: 60.0 ± 1.0 over 3 seeds."
    without = [("other", 2, 50.0, 1.0, NAN, NAN, NAN, None, 1.0), ("ref", 0, NAN, NAN, NAN, NAN, NAN, None, 2.0)]
    other, _ = verdicts(collected_of(without, "ref"))
    assert other.words == "other: 50.0 ± 1.0 over 2 seeds; the reference, ref, has no result yet." and not other.real


def test_settings_of_which_the_same_is_said_share_a_sentence():
    same, other = (60.0, 1.0, 0.0, -1.0, 1.0, True, 1.0), (64.0, 1.0, 4.0, 2.0, 6.0, False, 1.0)
    rows = [("a, b", 3, *same), ("c", 3, *other), ("d", 3, *same), REFERENCE]
    first, second, third = sentences(collected_of(rows, "ref"))
    assert first.startswith("a, b; d: 60.0 ± 1.0 over 3 seeds, not told apart from ref. ")
    assert second.startswith("c: 64.0 ") and third.startswith("ref is what")


@pytest.mark.parametrize(
    ("differences", "setting", "why"),
    [
        ((0.5, -2.0), "b", "the setting furthest from the reference"),
        ((0.0, 0.0), "a", "the first of the other settings, as none differs from the reference"),
        ((0.01, -0.02), "a", "the first of the other settings, as none differs from the reference"),  # as printed
    ],
)
def test_what_a_run_is_looked_at_for(differences, setting, why):
    rows = [
        (name, 3, 60 + difference, 1.0, difference, NAN, NAN, None, 1.0)
        for name, difference in zip("ab", differences, strict=True)
    ]
    collected = collected_of([REFERENCE, *rows], "ref")
    collected.points["folder"] = "somewhere"
    reference, contrast = chosen_points(collected)
    assert reference.setting == "ref" and (contrast.setting, contrast.why) == (setting, why)


def test_in_short():
    rows = [
        ("a", 3, 64.0, 1.0, 4.0, 2.0, 6.0, False, 1.0),
        ("b", 3, 50.0, 1.0, -10.0, -12.0, -8.0, False, 1.0),
        ("c", 3, 51.0, 1.0, -9.0, -12.0, -8.0, False, 1.0),
        ("d", 3, 60.0, 1.0, 0.1, -1.0, 1.0, True, 1.0),
        REFERENCE,
    ]
    assert in_short(collected_of(rows, "ref")) == (
        "Of 4 settings beside the reference, 1 better, 2 worse; 1 not told apart from it."
    )
    assert in_short(collected_of(rows[3:], "ref")).endswith("reference, 1 not told apart from it.")
    assert in_short(collected_of(rows[:1] + rows[4:], "ref")).endswith("1 better; none not told apart from it.")
    single = ("one seed, no interval", 1, 50.0, NAN, -10.0, NAN, NAN, None, 1.0)
    waits = ("waits", 0, NAN, NAN, NAN, NAN, NAN, None, 1.0)
    assert in_short(collected_of([single, waits, REFERENCE], "ref")).endswith("reference, 2 not known yet.")
    assert in_short(collected_of([*rows[2:4], single, REFERENCE], "ref")).endswith(
        "1 worse; 1 not told apart from it and 1 not known yet."
    )


def test_a_measure_whose_good_end_is_not_known():
    plot = {"metric": "probe.teacher.mean", "label": "error", "factor": 1.0}
    unit = unit_of_results(collected_of([REFERENCE], "ref", plot=plot))
    assert (unit.decimals, unit.suffix, unit.up) == (1, "", "better")
    plot["metric"] = "last.loss"
    unit = unit_of_results(collected_of([("ref", 1, 0.034, NAN, NAN, NAN, NAN, None, NAN)], "ref", plot=plot))
    assert (unit.decimals, unit.up, unit.down) == (4, "higher", "lower")
    assert unit.number(-0.00004, True) == "0.0000" and unit.number(-0.01, True) == "−0.0100" and unit.number(NAN) == "–"
