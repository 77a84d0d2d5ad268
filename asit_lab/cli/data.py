"""`asit-lab data`: describe, check, measure or pack a data set, or build a corpus."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import InputError
from ..storage.jsonable import as_json_text
from ..storage.words import print_facts, print_rows
from .options import SPECS, JsonOption, OverridesOption, PresetOption, group

data_app = group("Data sets: describe, check, measure or pack one, or build a corpus from several.")


@data_app.command("info")
def data_info(spec: Annotated[str, typer.Argument(help=f"Data set: {SPECS}.")], as_json: JsonOption = False) -> None:
    """Describe a data set.

    Clips, hours, sample rates, classes, folds, and files that cannot be used.
    """
    from ..data import load_manifest
    from ..data.check import group_notes

    manifest = load_manifest(spec)
    facts = _facts(manifest)
    notes = [*manifest.notes, *group_notes(manifest)]
    classes = [{"class": label, **of_class} for label, of_class in facts.pop("classes").items()]
    bad = manifest.bad.to_dict("records")
    if as_json:
        print(as_json_text({**facts, "classes": classes, "bad": bad, "notes": notes}))
        return
    print_facts(facts | {"classes": len(classes), "bad files": len(bad)})
    print_rows(classes, before="\n")
    print_rows(bad, before="\n")
    for note in notes:
        print(f"\nnote: {note}")


def _facts(manifest) -> dict[str, Any]:
    """Counts and ranges of a manifest; classes: {label: {clips, hours}}."""
    table = manifest.table
    by_class = manifest.by_label().groupby("label")["seconds"].agg(["size", "sum"])
    counted = {
        name: {str(key): int(count) for key, count in table[name].dropna().value_counts().sort_index().items()}
        for name in ("sample_rate", "channels", "fold", "split")
    }
    return {
        "source": manifest.source,
        "clips": len(table),
        "files": int(table["path"].nunique()),
        "recordings": int(table["group"].nunique()),
        "hours": round(float(table["seconds"].sum()) / 3600, 4),
        "shortest_s": float(table["seconds"].min()),
        "median_s": float(table["seconds"].median()),
        "longest_s": float(table["seconds"].max()),
        **counted,
        "classes": {
            label: {"clips": int(size), "hours": round(seconds / 3600, 4)}
            for label, size, seconds in by_class.itertuples()
        },
    }


@data_app.command("stats")
def data_stats(
    spec: Annotated[str, typer.Argument(help=f"Data set: {SPECS}.")],
    preset: PresetOption,
    overrides: OverridesOption = None,
    clips: Annotated[int | None, typer.Option(min=1, help="Measure this many clips, evenly spread.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure mean and standard deviation of the log-mel.

    They are the values for features.mean and features.std of a configuration.
    """
    from ..config import load_config
    from ..data import load_manifest
    from ..data.statistics import measure

    cfg = load_config(preset, overrides)
    manifest = load_manifest(spec, segment_seconds=cfg.data.segment_seconds)
    mean, std, band_mean, band_std = measure(manifest, cfg.features, clips=clips)
    measured = {"mean": mean, "std": std}
    flags = [f"features.{name}={value:.6f}" for name, value in measured.items()]
    if as_json:
        print(as_json_text({**measured, "overrides": flags, "band_mean": band_mean, "band_std": band_std}))
        return
    print_facts({"source": manifest.source, "clips": min(clips or len(manifest), len(manifest)), **measured})
    print("\nTo use them:")
    print("\n".join(f"  -s {flag}" for flag in flags))


