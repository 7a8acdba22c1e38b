"""RoPAWS: PAWS for unlabelled images that may be of no known class (arXiv 2302.14483)."""

from __future__ import annotations

from typing import Any

from lit_ssl.losses.ropaws import RoPAWSLoss
from lit_ssl.methods.paws import PAWS

__all__ = ["RoPAWS"]


class RoPAWS(PAWS):
    """PAWS that trusts its targets less on images that look like none of the labelled ones.

    Targets come from supports and unlabelled images together, and an image counts as much as it is
    likely to be of a known class. All else is [`PAWS`][lit_ssl.methods.PAWS].

    Args:
        prior_temperature: temperature > 0 of the prior that an image is of a known class: 0.1 for
            CIFAR-10, 3 for ImageNet in the released recipes. Large: every image is, as in PAWS.
        prior_power: power ≥ 0 of the images' weights; 0 weights all images alike.
        label_ratio: weight > 0 of all supports together over all unlabelled images together.
        kwargs: arguments of [`PAWS`][lit_ssl.methods.PAWS].
    """

    loss: RoPAWSLoss

    def __init__(
        self,
        prior_temperature: float = 3.0,
        prior_power: float = 1.0,
        label_ratio: float = 5.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.loss_options |= {
            "prior_temperature": prior_temperature,
            "prior_power": prior_power,
            "label_ratio": label_ratio,
        }
        self.loss = RoPAWSLoss(**self.loss_options)
