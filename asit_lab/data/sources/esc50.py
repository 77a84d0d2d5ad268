"""Lists ESC-50 and its subset ESC-10: 5 s environmental sounds in five official folds.

Piczak, "ESC: Dataset for Environmental Sound Classification", ACM Multimedia 2015.
Clips cut from one Freesound recording share `src_file`, and lie in one fold but for four recordings.
"""

import hashlib
from pathlib import Path

from ...errors import InputError
from .clips import Clip, Listing, entries, find_root, is_audio
from .download import Remote
from .folder import read_table

META = "meta/esc50.csv"
ESC50_COLUMNS = ("filename", "fold", "category", "esc10", "src_file")
_META_MD5 = "54a0d0055a10bb7df84ad340a148722e"  # of the whole set's meta file
_CLIPS = 2000
_COMMIT = "33c8ce9eb2cf0b1c2f8bcf322eb349b6be34dbb6"


def check_contents(folder: Path) -> None:
    """Raise InputError unless `folder` holds the whole ESC-50: the meta file by checksum, every clip it lists."""
    root = find_root(folder, META, "esc50")
    if hashlib.md5((root / META).read_bytes(), usedforsecurity=False).hexdigest() != _META_MD5:
        raise InputError(f"{root / META}: differs from the published ESC-50 (MD5 {_META_MD5})")
    present = sum((root / "audio" / name).is_file() for name in read_table(root / META)["filename"])
    if present != _CLIPS:
        raise InputError(f"{root / 'audio'}: {present} of the {_CLIPS} clips of ESC-50")


# The archive of one commit. The host makes archives on demand and may pack them differently one day, so its checksum
# is not the last word: contents that check out are accepted too.
REMOTE = Remote(
    url=f"https://github.com/karolpiczak/ESC-50/archive/{_COMMIT}.zip",
    sha256="661183a6f53ef04f12c9bd618fed0ddc1713280d6c94a5a5431e844ba6f6a21f",
    megabytes=646,
    contents=check_contents,
)


def list_esc50(path: Path, source: str, only_esc10: bool = False) -> Listing:
    """Clips of a local copy. Clips may be .wav or recoded (.ogg, .flac): the stem of the listed name counts.

    Raises InputError for a folder without meta/esc50.csv, or a meta file without one of its columns.
    """
    root = find_root(path, META, source)
    table = read_table(root / META)
    for column in ESC50_COLUMNS:
        if column not in table.columns:
            raise InputError(f"{root / META}: column {column!r} is missing; present: {', '.join(table.columns)}")
    listed_stems = {Path(name).stem for name in table["filename"]}
    if only_esc10:
        table = table[table["esc10"].str.lower() == "true"]
    if table.empty:
        raise InputError(f"{root / META}: lists no clips{' of ESC-10' if only_esc10 else ''}")
    audio = root / "audio"
    by_stem = {file.stem: file for file in entries(audio) if is_audio(file)} if audio.is_dir() else {}
    clips = []
    for row in table.to_dict("records"):
        if not row["fold"].isdigit():
            raise InputError(f"{root / META}: fold {row['fold']!r} of {row['filename']} is not a whole number")
        listed = audio / row["filename"]
        file = listed if listed.is_file() else by_stem.get(listed.stem, listed)
        clips.append(Clip(str(file), row["category"], fold=int(row["fold"]), group=row["src_file"]))
    unlisted = len(set(by_stem) - listed_stems)
    notes = [f"{unlisted} audio files in {audio} are not in {META} and are left out"] if unlisted else []
    return Listing(clips, notes)
