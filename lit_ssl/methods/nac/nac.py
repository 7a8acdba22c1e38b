"""Neural Attentive Circuits (arXiv 2210.08031): training on labels."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor

from lit_ssl.errors import InputError, by_name, check_numbers
from lit_ssl.methods.nac.annealing import KernelAnnealing
from lit_ssl.methods.nac.classifier import (
    CircuitClassifier,
    check_not_negative,
    is_undecayed,
    soft_cross_entropy,
)
from lit_ssl.methods.nac.module_dropout import DropoutKind, ModuleDropout, distillation_loss
from lit_ssl.methods.nac.regularisers import WiringLosses, mediator_links
from lit_ssl.methods.nac.weights import load_circuit
from lit_ssl.methods.rates import current_lr, mark_scheduled, set_rates
from lit_ssl.metrics.circuit import degree_entropy, link_density, mean_link
from lit_ssl.models.nac.circuit import NeuralAttentiveCircuit
from lit_ssl.models.nac.graph_priors import GraphPrior
from lit_ssl.models.nac.signature_fit import UNTRUNCATED
from lit_ssl.optim import LossWeight, Schedule, decay_groups, set_schedules
from lit_ssl.optim.adamw import adamw
from lit_ssl.seeding import run_seed
from lit_ssl.trainer.fused import may_fuse
from lit_ssl.trainer.hparams import not_plain
from lit_ssl.trainer.length import epochs_to_steps, total_steps
from lit_ssl.trainer.lone_batches import minds_lone_batches
from lit_ssl.trainer.run import is_logged
from lit_ssl.trainer.step_logs import log_loss, log_values
from lit_ssl.trainer.weights_once import say_start

__all__ = ["NAC"]


class NAC(CircuitClassifier):
    """Trains a circuit of modules, and its wiring, on labels.

        loss = cross-entropy + w_r · repulsion(signatures) + w_p · distance(P[π][:, π], W)

    Batches are ``(inputs, labels)`` of any kind that the network's tokenizer reads; labels of −1 do
    not count. ``forward(inputs)`` gives features, ``logits`` scores. A Perceiver IO, which has
    no wiring, trains by the cross-entropy alone.

    At the start of a run the signatures are fitted to the network's ``graph_prior``, unless weights
    of a checkpoint or file follow. Logged are the parts of the loss, and under ``monitor/`` the
    density, mean link probability and degree entropy of the graph and the bandwidth of each depth.

    Args:
        net: a [`NeuralAttentiveCircuit`][lit_ssl.models.NeuralAttentiveCircuit]; without a
            classifier it gets one.
        num_classes: number of classes, ≥ 2; ``lit-ssl`` takes it from the data module.
        lr: peak learning rate. The paper's rates are for a batch of 512: multiply ``lr`` and
            ``final_lr`` by (batch per device x devices) / 512.
        start_lr: learning rate of the first step, with a warm-up.
        final_lr: where the cosine ends.
        warmup_epochs: length of the linear warm-up in epochs (fractions allowed).
        weight_decay: of all weights but biases, norms, scales, signatures and positions; codes are
            decayed.
        label_smoothing: share of the target spread over all classes, in [0, 1).
        mixup: α of mixup; 0 switches it off. For images.
        cutmix: α of CutMix; 0 switches it off. With both on, each batch gets one of them.
        random_erasing: probability that a rectangle of a training image becomes noise
            ([`RandomErasing`][lit_ssl.transforms.RandomErasing]), before mixing.
        optimizer: replaces AdamW; learning rate and weight decay stay those above.
        repulsion_weight: w_r ≥ 0, of signatures pushing each other away
            ([`SignatureRepulsion`][lit_ssl.losses.SignatureRepulsion]); or start and stop of a
            weight that changes ([`LossWeight`][lit_ssl.optim.LossWeight]).
        repulsion_hinge: distance from which on signatures are left alone, in (0, 2].
        prior_weight: w_p, likewise, of link probabilities like those of a graph family
            ([`LinkProbabilityMatching`][lit_ssl.losses.LinkProbabilityMatching]).
        prior: graph family that gives the target W; None: the network's ``graph_prior``, and
            without that there is no such loss.
        prior_divergence: ``mse`` or ``kl``.
        prior_floor: terms below it do not push, ≥ 0.
        prior_noise: of the assignment of modules to the target's nodes, ≥ 0.
        prior_refresh: steps between assignments, ≥ 1.
        mixture_weight: likewise, of distances between signatures spread as at the start
            ([`DistanceMixture`][lit_ssl.losses.DistanceMixture]).
        mixture_components: Gaussians of that mixture, ≥ 1.
        module_dropout: what a step keeps: ``none``: all modules; ``random``: without a random share
            of them; ``nested``: all, or the first n, drawn anew; ``sandwich``: both in each step;
            ``distilled``: both, and the first n learn from the answers of all. After the last three
            a circuit can be cut; see ``lit_ssl.methods.nac.module_dropout.ModuleDropout``.
        full_share: share of the steps in which ``nested`` keeps all modules, in [0, 1].
        buckets: n is one of N, N/2, N/4, … instead of any number, for ``torch.compile``.
        drop_rate: share of the modules that ``random`` leaves out, in [0, 1).
        start_temperature: τ of the kernels at the start, which then moves to their own; None: as
            it is. See ``lit_ssl.methods.nac.annealing.KernelAnnealing``.
        start_bandwidth: ε at the start, likewise, for kernels whose bandwidth is not learned.
        start_truncation: distance at the start beyond which there is no link, likewise, for kernels
            that have a truncation.
        anneal_share: share of the run in which these reach the kernel's own values, in (0, 1].
        pretrained: file with weights of the same network, but for the classifier: a checkpoint of
            another run, or a state dict.

    Raises:
        InputError: for values outside their ranges, or that do not go together.

    Source: arXiv 2210.08031 and its code: losses, schedule and defaults. Module dropout and
    annealing are ours.
    """

    def __init__(
        self,
        net: NeuralAttentiveCircuit,
        num_classes: int | None = None,
        lr: float = 1.2e-3,
        start_lr: float = 1e-6,
        final_lr: float = 4e-5,
        warmup_epochs: float = 5.0,
        weight_decay: float = 0.075,
        label_smoothing: float = 0.1,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        random_erasing: float = 0.0,
        optimizer: OptimizerCallable | None = None,
        repulsion_weight: float | LossWeight = 0.1,
        repulsion_hinge: float = 0.4,
        prior_weight: float | LossWeight = 0.1,
        prior: GraphPrior | None = None,
        prior_divergence: Literal["mse", "kl"] = "mse",
        prior_floor: float = 0.0,
        prior_noise: float = 0.0,
        prior_refresh: int = 50,
        mixture_weight: float | LossWeight = 0.0,
        mixture_components: int = 1,
        module_dropout: DropoutKind = "none",
        full_share: float = 0.3,
        buckets: bool = False,
        drop_rate: float = 0.5,
        start_temperature: float | None = None,
        start_bandwidth: float | None = None,
        start_truncation: float | None = None,
        anneal_share: float = 0.2,
        pretrained: str | None = None,
    ) -> None:
        check_not_negative(
            "NAC", lr=lr, start_lr=start_lr, final_lr=final_lr, warmup_epochs=warmup_epochs,
            weight_decay=weight_decay,
        )  # fmt: skip
        if mixture_components < 1:
            raise InputError(f"mixture_components must be at least 1, not {mixture_components}")
        super().__init__(net, num_classes, label_smoothing, mixup, cutmix, random_erasing)
        objects: dict[str, Any] = {"net": net, "optimizer": optimizer, "prior": prior}
        weights = {"repulsion": repulsion_weight, "prior": prior_weight, "mixture": mixture_weight}
        objects |= {f"{name}_weight": weight for name, weight in weights.items()}
        self.save_hyperparameters(ignore=not_plain(**objects))
        check_numbers(self.hparams)
        rates = {"lr": lr, "start_lr": start_lr, "final_lr": final_lr}
        rates |= {"warmup_epochs": warmup_epochs, "weight_decay": weight_decay}
        for name, value in rates.items():
            if not 0 <= value < math.inf:
                raise InputError(f"NAC needs {name} >= 0, not {value}")
        self.loss_weights = {name: _weight(name, weight) for name, weight in weights.items()}
        self.lr = lr
        self.start_lr = start_lr
        self.final_lr = final_lr
        self.warmup_epochs = warmup_epochs
        self.weight_decay = weight_decay
        self.optimizer_factory = optimizer
        self.pretrained = pretrained
        self.give_classifier()
        self.wiring = WiringLosses(
            net,
            repulsion=bool(repulsion_weight),
            repulsion_hinge=repulsion_hinge,
            prior=(prior or net.graph_prior) if prior_weight else None,
            prior_divergence=prior_divergence,
            prior_floor=prior_floor,
            prior_noise=prior_noise,
            prior_refresh=prior_refresh,
            mixture_components=mixture_components if mixture_weight else 0,
        )
        self.dropout = ModuleDropout(
            module_dropout, net.num_modules, full_share, buckets, drop_rate
        )
        self.annealing = KernelAnnealing(
            net, start_temperature, start_bandwidth, start_truncation, anneal_share
        )

    # weights

    def load_start(self) -> None:
        """Load the ``pretrained`` weights, or else fit the signatures to the graph prior."""
        net = self.net
        if self.pretrained:
            source = load_circuit(net, self.pretrained)
            say_start(self, source, {"net": True, "classifier": False})
            return
        if net.graph_prior is not None and net.is_wired:
            rank_zero_info(f"{type(self).__name__}: the network keeps the signatures that it has")
        report = net.init_signatures()
        if report is not None and net.graph_prior is not None:
            name = f"{type(self).__name__}: signatures fitted to the graph"
            options, cut = net.kernel_options, ""
            if options.truncation is None:
                cut = " after pruning; training has no truncation and keeps all links"
                if options.eval_truncation is None:
                    cut = f" up to a distance of {UNTRUNCATED}; the kernel itself keeps all links"
            rank_zero_info(
                f"{name} {net.graph_prior.name} of {net.num_modules} modules: {report}{cut}"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep how far the kernels have got, so that they are the same when it is evaluated."""
        checkpoint["nac_progress"] = self.annealing.progress

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Set the kernels as they were."""
        super().on_load_checkpoint(checkpoint)
        self.annealing.apply(self.net, checkpoint.get("nac_progress", 1.0))

    # training

    @by_name
    @minds_lone_batches("net.head")
    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """One step; returns loss and features."""
        inputs, targets, labels = self.training_inputs(batch, batch_idx)
        net = self.net
        step, total = self.trainer.global_step, total_steps(self.trainer)
        self.annealing.apply(net, step / total)
        subsets = self.dropout.draw(run_seed(None), step)
        outs = [net(inputs, None if keep is None else self._on_device(keep)) for keep in subsets]
        parts = {"ce": soft_cross_entropy(outs[0].logits, targets)}
        loss = parts["ce"]
        if len(outs) == 2:
            full, prefix = (out.logits for out in outs)
            if self.dropout.kind == "distilled":
                parts["distillation"] = distillation_loss(prefix, full)
            else:
                parts["prefix_ce"] = soft_cross_entropy(prefix, targets)
            loss = torch.stack(list(parts.values())).mean()
        wiring = self.wiring(net)
        for name, value in wiring.items():
            loss = loss + self.loss_weights[name](step, total) * value
        log_loss(self, loss, len(labels))
        logged = {f"train/{name}": value for name, value in (parts | wiring).items()}
        log_values(self, {**logged, "train/lr": current_lr(self.trainer)}, len(labels))
        self.log_accuracy(outs[0].logits, labels)
        if net.has_graph and is_logged(self.trainer):
            self.log_dict(self.graph_statistics(), batch_size=len(labels))
        return {"loss": loss, "features": outs[0].features.detach()}

    def _on_device(self, keep: Tensor) -> Tensor:
        return keep.to(self.device, non_blocking=True)

    @torch.no_grad()
    def graph_statistics(self) -> dict[str, Tensor]:
        """Density, mean link probability, degree entropy, and the bandwidth of each depth.

        Returns:
            Scalars by the names under which they are logged.
        """
        net = self.net
        links = mediator_links(net)
        bandwidths = net.bandwidths().unbind()
        return {
            "monitor/density": link_density(links),
            "monitor/mean_link": mean_link(links),
            "monitor/degree_entropy": degree_entropy(links),
            **{f"monitor/bandwidth_{depth}": value for depth, value in enumerate(bandwidths)},
        }

    # schedules

    @property
    def schedule(self) -> Schedule:
        """Learning rate as a function of the optimiser step (from 0).

        Raises:
            InputError: if the run or its epochs have no known length.
        """
        total = total_steps(self.trainer)
        warmup = epochs_to_steps(self.trainer, self.warmup_epochs, "warmup_epochs")
        return Schedule(self.start_lr, self.lr, self.final_lr, total, warmup)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW (or ``optimizer``) on decayed and undecayed groups."""
        self.schedule(0)  # a run of unknown length is refused now
        named = ((name, p) for name, p in self.named_parameters() if p.requires_grad)
        groups = decay_groups(named, self.weight_decay, exclude=is_undecayed)
        if self.optimizer_factory is not None:
            optimizer = mark_scheduled(self.optimizer_factory(groups))
        else:
            # also the weight decay of parameters that a callback adds
            decay = self.weight_decay
            optimizer = adamw(groups, may_fuse(self), lr=self.lr, eps=1e-8, weight_decay=decay)
        set_schedules(optimizer, self.lr, self.weight_decay)
        return optimizer

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
    ) -> None:
        """Set this step's learning rate, then step."""
        rate = self.schedule(self.trainer.global_step)
        set_rates(self.trainer, optimizer, rate, self.weight_decay)
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)


def _weight(name: str, weight: float | LossWeight) -> LossWeight:
    """A weight over the training, also where it is the same all along."""
    found = weight if isinstance(weight, LossWeight) else LossWeight(weight, weight)
    if min(found.start, found.stop) < 0:
        raise InputError(f"{name}_weight must be >= 0, not {weight}")
    return found
