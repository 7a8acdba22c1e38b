"""Cascaded video generation: a GAN per level, trained one level after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from lit_ssl.contracts.data import data_source
from lit_ssl.errors import InputError, check_numbers
from lit_ssl.losses.hinge import hinge_d_loss, hinge_g_loss
from lit_ssl.methods.from_checkpoint import FromCheckpoint
from lit_ssl.methods.video.classes import check_same_classes, counted_classes, names_of_data
from lit_ssl.methods.video.clip_batches import clip_batch, drawn_window
from lit_ssl.methods.video.judges import new_judges
from lit_ssl.methods.video.options import check_options, checked_window
from lit_ssl.methods.video.sampling import SamplesVideos
from lit_ssl.models.ema import ema_state_update_
from lit_ssl.models.video.conv_gru import CandidateAct
from lit_ssl.models.video.level import LevelSpec
from lit_ssl.models.video.replicas import join_batch_norms_
from lit_ssl.optim.adamw import adam
from lit_ssl.precision import kept_wide
from lit_ssl.trainer.fused import may_fuse
from lit_ssl.trainer.idle_networks import allow_idle_network
from lit_ssl.trainer.private import joins_batch_norms_on_cpu, trainer_of, uncounted_steps
from lit_ssl.trainer.sharding import refuse_sharding
from lit_ssl.video.resampling import downsample_video

__all__ = ["CascadedVideoGAN"]


class CascadedVideoGAN(FromCheckpoint, SamplesVideos, pl.LightningModule):
    """One level of a cascade of video GANs.

    Level 1 makes short, small videos from noise and a class. A level above makes those of the level
    below larger, in time and space, and is trained on short windows of them, so that memory is
    bounded by the window. Its batches are ``(video, labels)``: video ``[d_steps · B, T, 3, H, W]``
    in [-1, 1] of this level's resolution, of which ``frames`` consecutive frames are used.

    Each training step, with a discriminator of frames, one of clips and, from level 2 on, one of
    pairs of a video and what it was made from:

        for batch in video.chunk(d_steps):                     # fresh real videos, fresh fakes
            fake = G(z, y', c)                                 # c: window of the level below
            L_D = Σ_k mean relu(1 - D_k(batch)) + mean relu(1 + D_k(fake))
        L_G = -mean D_S(fake) - mean D_T(fake) - lambda_matching · mean D_M(fake, c)
        G_ema = ema_decay · G_ema + (1 - ema_decay) · G        # from step ema_start on

    Sampling uses G_ema, whose BatchNorm statistics are estimated anew by forward passes
    whenever its weights have changed: averaged ones lag behind the weights. The levels below are
    inside each checkpoint, so that it is complete, with the names of the classes (``class_names``)
    if the data tell them. ``trainer.max_steps`` and ``global_step`` count steps of the generator.

    Args:
        level: 1, 2, …
        num_frames: frames of whole videos of this level.
        resolution: height and width in pixels, or one number for both.
        num_classes: number of classes; 1: unconditional, whatever the labels. ``lit-ssl`` takes it
            from the data module.
        z_dim: width of the noise.
        embed_dim: width of the vector of a class.
        channels: width of the generator.
        d_channels: width of the discriminators; None: as the generator.
        channel_multipliers: of the generator's blocks; None: as in DVD-GAN.
        previous: checkpoint of the level below, needed by levels above 1; read once, at the start
            of the training.
        temporal_factor: frames per frame of the level below.
        spatial_factor: pixels per pixel of the level below, in height and width.
        window: frames of the level below that a training step sees; None: all.
        window_halo: more frames on each side of the window that the generator sees and the
            discriminators do not, so that padding falls on fewer of the judged frames.
        d_frames: frames per video that the discriminator of frames judges.
        d_steps: steps of the discriminators per step of the generator.
        lambda_matching: weight of the matching discriminator in the generator's loss.
        use_matching: have a matching discriminator (levels above 1).
        matching_space: "low" compares at the size of the condition, "high" at that of the video.
        residual_output: add the condition to the output of an upper level, before tanh.
        candidate_act: of the recurrent cells of level 1.
        lr_g: learning rate of the generator, constant.
        lr_d: learning rate of the discriminators.
        betas: of Adam.
        adam_eps: of Adam.
        ema_decay: in [0, 1).
        ema_start: step of the generator from which on G_ema averages; before, it is a copy.
        standing_stats_batches: forward passes that estimate BatchNorm's statistics of G_ema.
        score_reduction: "sum" or "mean" over the frames that a discriminator judges.

    Raises:
        InputError: for values outside their ranges.

    Source: outline of arXiv 2106.02719 and 2206.00735; networks and losses of DVD-GAN (1907.06571)
    and BigGAN (1809.11096). Where the two papers' details are not known, the choices are ours.
    """

    def __init__(
        self,
        level: int = 1,
        num_frames: int = 8,
        resolution: int | Sequence[int] = 64,
        num_classes: int | None = None,
        z_dim: int = 120,
        embed_dim: int = 120,
        channels: int = 96,
        d_channels: int | None = None,
        channel_multipliers: Sequence[int] | None = None,
        previous: str | None = None,
        temporal_factor: int = 2,
        spatial_factor: int = 2,
        window: int | None = None,
        window_halo: int = 0,
        d_frames: int = 8,
        d_steps: int = 2,
        lambda_matching: float = 1.0,
        use_matching: bool = True,
        matching_space: str = "low",
        residual_output: bool = False,
        candidate_act: CandidateAct = "relu",
        lr_g: float = 1e-4,
        lr_d: float = 5e-4,
        betas: tuple[float, float] = (0.0, 0.999),
        adam_eps: float = 1e-6,
        ema_decay: float = 0.9999,
        ema_start: int = 20_000,
        standing_stats_batches: int = 16,
        score_reduction: str = "sum",
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        check_numbers(self.hparams)
        self.automatic_optimization = False
        sides = list(resolution) if isinstance(resolution, Sequence) else [resolution] * 2
        if len(sides) != 2:
            raise InputError(f"resolution must be a height and a width, not {resolution}")
        if num_classes is not None and num_classes < 1:
            raise InputError(f"num_classes must be at least 1 (unconditional), not {num_classes}")
        self.spec = LevelSpec(
            level=level,
            num_frames=num_frames,
            resolution=(sides[0], sides[1]),
            num_classes=num_classes or 1,
            z_dim=z_dim,
            embed_dim=embed_dim,
            channels=channels,
            channel_multipliers=None if channel_multipliers is None else tuple(channel_multipliers),
            candidate_act=candidate_act,
            temporal_factor=temporal_factor,
            spatial_factor=spatial_factor,
            residual_output=residual_output,
        )
        self.window = checked_window(self.spec, window, window_halo)
        self.window_halo = window_halo
        check_options(self.hparams)
        if level == 1 and previous:
            raise InputError("level 1 makes videos from noise: leave out previous, or give a level")
        self.previous = previous

        self.register_module("lower", None)  # from `previous` or a checkpoint
        self.generator: Any = self.spec.build()
        self.generator_ema: Any = deepcopy(self.generator).requires_grad_(False).eval()
        self.discriminators = new_judges(self.spec, self.frames, self.hparams)
        self.register_buffer("g_step", torch.zeros((), dtype=torch.int64))
        counts = torch.ones(self.num_classes, dtype=torch.float64)
        self.register_buffer("class_counts", counts)

    # what it is

    @property
    def num_frames(self) -> int:
        """Frames of whole videos."""
        return self.spec.num_frames

    @property
    def resolution(self) -> tuple[int, int]:
        """Height and width of videos in pixels."""
        return self.spec.resolution

    @property
    def frames(self) -> int:
        """Frames of the videos that a training step judges."""
        if self.level == 1:
            return self.num_frames
        return self.window * self.spec.temporal_factor

    @property
    def has_matching(self) -> bool:
        """Whether a discriminator judges how well a video fits what it was made from."""
        return "matching" in self.discriminators

    # the levels below, and what the data say

    def setup(self, stage: str) -> None:
        """Read the levels below and what the classes are; say what was found.

        Raises:
            InputError: if the level below is missing or does not fit, the data have other classes,
                or the strategy would wait for gradients of the network that is not trained at that
                moment.
        """
        trainer = trainer_of(self)
        refuse_sharding(self, stage)
        if stage == "fit" and trainer is not None:
            allow_idle_network(trainer, "generator and discriminators are trained in turn")
            if joins_batch_norms_on_cpu(trainer):
                join_batch_norms_(self.generator)
                join_batch_norms_(self.generator_ema, joined=False)
        if trainer is not None:
            self._learn_classes(trainer, stage)
        if self._is_restored():
            return
        if self.level > 1 and self.lower is None:
            if stage != "fit" and not self.previous:
                raise InputError(
                    f"there is no trained level {self.level} here: give its checkpoint,"
                    " --ckpt_path PATH, which holds the levels below, too"
                )
            self.read_levels_below()
        if stage != "fit" and not int(self.g_step):
            rank_zero_warn(
                f"level {self.level} has not been trained: what it makes is noise; give a"
                " checkpoint of it, --ckpt_path PATH"
            )

    def _learn_classes(self, trainer: pl.Trainer, stage: str) -> None:
        """Take the names of the classes from the data, and how often they come."""
        source = data_source(trainer)
        names = names_of_data(source, self.num_classes)
        check_same_classes(self.class_names, names, "this model")
        self.class_names = names or self.class_names
        if stage == "fit" and self.num_classes > 1:
            counts = counted_classes(source, self.num_classes)
            if counts is not None:
                self.class_counts.copy_(counts)

    # training

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """``d_steps`` steps of the discriminators and one of the generator.

        Raises:
            InputError: for a batch of another form.
        """
        video, labels = clip_batch(batch, self)
        optimizers: Any = self.optimizers()
        optimizer_g, optimizer_d = optimizers
        logs: dict[str, Tensor] = {}
        d_steps = self.hparams["d_steps"]
        if len(video) % d_steps:
            raise InputError(
                f"a batch of {len(video)} videos cannot be cut into d_steps={d_steps} equal parts:"
                " make batch_size a multiple of it, and drop_last: true"
            )
        size = len(video) // d_steps
        with uncounted_steps(optimizer_d):
            for real, known in zip(video.split(size), labels.split(size), strict=True):
                self.toggle_optimizer(optimizer_d)
                loss, logs = self.discriminator_loss(real, known)
                optimizer_d.zero_grad()
                self.manual_backward(loss)
                optimizer_d.step()
                self.untoggle_optimizer(optimizer_d)
        self.toggle_optimizer(optimizer_g)
        loss_g = self.generator_loss(size)
        optimizer_g.zero_grad()
        self.manual_backward(loss_g)
        optimizer_g.step()
        self.untoggle_optimizer(optimizer_g)
        steps = self.count_step()
        self._average(steps)
        logs["loss_g"] = loss_g.detach()
        self.log_dict({f"train/{name}": value for name, value in logs.items()})
        return logs

    def discriminator_loss(self, real: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Hinge losses of all discriminators on real videos and as many new fakes.

        Args:
            real: ``[B, T, 3, H, W]`` in [-1, 1], T ≥ ``frames``.
            labels: int64 ``[B]``.

        Returns:
            The loss, and what is logged.
        """
        real = drawn_window(real, self.frames)
        with torch.no_grad():
            fake, condition, drawn = self.new_fakes(len(real))
        both, classes = torch.cat([real, fake]), torch.cat([labels, drawn])
        conditions = None
        if condition is not None:
            own = downsample_video(real, self.spec.temporal_factor, self.spec.spatial_factor)
            conditions = torch.cat([own, condition])
        losses: dict[str, Tensor] = {}
        logs: dict[str, Tensor] = {}
        for name, scores in self.judged(both, classes, conditions).items():
            of_real, of_fake = scores.float().chunk(2)
            losses[name] = hinge_d_loss(of_real, of_fake)
            logs[f"d_real/{name}"] = of_real.detach().mean()
            logs[f"d_fake/{name}"] = of_fake.detach().mean()
        total = torch.stack(list(losses.values())).sum()
        if "matching" in losses:
            logs["loss_matching"] = losses["matching"].detach()
        return total, {"loss_d": total.detach(), **logs}

    def generator_loss(self, size: int) -> Tensor:
        """Loss of the generator on so many new fakes.

        Args:
            size: how many.

        Returns:
            The sum of the hinge losses of all discriminators, that of matching by its weight.
        """
        fake, condition, drawn = self.new_fakes(size)
        weights = {"matching": self.hparams["lambda_matching"]}
        scores = self.judged(fake, drawn, condition)
        parts = [weights.get(name, 1.0) * hinge_g_loss(s.float()) for name, s in scores.items()]
        return torch.stack(parts).sum()

    def judged(self, video: Tensor, labels: Tensor, condition: Tensor | None) -> dict[str, Tensor]:
        """Scores of each discriminator, ``[B]``, higher for what looks real.

        Args:
            video: ``[B, T, C, H, W]`` in [-1, 1].
            labels: classes, int64 ``[B]``.
            condition: what the videos go with, for the discriminator that matches; None at level 1.

        Returns:
            By name: ``frames``, ``clip`` and, where there is one, ``matching``.
        """
        scores = {name: self.discriminators[name](video, labels) for name in ("frames", "clip")}
        if self.has_matching:
            scores["matching"] = self.discriminators["matching"](video, condition, labels)
        return scores

    def new_fakes(self, size: int) -> tuple[Tensor, Tensor | None, Tensor]:
        """Make videos by the generator as it is: a training step's, of ``frames`` frames.

        Args:
            size: how many.

        Returns:
            Videos ``[B, frames, 3, H, W]``, the window that they were made from (None at level 1)
            and their classes.
        """
        labels = self.drawn_labels(size)
        z = torch.randn(size, self.spec.z_dim, device=self.device)
        if self.level == 1:
            return self.generator(z, labels), None, labels
        condition = self.drawn_condition(labels)
        halo, factor = self.window_halo, self.spec.temporal_factor
        made = self.generator(z, labels, condition)
        middle = condition[:, halo : halo + self.window]
        return made[:, halo * factor : halo * factor + self.frames], middle, labels

    def _average(self, steps: int) -> None:
        decay = self.hparams["ema_decay"] if steps >= self.hparams["ema_start"] else 0.0
        ema_state_update_(self.generator_ema, self.generator, decay)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> CascadedVideoGAN:
        """Keep what only makes videos wide: an average in half precision would not move."""
        counts = self.class_counts
        wide = [self.generator_ema, *([] if self.lower is None else [self.lower])]
        with kept_wide(*wide):
            super()._apply(fn, recurse)
        if self.class_counts.dtype in (torch.float16, torch.bfloat16):
            self.class_counts = counts.to(self.class_counts.device)
        return self

    def train(self, mode: bool = True) -> CascadedVideoGAN:
        """Set the mode of what is trained; what only makes videos stays in eval mode."""
        super().train(mode)
        self.generator_ema.eval()
        if self.lower is not None:
            self.lower.eval()
        return self

    def configure_optimizers(self) -> Any:
        """Adam for the generator, and one for all discriminators."""
        options = self.hparams
        shared: dict[str, Any] = {
            "fused": may_fuse(self),
            "betas": tuple(options["betas"]),
            "eps": options["adam_eps"],
        }
        return [
            adam(self.generator.parameters(), lr=options["lr_g"], **shared),
            adam(self.discriminators.parameters(), lr=options["lr_d"], **shared),
        ]

    # evaluation

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Check the batch; callbacks compare it with generated videos."""
        clip_batch(batch, self, whole=True)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """As in validation."""
        clip_batch(batch, self, whole=True)

    def predict_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Make a video for each label of the batch, uint8 ``[B, T, 3, H, W]``."""
        _, labels = clip_batch(batch, self, whole=True)
        return self.sample(len(labels), labels)
