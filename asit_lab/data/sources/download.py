"""Downloads that resume, are checked against a checksum, and appear whole or not at all."""

import os
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock
from tqdm import tqdm

from ...errors import InputError

ATTEMPTS = 5
TIMEOUT = (10, 60)  # s: to connect, between two packets
BLOCK = 1 << 16  # bytes written at a time: what a broken connection can lose


@dataclass(frozen=True)
class Remote:
    """An archive on the net."""

    url: str
    sha256: str
    megabytes: int
    contents: Callable[[Path], None] | None = None
    """raises InputError unless the unpacked folder is right; where given, it decides when the checksum differs"""

    @property
    def archive(self) -> str:
        return Path(urlsplit(self.url).path).name


class Resume:
    """A downloader for pooch that keeps what has arrived in a .part file and goes on from there.

    part: the file that collects the bytes, across attempts and across runs.
    """

    def __init__(self, part: Path, attempts: int = ATTEMPTS):
        self.part = part
        self.attempts = attempts

    def __call__(self, url: str, output_file: str, pooch) -> None:
        import requests  # comes with pooch

        for attempt in range(1, self.attempts + 1):
            try:
                self._continue(url)
                break
            except requests.RequestException as error:
                if attempt == self.attempts:
                    raise InputError(
                        f"{url}: the download failed ({_in_words(error, url)}). What has arrived is kept in "
                        f"{self.part}, where the next try resumes; or download it elsewhere, unpack it and give the "
                        "folder: NAME:PATH"
                    ) from None
        os.replace(self.part, output_file)

    def _continue(self, url: str) -> None:
        """Fetch what `part` still lacks. Raises requests.RequestException when the connection breaks."""
        import requests

        have = self.part.stat().st_size if self.part.exists() else 0
        # Unpacked transfer encodings would make offsets meaningless.
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as reply:
            if reply.status_code == requests.codes.requested_range_not_satisfiable:
                # Nothing lies beyond what is here: it is complete, or no part of this file. The checksum will tell.
                if reply.headers.get("Content-Range", "").endswith(f"/{have}"):
                    return
                self.part.unlink()
                raise requests.ConnectionError("the partial file does not fit the one on the server; starting again")
            reply.raise_for_status()
            resumed = reply.status_code == requests.codes.partial_content
            total = int(reply.headers.get("Content-Length", 0)) + (have if resumed else 0)
            progress = tqdm(
                total=total or None, initial=have if resumed else 0, unit="B", unit_scale=True, desc=self.part.stem
            )
            with open(self.part, "ab" if resumed else "wb") as file, progress:
                for block in reply.iter_content(BLOCK):
                    file.write(block)
                    progress.update(len(block))
        if total and self.part.stat().st_size != total:
            raise requests.ConnectionError(f"{self.part.stat().st_size} of {total} bytes arrived")


def _in_words(error: Exception, url: str) -> str:
    """What went wrong and what to do, in place of the network library's own words."""
    import requests

    host = urlsplit(url).hostname
    if isinstance(error, requests.HTTPError):
        return f"the server answered {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.exceptions.ProxyError):
        return f"the proxy does not let {host} through; check HTTPS_PROXY, or ask for {host} to be allowed"
    if isinstance(error, requests.exceptions.SSLError):
        return f"the certificate of {host} is not trusted; if a proxy changes it, set REQUESTS_CA_BUNDLE to its own"
    if isinstance(error, requests.Timeout):
        return f"{host} does not answer in time"
    if isinstance(error, requests.ConnectionError) and error.args and isinstance(error.args[0], Exception):
        return f"{host} cannot be reached; check the network, and where one is needed set HTTPS_PROXY to the proxy"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke off"
    return str(error)


def download(remote: Remote, target: Path) -> Path:
    """Fetch and unpack `remote` into the folder `target`, which exists afterwards only if everything was right.

    Several processes may ask at once: one downloads, the others wait for it.
    Raises InputError when pooch is missing, the network fails, or the checksum and the contents are wrong.
    """
    try:
        import pooch
    except ImportError:
        raise InputError(
            f"{target} is not there, and downloading it needs pooch: pip install 'asit-lab[lab]', or give a local copy"
        ) from None
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f".{target.name}.lock")):
        if target.exists():  # another process was faster
            return target
        pooch.get_logger().setLevel("ERROR")  # without a checksum it advises to use the one it found
        print(f"downloading {remote.url} ({remote.megabytes} MB) to {target}", file=sys.stderr)
        part = target.with_name(f"{target.name}-{remote.archive}.part")
        archive = Path(
            pooch.retrieve(remote.url, None, f"{target.name}-{remote.archive}", target.parent, downloader=Resume(part))
        )
        same = pooch.file_hash(str(archive), alg="sha256") == remote.sha256
        if not same and remote.contents is None:
            archive.unlink()
            raise InputError(f"{remote.url}: the download's SHA-256 is not {remote.sha256}; it was thrown away")
        try:
            _unpack(archive, target, remote, same)
        except InputError:
            archive.unlink()
            raise
        archive.unlink()  # not reached when, say, the disk is full: then the download is still there next time
    return target


def _unpack(archive: Path, target: Path, remote: Remote, same: bool) -> None:
    """Unpack next to `target`, look at the contents unless the checksum was right, then move the folder in place."""
    fresh = target.with_name(f"{target.name}.unpacking")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:  # checks the CRC of every member
                packed.extractall(fresh)
        else:
            with tarfile.open(archive) as packed:
                _extract(packed, fresh)
        if not same:
            remote.contents(fresh)
        os.replace(fresh, target)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise InputError(f"{remote.url}: the archive is damaged ({error}); it was thrown away") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _extract(packed: tarfile.TarFile, folder: Path) -> None:
    """Unpack files and folders, none of them outside `folder`. Raises tarfile.TarError for any that would be."""
    if hasattr(tarfile, "data_filter"):  # Python 3.11.4
        packed.extractall(folder, filter="data")
        return
    for member in packed.getmembers():
        inside = (folder / member.name).resolve().is_relative_to(folder.resolve())
        if not inside or not (member.isfile() or member.isdir()):
            raise tarfile.TarError(f"{member.name} is no file or folder inside the archive")
    packed.extractall(folder)
