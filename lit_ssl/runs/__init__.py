"""What runs have written, read as data: reports, configs, curves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lit_ssl.lazy import lazy_names

if TYPE_CHECKING:
    from lit_ssl.runs.comparison import ComparedRow as ComparedRow
    from lit_ssl.runs.comparison import ComparedTable as ComparedTable
    from lit_ssl.runs.comparison import Comparison as Comparison
    from lit_ssl.runs.comparison import Score as Score
    from lit_ssl.runs.comparison import compare_runs as compare_runs
    from lit_ssl.runs.reports import Column as Column

__all__, __getattr__, __dir__ = lazy_names(__name__)
