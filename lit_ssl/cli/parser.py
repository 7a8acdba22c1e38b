"""The parser of the training commands: raises what is wrong, and reads whole numbers as such."""

from __future__ import annotations

from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from lit_ssl.cli.help import ShortHelp
from lit_ssl.trainer.private import whole_numbers_first

__all__ = ["LitSSLParser", "ParseError"]


class ParseError(Exception):
    """What jsonargparse says about a wrong entry, before it is put into one line."""


class LitSSLParser(LightningArgumentParser):
    """Parser that raises instead of printing its usage, and takes no abbreviated options.

    Args:
        *args: of ``LightningArgumentParser``.
        **kwargs: likewise.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("allow_abbrev", False)
        kwargs.setdefault("formatter_class", ShortHelp)
        super().__init__(*args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Hand the message on; parsers nested in others keep their own way of failing."""
        if not self.exit_on_error:
            super().error(message, ex)
        raise ParseError(message) from ex

    def add_lightning_class_args(self, *args: Any, **kwargs: Any) -> list[str]:
        """As in Lightning, but a class may be missing: a checkpoint can name the model."""
        names = super().add_lightning_class_args(*args, **{**kwargs, "required": False})
        whole_numbers_first(self)
        return names
