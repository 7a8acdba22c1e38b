"""Where files are: a folder of this machine, an S3 bucket, a web server, any other store."""

from __future__ import annotations

import os
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import closing
from http.client import IncompleteRead
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.error import HTTPError
from urllib.parse import urlparse
from urllib.request import Request, url2pathname, urlopen

from lit_ssl.errors import InputError, InputImportError, InputRuntimeError, shortened
from lit_ssl.opening import writing

__all__ = ["Folder", "MissingFileError", "Place", "PlaceError", "place_at"]

_TRIES = 3
_PAUSE = 1.0  # seconds before the second try; twice as long before the next
_PATIENCE = 30.0  # seconds without a byte
_PIECE = 1 << 20

Answer = TypeVar("Answer")


class PlaceError(InputRuntimeError):
    """A store that does not answer, or refuses."""


class MissingFileError(InputRuntimeError):
    """A file that is not there; no OSError, since those are of this machine's disks."""


class Place(ABC):
    """A folder in a store, and its files by their paths below it.

    Objects may be sent to other processes; connections are made where they are first used.

    Args:
        url: Of the folder.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    @abstractmethod
    def read(self, name: str, offset: int = 0, size: int | None = None) -> bytes:
        """Return the bytes of a file, or ``size`` of them from ``offset`` on.

        Args:
            name: Its path in the place, with ``/``.
            offset: Where to begin, in bytes.
            size: How many bytes; None: all to the end.

        Raises:
            MissingFileError: There is no such file.
            PlaceError: It cannot be read.
        """

    @abstractmethod
    def fetch(self, name: str, file: BinaryIO) -> None:
        """Write all of a file to another one, which is open.

        Args:
            name: Its path in the place, with ``/``.
            file: Open for writing bytes.

        Raises:
            MissingFileError: There is no such file.
            PlaceError: It cannot be read.
        """

    def name_of(self, name: str) -> str:
        """Return what messages call a file.

        Args:
            name: Its path in the place, with ``/``.
        """
        return f"{self.url}/{name}"


class Folder(Place):
    """A folder of this machine."""

    def path(self, name: str) -> Path:
        """Return the path of a file.

        Args:
            name: Its path in the folder, with ``/``.
        """
        return Path(self.url) / name

    def read(self, name: str, offset: int = 0, size: int | None = None) -> bytes:
        """Return bytes of a file; see ``Place``."""
        try:
            with open(self.path(name), "rb", buffering=0) as file:
                if size is None:
                    return file.readall()
                return os.pread(file.fileno(), size, offset)
        except FileNotFoundError as error:
            raise MissingFileError(_missing(self.name_of(name))) from error
        except OSError as error:
            raise PlaceError(_unreadable(self.name_of(name), error.strerror or error)) from error

    def fetch(self, name: str, file: BinaryIO) -> None:
        """Copy a file; see ``Place``."""
        file.write(self.read(name))


class _OwnFile:
    """A file of this machine that is written: what its disk says is not the network's fault."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._folder = Path(file.name).parent

    def write(self, content: bytes) -> int:
        with writing(self._folder):
            return self._file.write(content)

    def rewind(self) -> None:
        with writing(self._folder):
            self._file.seek(0)

    def end(self) -> None:
        with writing(self._folder):
            self._file.truncate()


class _Remote(Place):
    """A store over a network: asked again where it fails in passing."""

    def read(self, name: str, offset: int = 0, size: int | None = None) -> bytes:
        return self._asked(name, lambda: self._read(name, offset, size))

    def fetch(self, name: str, file: BinaryIO) -> None:
        own = _OwnFile(file)

        def fetch() -> None:
            own.rewind()
            self._fetch(name, own)
            own.end()

        self._asked(name, fetch)

    def _asked(self, name: str, ask: Callable[[], Answer]) -> Answer:
        for turn in range(_TRIES):
            try:
                return ask()
            except (InputError, KeyboardInterrupt):
                raise
            except Exception as error:  # each library has its own
                why, is_final = self._why(error)
                if is_final is None:
                    raise MissingFileError(_missing(self.name_of(name))) from error
                if is_final or turn == _TRIES - 1:
                    raise PlaceError(_unreadable(self.name_of(name), why)) from error
                time.sleep(_PAUSE * 2**turn)
        raise AssertionError

    @abstractmethod
    def _read(self, name: str, offset: int, size: int | None) -> bytes: ...

    @abstractmethod
    def _fetch(self, name: str, file: _OwnFile) -> None: ...

    @abstractmethod
    def _why(self, error: Exception) -> tuple[str, bool | None]:
        """What is wrong, and whether asking again is useless; None: there is no such file."""


