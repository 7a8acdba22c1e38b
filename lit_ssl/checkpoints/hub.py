"""Push a folder to the Hugging Face Hub; nothing there is deleted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lit_ssl.errors import InputError
from lit_ssl.models.backbones.hub_files import check_repository, hub_errors
from lit_ssl.version import __version__

__all__ = ["check_push", "push_folder"]

_OF_THE_HUB = (".gitattributes",)  # what a new repository has


def check_push(repository: str, private: bool, update: bool) -> str:
    """Say before a long export what would end its push.

    Args:
        repository: ``USER/NAME``.
        private: whether nobody else should see it.
        update: whether it may exist, with files in it.

    Returns:
        What will happen, in a line.

    Raises:
        InputError: if nobody is logged in, the hub cannot be reached, the repository is not for
            this user, has files while ``update`` is False, or is public while ``private`` is True.
    """
    from huggingface_hub.utils import get_token

    check_repository(repository)
    if not get_token():
        raise InputError(
            "--push needs a login at the hub: run `hf auth login`, or set HF_TOKEN to a token that "
            "may write"
        )
    api = _api()
    with hub_errors(repository):
        api.whoami()
        if not api.repo_exists(repository):
            return f"{repository} is new and will be {'private' if private else 'public'}"
        info = api.repo_info(repository)
    there = [file.rfilename for file in info.siblings or [] if file.rfilename not in _OF_THE_HUB]
    if private and not info.private:
        raise InputError(
            f"{repository} exists and is public: make it private there, give another name, or "
            "leave out --private"
        )
    if there and not update:
        raise InputError(
            f"{repository} exists, with {len(there)} files such as {there[0]:.80}: give another "
            "name, or --update, by which files of the same names get a new version, and nothing is "
            "deleted"
        )
    seen = "private" if info.private else "public"
    return (
        f"{repository} exists and is {seen}: files of the same names get a new version"
        if (there)
        else f"{repository} exists, is empty and {seen}"
    )


def push_folder(folder: Path, repository: str, private: bool) -> str:
    """Make a repository where there is none, and add the files of a folder to it in one commit.

    Args:
        folder: what to push.
        repository: ``USER/NAME``.
        private: whether a new repository is private.

    Returns:
        The address of the commit, or of the repository.

    Raises:
        InputError: if the hub refuses it or cannot be reached.
    """
    api = _api()
    with hub_errors(repository):
        api.create_repo(repository, private=private, exist_ok=True)
        done: Any = api.upload_folder(
            repo_id=repository,
            folder_path=str(folder),
            commit_message=f"Encoder exported by lit_ssl {__version__}",
        )
    return str(getattr(done, "commit_url", done))


def _api() -> Any:
    from huggingface_hub import HfApi

    return HfApi(library_name="lit_ssl", library_version=__version__)
