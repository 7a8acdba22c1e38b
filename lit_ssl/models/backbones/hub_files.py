"""Names of repositories of the Hugging Face Hub: which of their files is meant, fetched once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch.distributed as dist

from lit_ssl.distributed import is_distributed, process_rank
from lit_ssl.errors import InputError, InputFileNotFoundError, quoted
from lit_ssl.version import __version__

__all__ = ["HubFile", "check_repository", "fetch", "hub_errors", "is_hub_name"]

_SCHEME = "hf-hub:"
_PART = r"[\w-][\w.-]*"
_NAME = re.compile(rf"(?P<repo>{_PART}/{_PART})(?:@(?P<revision>[\w./-]+))?", re.ASCII)
_SHOWN = 12  # digits of a commit
_NETWORK = ("httpx", "httpcore", "httpx2", "requests", "urllib3")


class HubFile(NamedTuple):
    """A file of a repository, in the cache of the hub's own client.

    Attributes:
        path: where it lies.
        name: the repository and the commit that was taken, in words.
    """

    path: Path
    name: str


def is_hub_name(path: object) -> bool:
    """Whether a name of weights is that of a repository, and not that of a file or folder.

    Args:
        path: as it was typed, for example ``hf-hub:timm/vit_small_patch16_224.dino@main``.
    """
    return str(path).startswith(_SCHEME)


def check_repository(name: str) -> str:
    """The name of a repository, ``USER/NAME``, if it is one.

    Args:
        name: as it was typed.

    Raises:
        InputError: if no repository can have it.
    """
    found = _NAME.fullmatch(name)
    if found is None or found["revision"]:
        raise InputError(f"{quoted(name)} is no name of a repository: give it as USER/NAME")
    return name


def fetch(name: str, files: Sequence[str]) -> HubFile:
    """The first of some files that a repository has; what lies in the cache is not fetched again.

    Where several processes run, the first one asks for the commit, and the others take the same:
    on its machine from the cache, which is locked while a file comes in.

    Args:
        name: ``hf-hub:USER/NAME``, or ``hf-hub:USER/NAME@REVISION`` with a branch, tag or commit.
        files: names of files, best first.

    Raises:
        InputError: if it is no such name, the hub has no such repository, revision or file, or
            cannot be reached while the file is not in the cache.
    """
    found = _NAME.fullmatch(name.removeprefix(_SCHEME))
    if found is None or ".." in (found["revision"] or ""):  # which the cache has as a path
        raise InputError(
            f"{quoted(name)} is no name of a repository: give it as hf-hub:USER/NAME, or as "
            "hf-hub:USER/NAME@REVISION"
        )
    repo, revision = found["repo"], found["revision"]
    if not is_distributed():
        return _fetch(name, repo, revision, files)
    said: list[Any] = [None]
    mine = None
    if process_rank() == 0:
        try:
            mine = _fetch(name, repo, revision, files)
            said = [(_commit(mine.path), mine.path.name)]
        except InputError as error:
            said = [error]
    dist.broadcast_object_list(said, src=0)
    if isinstance(said[0], InputError):
        raise said[0]
    commit, file = said[0]
    return mine or _fetch(name, repo, commit, [file])


def _fetch(name: str, repo: str, revision: str | None, files: Sequence[str]) -> HubFile:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import EntryNotFoundError, LocalEntryNotFoundError

    about: dict[str, Any] = {"library_name": "lit_ssl", "library_version": __version__}
    unreached = None
    for file in files:
        with hub_errors(name):
            try:
                options = {**about, "local_files_only": unreached is not None}
                path = Path(hf_hub_download(repo, file, revision=revision, **options))
            except LocalEntryNotFoundError as error:  # another one may be in the cache
                unreached = unreached or error
            except EntryNotFoundError:
                continue
            else:
                return HubFile(path, f"{_SCHEME}{repo}@{_commit(path)[:_SHOWN]}")
    if unreached is not None:
        raise _offline(name) from unreached
    raise InputFileNotFoundError(
        f"{name} has no file that could be read as weights: expected {' or '.join(files)}"
    )


def _commit(path: Path) -> str:
    """The commit of a file in the cache, whose folder is called after it."""
    return path.parent.name


def _offline(name: str) -> InputError:
    return InputError(
        f"{name} cannot be fetched, and is not in the cache: check the network (and HF_ENDPOINT, "
        "HF_HUB_OFFLINE if you set them), or give a file or folder that is on this machine"
    )


@contextmanager
def hub_errors(name: str) -> Iterator[None]:
    """Let what the hub or the network says be one line.

    Args:
        name: of the repository, for the line.

    Raises:
        InputError: for a repository or revision that is not there or not for this user, and for
            any other answer by which nothing can be read or written; for errors of the network.
    """
    from huggingface_hub.utils import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except (InputError, EntryNotFoundError):
        raise
    except GatedRepoError as error:
        raise InputError(
            f"{name} is only for those who have accepted its terms: accept them on its page, and "
            "log in, `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise InputFileNotFoundError(
            f"the hub has no repository {name}, or it is not for you: check the name; for a "
            "private one log in, `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise InputFileNotFoundError(
            f"{name} has no such revision: give a branch, a tag or a commit of it"
        ) from error
    except (HFValidationError, HfHubHTTPError) as error:
        raise InputError(f"the hub refuses {name}: {_in_one_line(error)}") from error
    except Exception as error:
        if getattr(error, "response", None) is not None:  # old versions of the client
            raise InputError(f"the hub refuses {name}: {_in_one_line(error)}") from error
        roots = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
        if isinstance(error, ConnectionError | TimeoutError) or roots & {*_NETWORK}:
            raise _offline(name) from error
        if isinstance(error, OSError):
            raise InputError(f"{name} cannot be fetched: {_in_one_line(error)}") from error
        raise


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