class _Web(_Remote):
    """A web server that answers to ranges."""

    def _read(self, name: str, offset: int, size: int | None) -> bytes:
        headers = {} if size is None else {"Range": f"bytes={offset}-{offset + size - 1}"}
        with urlopen(Request(self.name_of(name), headers=headers), timeout=_PATIENCE) as answer:
            if size is not None and answer.status != 206:
                raise PlaceError(
                    f"{self.name_of(name)}: this server sends no parts of files (status"
                    f" {answer.status}): set cache_size above the size of the data"
                )
            return answer.read()

    def _fetch(self, name: str, file: _OwnFile) -> None:
        with urlopen(self.name_of(name), timeout=_PATIENCE) as answer:
            shutil.copyfileobj(answer, file, _PIECE)
            if answer.length:  # the connection has ended before the file, which read(n) hides
                raise IncompleteRead(b"", answer.length)

    def _why(self, error: Exception) -> tuple[str, bool | None]:
        if isinstance(error, HTTPError):
            if error.code in (404, 410):
                return "", None
            return f"HTTP {error.code} {error.reason}", error.code < 500 and error.code != 429
        return shortened(getattr(error, "reason", error)), False


class _S3(_Remote):
    """A bucket of S3, or of a store that speaks it (``AWS_ENDPOINT_URL``)."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        parts = urlparse(self.url)
        self._bucket, self._prefix = parts.netloc, parts.path.strip("/")
        self._client: tuple[int, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_client": None}

    def _asker(self) -> Any:
        """The client of this process: after a fork, a connection would be used by two."""
        if self._client is None or self._client[0] != os.getpid():
            try:
                import boto3
                from botocore.config import Config
            except ImportError as error:
                raise InputImportError(
                    "data in s3:// need the package boto3: pip install 'lit-ssl[streaming]'"
                ) from error
            config = Config(
                connect_timeout=10,
                read_timeout=_PATIENCE,
                retries={"total_max_attempts": 1, "mode": "standard"},
                max_pool_connections=4,
            )
            self._client = os.getpid(), boto3.session.Session().client("s3", config=config)
        return self._client[1]

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    def _body(self, name: str, **options: str) -> Any:
        return self._asker().get_object(Bucket=self._bucket, Key=self._key(name), **options)["Body"]

    def _read(self, name: str, offset: int, size: int | None) -> bytes:
        options = {} if size is None else {"Range": f"bytes={offset}-{offset + size - 1}"}
        with closing(self._body(name, **options)) as body:
            return body.read()

    def _fetch(self, name: str, file: _OwnFile) -> None:
        with closing(self._body(name)) as body:
            for piece in body.iter_chunks(_PIECE):
                file.write(piece)

    def _why(self, error: Exception) -> tuple[str, bool | None]:
        answer = getattr(error, "response", {})
        code = answer.get("Error", {}).get("Code", "")
        status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
        if code in ("NoSuchKey", "404"):
            return "", None
        why = shortened(error)
        known = type(error).__name__ in ("NoCredentialsError", "NoRegionError", "ProfileNotFound")
        is_final = known or (400 <= status < 500 and status not in (408, 429))
        return why, is_final


class _Store(_Remote):
    """What fsspec opens: ``gs://`` with gcsfs, ``hf://`` with huggingface_hub, and others."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        import fsspec

        scheme = urlparse(url).scheme
        try:
            fsspec.get_filesystem_class(scheme)
        except ImportError as error:
            raise InputImportError(f"data in {scheme}:// need a package more: {error}") from error
        except ValueError as error:
            raise InputError(
                f"nothing opens {scheme}:// here: give a folder, s3://, gs:// or https://"
            ) from error

    def _read(self, name: str, offset: int, size: int | None) -> bytes:
        import fsspec

        system, path = fsspec.core.url_to_fs(self.name_of(name))
        return system.cat_file(path, offset, None if size is None else offset + size)

    def _fetch(self, name: str, file: _OwnFile) -> None:
        import fsspec

        with fsspec.open(self.name_of(name), "rb") as source:
            shutil.copyfileobj(source, file, _PIECE)

    def _why(self, error: Exception) -> tuple[str, bool | None]:
        if isinstance(error, FileNotFoundError):
            return "", None
        return shortened(error) or type(error).__name__, isinstance(error, PermissionError)


def place_at(url: str) -> Place:
    """Return the place that a URL or a path names; nothing is asked of it.

    Args:
        url: A path, or a URL such as ``s3://bucket/folder``, ``https://…`` or ``file:///folder``.

    Raises:
        InputError: Nothing opens this kind of URL, or a package for it is missing.
    """
    scheme = urlparse(url).scheme if "://" in url else ""
    if scheme == "file":
        return Folder(url2pathname(urlparse(url).path))
    if not scheme:
        return Folder(os.path.expanduser(url))
    if scheme in ("http", "https"):
        return _Web(url)
    return _S3(url) if scheme == "s3" else _Store(url)


def _missing(name: str) -> str:
    return f"there is no {name}: copy the whole set there, with all its files"


def _unreadable(name: str, why: object) -> str:
    return f"cannot read {name} ({why}): check the network, the address and the credentials"
