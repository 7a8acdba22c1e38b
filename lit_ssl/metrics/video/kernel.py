"""Kernel video distance: the squared MMD with a polynomial kernel."""

from __future__ import annotations

from torch import Tensor

from lit_ssl.errors import InputError

__all__ = ["polynomial_mmd"]


def polynomial_mmd(a: Tensor, b: Tensor) -> Tensor:
    """Unbiased estimate of the squared maximum mean discrepancy.

    The kernel is ``(x · y / D + 1)³``; pairs of a row with itself do not count.

    Args:
        a: ``[N, D]``, N >= 2.
        b: ``[M, D]``, M >= 2.

    Returns:
        float64, 0-d, on the CPU; around 0, and also below, for samples of one distribution.

    Raises:
        ValueError: Too few rows, shapes that do not fit, or values that are not finite.

    Source: arXiv 1801.01401, section 4; ``polynomial_mmd`` of songweige/TATS at 03bbce1.
    """
    a, b = a.detach().cpu().double(), b.detach().cpu().double()
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise InputError(
            "polynomial_mmd needs [N, D] and [M, D] with at least 2 rows each, got"
            f" {list(a.shape)} and {list(b.shape)}"
        )
    if not (a.isfinite().all() and b.isfinite().all()):
        raise InputError("polynomial_mmd got values that are NaN or infinite")

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / x.shape[1] + 1) ** 3

    def within(x: Tensor) -> Tensor:
        values = kernel(x, x)
        return (values.sum() - values.trace()) / (len(x) * (len(x) - 1))

    return within(a) + within(b) - 2 * kernel(a, b).mean()
