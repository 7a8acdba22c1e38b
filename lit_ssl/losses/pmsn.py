"""The loss of PMSN: MSN with a prior over prototypes (arXiv 2210.07277)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from lit_ssl.errors import InputError, check_choice
from lit_ssl.losses.msn import MSNLoss, log_sinkhorn
from lit_ssl.losses.priors import as_prior
from lit_ssl.precision import kept_wide

__all__ = ["PMSNLoss"]


class PMSNLoss(MSNLoss):
    """MSN's loss with any prior π over the prototypes in the place of the uniform one.

    With p, p⁺ and p̄ of [`MSNLoss`][lit_ssl.losses.MSNLoss] and the prior ``π [K]``:

        p⁺ = sinkhorn(p⁺, towards uniform or π)                  # off by default
        loss = ce + me_max_weight * KL(p̄ ‖ π) + entropy_weight * H(p).mean()

    With a uniform π this is [`MSNLoss`][lit_ssl.losses.MSNLoss]. The output's ``me_max`` holds the
    divergence.

    Args:
        prior: ``[K]`` positive shares of the prototypes; they are divided by their sum. Builders
            are in ``lit_ssl.losses.priors``. A buffer, so it moves and is saved with the loss.
        temperature: τ > 0 of the anchor predictions.
        sinkhorn_iterations: Sinkhorn iterations on the targets. Off by default: standard Sinkhorn
            forces uniform targets, which contradicts any other prior.
        me_max_weight: λ ≥ 0 of the divergence.
        entropy_weight: weight of the mean entropy of the predictions.
        gather: use all processes in p̄ and Sinkhorn; False keeps the loss free of communication.
        kl_direction: ``forward`` is KL(p̄ ‖ π); ``reverse`` is KL(π ‖ p̄), as lightly computes it,
            which does not become MSN's term for a uniform π.
        sinkhorn_marginal: what Sinkhorn, if any, aims at for the shares of the prototypes:
            ``uniform``, or the ``prior``, so that targets and divergence agree.
        queue_size: as in [`MSNLoss`][lit_ssl.losses.MSNLoss].

    Raises:
        ValueError: for a value outside its range, or a prior that is none.

    Source: arXiv 2210.07277 presents it as MSN with a power-law prior. Its equation could not be
    read; the forward direction is the one that contains MSN's term.

    Examples:
        >>> from lit_ssl.losses.priors import power_law_prior
        >>> loss = PMSNLoss(power_law_prior(16, exponent=0.25))
        >>> loss(torch.randn(6, 8), torch.randn(3, 8), torch.randn(16, 8)).loss.shape
        torch.Size([])
    """

    prior: Tensor

    def __init__(
        self,
        prior: Tensor | Sequence[float],
        temperature: float = 0.1,
        sinkhorn_iterations: int = 0,
        me_max_weight: float = 5.0,
        entropy_weight: float = 0.0,
        gather: bool = True,
        kl_direction: Literal["forward", "reverse"] = "forward",
        sinkhorn_marginal: Literal["uniform", "prior"] = "uniform",
        queue_size: int = 0,
    ) -> None:
        dtype = torch.promote_types(torch.get_default_dtype(), torch.float32)
        shares = as_prior(prior).to(dtype)
        super().__init__(
            temperature=temperature,
            sinkhorn_iterations=sinkhorn_iterations,
            me_max_weight=me_max_weight,
            entropy_weight=entropy_weight,
            gather=gather,
            queue_size=queue_size,
            num_prototypes=len(shares),
        )
        check_choice("kl_direction", kl_direction, ("forward", "reverse"))
        check_choice("sinkhorn_marginal", sinkhorn_marginal, ("uniform", "prior"))
        self.kl_direction = kl_direction
        self.sinkhorn_marginal = sinkhorn_marginal
        self.register_buffer("prior", shares)

    def _apply(self, fn: Callable, recurse: bool = True) -> PMSNLoss:
        """Move to a device; half precision does not reach the prior."""
        with kept_wide(self):
            super()._apply(fn, recurse)
        return self

    def set_prior(self, prior: Tensor | Sequence[float]) -> None:
        """Replace the prior by another one for the same number of prototypes.

        Args:
            prior: ``[K]``; see ``as_prior``.
        """
        self.prior.copy_(as_prior(prior, len(self.prior)))

    def balance(self, log_probs: Tensor) -> Tensor:
        """Sinkhorn on the log-assignments ``[B, K]``, towards uniform shares or the prior.

        Args:
            log_probs: of all images of this process.

        Returns:
            ``[B, K]``, log-assignments.
        """
        log_marginal = None
        if self.sinkhorn_marginal == "prior":
            log_marginal = self.prior.to(log_probs.dtype).log()
        return log_sinkhorn(log_probs, self.sinkhorn_iterations, log_marginal, self.gather)

    def regularizer(self, mean_probs: Tensor) -> Tensor:
        """``KL(p̄ ‖ π)``, or ``KL(π ‖ p̄)``, of the mean prediction ``[K]``.

        Args:
            mean_probs: shares that add up to one.

        Returns:
            A scalar ≥ 0.

        Raises:
            ValueError: if prior and prediction differ in length.
        """
        if len(mean_probs) != len(self.prior):
            raise InputError(
                f"the prior has {len(self.prior)} entries, but there are {len(mean_probs)} "
                "prototypes: give one share per prototype"
            )
        prior = self.prior.to(mean_probs.dtype)
        if self.kl_direction == "reverse":
            tiny = torch.finfo(mean_probs.dtype).tiny
            return (prior * (prior.log() - mean_probs.clamp_min(tiny).log())).sum()
        # As MSN's term and a correction, which vanishes for a uniform prior.
        correction = mean_probs * (len(prior) * prior).log()
        return super().regularizer(mean_probs) - correction.sum()
