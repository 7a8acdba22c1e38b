"""The command line; nothing imports this package but ``lit_ssl.__main__``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lit_ssl.lazy import lazy_names

if TYPE_CHECKING:
    from lit_ssl.cli.parser import LitSSLParser as LitSSLParser
    from lit_ssl.cli.training import LitSSLCLI as LitSSLCLI
    from lit_ssl.cli.training import run as run

__all__, __getattr__, __dir__ = lazy_names(__name__)
