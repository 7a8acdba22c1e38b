"""Module dropout: train a circuit so that it can do with fewer modules."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lit_ssl.errors import InputError, check_choice
from lit_ssl.seeding import Stream, keyed_permutation, uniform

__all__ = ["DropoutKind", "ModuleDropout", "distillation_loss"]

DropoutKind = Literal["none", "random", "nested", "sandwich", "distilled"]


class ModuleDropout:
    """Which modules the passes of a training step keep.

    A prefix is the first n modules, with n log-uniform in [1, N], so that a trained circuit of N
    modules can be cut behind any of them.

    - ``none``: one pass, all modules.
    - ``random``: one pass without a share of the modules, drawn anew in each step.
    - ``nested``: one pass, with all modules in a share of the steps, else with a prefix.
    - ``sandwich``: two passes, with all modules and with a prefix of n < N, each against the
      labels.
    - ``distilled``: the same two, but the prefix learns from the answers of all modules.

    All is a pure function of the seed and the step: the same on all processes, which then need
    equally long for a step, and after a resume.

    Args:
        kind: one of the above.
        num_modules: number N of modules that may be dropped, ≥ 1.
        full_share: share of the steps in which ``nested`` keeps all, in [0, 1].
        buckets: n is one of N, ⌈N/2⌉, ⌈N/4⌉, …, 1 instead of any number, each as probable, so that
            ``torch.compile`` meets few shapes.
        drop_rate: share of the modules that ``random`` leaves out, in [0, 1); at least one stays.

    Raises:
        InputError: for values outside their ranges.

    Source: ours for modules (arXiv 2210.08031 drops those of an ordinary training); nested dropout
    of units is arXiv 1402.0915, the sandwich of widths arXiv 1903.05134.
    """

    def __init__(
        self,
        kind: DropoutKind,
        num_modules: int,
        full_share: float = 0.3,
        buckets: bool = False,
        drop_rate: float = 0.5,
    ) -> None:
        check_choice("module_dropout", kind, get_args(DropoutKind))
        if not 0 <= full_share <= 1 or not 0 <= drop_rate < 1:
            raise InputError(
                "module dropout needs full_share in [0, 1] and drop_rate in [0, 1), not "
                f"{full_share} and {drop_rate}"
            )
        if kind != "none" and num_modules < 2:
            raise InputError(
                f"module_dropout {kind!r} needs a circuit of at least 2 modules, not {num_modules}"
            )
        self.kind = kind
        self.num_modules = num_modules
        self.full_share = full_share
        self.drop_rate = drop_rate
        self.sizes = bucket_sizes(num_modules) if buckets else list(range(1, num_modules + 1))
        self.buckets = buckets

    def draw(self, seed: int, step: int) -> list[Tensor | None]:
        """The modules that each pass of a step keeps.

        Args:
            seed: of the run.
            step: number of the optimiser step.

        Returns:
            For each pass int64 ``[n]`` on the CPU, ascending; None: all of them.
        """
        if self.kind == "none":
            return [None]
        if self.kind == "random":
            return [self._some(seed, step)]
        is_full, place = uniform(seed, Stream.MODULE_COUNT, step, np.arange(2))
        if self.kind == "nested":
            return [None if is_full < self.full_share else self._prefix(place, self.sizes)]
        return [None, self._prefix(place, self.sizes[:-1])]

    def _prefix(self, place: float, sizes: list[int]) -> Tensor | None:
        """The first n modules, n drawn by a number in [0, 1) from ascending sizes."""
        count = len(sizes)
        # of 1 … count, n has the probability (log(n + 1) - log n) / log(count + 1)
        index = int(place * count) if self.buckets else int((count + 1) ** place) - 1
        size = sizes[min(index, count - 1)]
        return None if size == self.num_modules else torch.arange(size)

    def _some(self, seed: int, step: int) -> Tensor:
        size = max(1, round((1 - self.drop_rate) * self.num_modules))
        order = keyed_permutation(self.num_modules, seed, Stream.MODULE_CHOICE, step)
        return torch.from_numpy(np.sort(order[:size]))


def bucket_sizes(num_modules: int) -> list[int]:
    """N, ⌈N/2⌉, ⌈N/4⌉, …, 1, ascending.

    Args:
        num_modules: N ≥ 1.
    """
    sizes = [num_modules]
    while sizes[-1] > 1:
        sizes.append(-(-sizes[-1] // 2))
    return sizes[::-1]


def distillation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Kullback-Leibler divergence of a student's classes from a teacher's; float32.

        mean_b sum_k p_bk (log p_bk - log q_bk);  p = softmax(teacher), q = softmax(student)

    Args:
        student: scores ``[B, K]``.
        teacher: scores ``[B, K]``; they get no gradient.

    Returns:
        A scalar.
    """
    target = teacher.detach().float().log_softmax(dim=1)
    return F.kl_div(
        student.float().log_softmax(dim=1), target, reduction="batchmean", log_target=True
    )
