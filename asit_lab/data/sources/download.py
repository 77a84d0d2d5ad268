"""Downloads and unpacks archives: resumable, checked against a checksum, complete or absent.

pooch fetches; the resuming downloader and the unpacking are ours: pooch's has no resume, and its Untar writes outside
the folder where an archive says so ("../x") before Python 3.12.
"""

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
REPLY_BYTES = 1 << 16  # bytes written at a time: what a broken connection can lose


@dataclass(frozen=True)
class Remote:
    """A downloadable archive."""

    url: str
    sha256: str
    megabytes: int
    contents: Callable[[Path], None] | None = None
    """raises InputError unless the unpacked folder is right; where given, it decides when the checksum differs"""

    @property
    def archive(self) -> str:
        return Path(urlsplit(self.url).path).name


class Resume:
    """A downloader for pooch that keeps received bytes in a .part file and resumes there.

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
        """Fetch the missing rest of `part`. Raises requests.RequestException when the connection breaks."""
        import requests

        size = self.part.stat().st_size if self.part.exists() else 0
        # Unpacked transfer encodings would make offsets meaningless.
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={size}-"} if size else {})
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as reply:
            if reply.status_code == requests.codes.requested_range_not_satisfiable:
                # There is nothing beyond `part`: it is complete, or of another file, which the checksum shows.
                if reply.headers.get("Content-Range", "").endswith(f"/{size}"):
                    return
                self.part.unlink()
                raise requests.ConnectionError("the partial file does not fit the one on the server; starting again")
            reply.raise_for_status()
            resumed = reply.status_code == requests.codes.partial_content
            total = int(reply.headers.get("Content-Length", 0)) + (size if resumed else 0)
            progress = tqdm(
                total=total or None, initial=size if resumed else 0, unit="B", unit_scale=True, desc=self.part.stem
            )
            with open(self.part, "ab" if resumed else "wb") as file, progress:
                for block in reply.iter_content(REPLY_BYTES):
                    file.write(block)
                    progress.update(len(block))
        if total and self.part.stat().st_size != total:
            raise requests.ConnectionError(f"{self.part.stat().st_size} of {total} bytes arrived")


def _in_words(error: Exception, url: str) -> str:
    """The cause of a failed download and what to do, in place of the network library's message."""
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

    When several processes call it at once, one downloads and the others wait.
    Raises InputError when pooch is missing, the network fails, or the checksum and the contents are wrong.
    """
    try:
        import pooch
    except ImportError:
        raise InputError(f"{target} does not exist; to download it, pip install pooch, or give a local copy") from None
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(f".{target.name}.lock")):
        if target.exists():  # another process was faster
            return target
        pooch.get_logger().setLevel("ERROR")  # without a checksum it suggests the one of the download
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
    """Unpack next to `target`, check the contents unless the checksum was right, then move the folder in place."""
    temporary = target.with_name(f"{target.name}.unpacking")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as packed:  # checks the CRC of every member
                packed.extractall(temporary)
        else:
            with tarfile.open(archive) as packed:
                _extract(packed, temporary)
        if not same:
            remote.contents(temporary)
        os.replace(temporary, target)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise InputError(f"{remote.url}: the archive is damaged ({error}); it was thrown away") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _extract(packed: tarfile.TarFile, folder: Path) -> None:
    """Unpack files and folders, none of them outside `folder`. Raises tarfile.TarError for any that would be."""
    if hasattr(tarfile, "data_filter"):  # Python 3.11.4
        packed.extractall(folder, filter="data")
        return
    for member in packed.getmembers():
        is_inside = (folder / member.name).resolve().is_relative_to(folder.resolve())
        if not is_inside or not (member.isfile() or member.isdir()):
            raise tarfile.TarError(f"{member.name} is no file or folder inside the archive")
    packed.extractall(folder)