@data_app.command("check")
def data_check(
    spec: Annotated[str, typer.Argument(help=f"Data set: {SPECS}.")],
    crop: Annotated[
        float | None,
        typer.Option(min=0.01, help="Planned crop length, s: report how much of the crops would be padding."),
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads (default: one per core).")] = None,
    out: Annotated[str | None, typer.Option("--out", "-o", metavar="FILE", help="HTML page to write.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Decode every clip and report problems: damage, silence, clipping, duplicates. Resumes if interrupted."""
    from ..config import resolve
    from ..data import load_manifest
    from ..data.check import check, group_notes, write_page

    manifest = load_manifest(spec)
    result = check(manifest, crop, workers)
    notes = [*manifest.notes, *group_notes(manifest)]
    if out:
        write_page(result, manifest, resolve(out))
    if as_json:
        facts = {"source": manifest.source, "clips": len(result.table), "notes": notes}
        print(as_json_text({**facts, "findings": result.findings.to_dict("records")}))
        return
    print_facts({"source": manifest.source, "clips": len(result.table)})
    print_rows(result.findings.to_dict("records"), before="\n")
    if result.findings.empty:
        print("\nnothing unusual")
    for note in notes:
        print(f"\nnote: {note}")
    if out:
        print(f"\n{resolve(out)}")


@data_app.command("shard")
def data_shard(
    spec: Annotated[str, typer.Argument(help=f"Data set: {SPECS}.")],
    out: Annotated[str, typer.Option("--out", "-o", metavar="FOLDER", help="Empty folder for the shards.")],
    megabytes: Annotated[float, typer.Option(min=1, help="Size of a shard, MB.")] = 500.0,
    as_json: JsonOption = False,
) -> None:
    """Pack a data set into WebDataset tar files, to use as shards:FOLDER."""
    from ..config import resolve
    from ..data import load_manifest
    from ..data.sources.shards import write_shards

    shards = write_shards(load_manifest(spec), resolve(out), megabytes)
    if as_json:
        print(as_json_text({"shards": shards}))
    else:
        print(f"{len(shards)} shards: use them as shards:{resolve(out)}")


@data_app.command("corpus")
def data_corpus(
    out: Annotated[Path, typer.Argument(help="Folder to write: pretrain on it with --data folder:OUT.")],
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KIND=SOURCE]...", help="Recordings by kind: speech=PATH, music=esc50:PATH, ..."),
    ] = None,
    debian: Annotated[bool, typer.Option("--debian", help="Add free recordings from Debian packages (3 GB).")] = False,
    package: Annotated[list[str] | None, typer.Option(help="Add only this package; repeatable.")] = None,
    cache: Annotated[Path, typer.Option(help="Folder for downloaded packages.")] = Path("data/debian"),
    keep_out: Annotated[
        list[str] | None,
        typer.Option(metavar="SOURCE[#PARTS]", help="Evaluation clips to leave out: esc50:PATH#5, ...#valid,test."),
    ] = None,
    segment: Annotated[float, typer.Option(min=0.5, help="Longest segment, s.")] = 10.0,
    rate: Annotated[int, typer.Option(min=1000, help="Sample rate, Hz.")] = 16000,
    collection_hours: Annotated[float | None, typer.Option(min=0.0, help="Maximum hours from each collection.")] = None,
    kind_hours: Annotated[float | None, typer.Option(min=0.0, help="Maximum hours of each kind of sound.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Build one corpus from recordings in folders and packages: FLAC segments at one rate, without duplicates.

    Run it again to continue or to update the corpus. list.csv lists every segment with its licence, left_out.csv every
    file or segment that was left out, with the reason; licences/ has the licence texts.
    """
    from ..config import resolve
    from ..data.corpus import build_corpus, of_sources
    from ..data.corpus import debian as packages

    collections, notes = of_sources(sources or []), []
    if debian or package:
        debian_collections, notes = packages.collections(resolve(cache), package)
        collections += debian_collections
    if not collections:
        raise InputError("nothing to build a corpus from: give KIND=SOURCE, for example speech=PATH, or --debian")
    hours = {"collection_hours": collection_hours, "kind_hours": kind_hours}
    hours = {name: value for name, value in hours.items() if value is not None}
    corpus = build_corpus(collections, resolve(out), keep_out or (), segment, rate, **hours)
    notes += corpus.notes
    causes = {str(cause): int(count) for cause, count in corpus.left_out["cause"].value_counts().items()}
    kinds = corpus.hours.to_dict("records")
    if as_json:
        print(as_json_text({"kinds": kinds, "left_out": causes, "notes": notes}))
        return
    print_rows(kinds)
    print_facts({"left out": causes, "hours": float(corpus.hours["hours"].sum()), "list": resolve(out) / "list.csv"})
    for note in notes:
        print(f"note: {note}")
