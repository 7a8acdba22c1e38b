"""A trained circuit on few labelled examples of other classes, with most of it frozen."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from lit_ssl.errors import InputError, by_name, check_choice, check_numbers
from lit_ssl.methods.nac.classifier import (
    CircuitClassifier,
    check_not_negative,
    is_undecayed,
    soft_cross_entropy,
)
from lit_ssl.methods.nac.weights import build_circuit, load_circuit
from lit_ssl.methods.rates import current_lr, mark_scheduled
from lit_ssl.models.nac.circuit import NeuralAttentiveCircuit
from lit_ssl.optim import decay_groups, set_schedules
from lit_ssl.optim.adamw import sgd
from lit_ssl.trainer.fused import may_fuse
from lit_ssl.trainer.hparams import not_plain
from lit_ssl.trainer.lone_batches import minds_lone_batches
from lit_ssl.trainer.step_logs import log_loss, log_values
from lit_ssl.trainer.weights_once import say_start

__all__ = ["Adapted", "NACFewShot"]

Adapted = Literal["head", "head+signatures", "head+codes", "all"]


class NACFewShot(CircuitClassifier):
    """Adapts a trained circuit to new classes: a new classifier, and as much else as is wanted.

    - ``head``: the classifier alone.
    - ``head+signatures``: also who is linked with whom.
    - ``head+codes``: also what each module computes; of a Perceiver IO its latents.
    - ``all``: full fine-tuning. At least this and ``head`` belong into every comparison.

    What is not adapted is frozen: it gets no gradient and no step, and the whole network stays in
    eval mode, without drop path, noise on codes or a sampled graph; only ``all`` trains as NAC
    does. The learning rate is constant.

    Args:
        net: a [`NeuralAttentiveCircuit`][lit_ssl.models.NeuralAttentiveCircuit], a Perceiver IO
            too; None: as the checkpoint says that it is built.
        num_classes: number of new classes, ≥ 2; ``lit-ssl`` takes it from the data module.
        pretrained: checkpoint of a run of NAC; with a ``net``, a state dict will do; None: the
            ``net`` has its weights.
        adapt: one of the above.
        lr: learning rate.
        momentum: of SGD, in [0, 1).
        weight_decay: of what is adapted, but for biases, norms, scales and signatures.
        label_smoothing: share of the target spread over all classes, in [0, 1).
        mixup: α of mixup; 0 switches it off. For images.
        cutmix: α of CutMix; 0 switches it off. With both on, each batch gets one of them.
        random_erasing: probability that a rectangle of a training image becomes noise.
        optimizer: replaces SGD, e.g. ``AdamW``; learning rate and weight decay stay those above.

    Raises:
        InputError: for values outside their ranges, a file that does not fit or does not say how
            its network is built, or parts to adapt that the network does not have.

    Source: optimiser, rate and the choice ``head`` as in published configurations for arXiv
    2210.08031; the other choices, and a frozen part without noise, are ours.
    """

    def __init__(
        self,
        net: NeuralAttentiveCircuit | None = None,
        num_classes: int | None = None,
        pretrained: str | None = None,
        adapt: Adapted = "head",
        lr: float = 3e-4,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        label_smoothing: float = 0.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        random_erasing: float = 0.0,
        optimizer: OptimizerCallable | None = None,
    ) -> None:
        check_choice("adapt", adapt, get_args(Adapted))
        if not 0 <= momentum < 1:
            raise InputError(f"NACFewShot needs momentum in [0, 1), not {momentum}")
        check_not_negative("NACFewShot", lr=lr, weight_decay=weight_decay)
        if net is None and pretrained is None:
            raise InputError(
                "NACFewShot needs a trained network: give pretrained, the checkpoint of a run of "
                "NAC, or the network itself as net"
            )
        config = None
        is_given = net is not None
        if net is None:
            assert pretrained is not None
            net, config = build_circuit(pretrained)
        super().__init__(net, num_classes, label_smoothing, mixup, cutmix, random_erasing)
        self.save_hyperparameters(
            ignore=not_plain(net=net if is_given else None, optimizer=optimizer)
        )
        check_numbers(self.hparams)
        self.pretrained = pretrained
        self.adapt = adapt
        self.lr = lr
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.optimizer_factory = optimizer
        self._config = config  # how the network is built, where the file said so
        net.reset_classifier(self.num_classes)
        self._freeze()
        self.train()  # what is frozen is in eval mode from the start

    def _freeze(self) -> None:
        """Leave a gradient only to what is adapted, of what had one."""
        net = self.net
        if self.adapt == "all":
            return
        parts: list[Any] = [net.head.classifier]
        if self.adapt == "head+signatures":
            parts.append(net.signatures)
            if not net.has_graph:
                raise InputError(
                    "adapt 'head+signatures' needs a network with a graph, and this one has no "
                    "signatures: choose 'head', 'head+codes' or 'all'"
                )
            if net.kernel_options.eval_mode == "threshold":
                raise InputError(
                    "adapt 'head+signatures' cannot train signatures through kernels with "
                    "eval_mode 'threshold', which have no gradient: build the network with 'soft'"
                )
        if self.adapt == "head+codes":
            # the latents of a Perceiver IO, which has no codes, are learned states
            parts.append(net.codes if len(net.codes) else net.states)
        net.requires_grad_(False)
        for part in parts:
            part.requires_grad_(True)

    def train(self, mode: bool = True) -> NACFewShot:
        """Switch to training or evaluation; a network of which parts are frozen stays in eval."""
        super().train(mode)
        if self.adapt != "all":
            self.net.eval()
        return self

    # weights

    def load_start(self) -> None:
        """Load the ``pretrained`` weights, where the network was not built with them."""
        if self.pretrained is None:
            return
        source = f"{self.pretrained} (checkpoint of a run)"
        if self._config is None:
            source = load_circuit(self.net, self.pretrained)
        say_start(self, source, {"net": True, "classifier": False})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep how the network is built, so that the file it came from is not needed again."""
        hparams = checkpoint.get("hyper_parameters", {})
        if self._config is not None and "_class_path" in hparams:
            hparams["net"] = self._config

    # training

    @by_name
    @minds_lone_batches("net.head")
    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """One step; returns loss and features."""
        inputs, targets, labels = self.training_inputs(batch, batch_idx)
        out = self.net(inputs)
        loss = soft_cross_entropy(out.logits, targets)
        log_loss(self, loss, len(labels))
        log_values(self, {"train/lr": current_lr(self.trainer)}, len(labels))
        self.log_accuracy(out.logits, labels)
        return {"loss": loss, "features": out.features.detach()}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD, or ``optimizer``, on what is adapted; the rate is constant."""
        named = ((name, p) for name, p in self.named_parameters() if p.requires_grad)
        groups = decay_groups(named, self.weight_decay, exclude=is_undecayed)
        if self.optimizer_factory is not None:
            optimizer = mark_scheduled(self.optimizer_factory(groups))
        else:
            optimizer = sgd(groups, may_fuse(self), lr=self.lr, momentum=self.momentum)
        set_schedules(optimizer, self.lr, self.weight_decay)
        return optimizer
