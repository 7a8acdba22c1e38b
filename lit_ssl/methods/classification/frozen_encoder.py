"""A trained network as it is, to evaluate it without the recipe that trained it."""

from __future__ import annotations

from typing import Any, NoReturn

import lightning.pytorch as pl
import timm
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from lit_ssl.checkpoints.encoders import load_encoder
from lit_ssl.contracts.modules import features_and_labels, features_of_inputs
from lit_ssl.errors import InputError, check_numbers
from lit_ssl.methods.from_checkpoint import FromCheckpoint
from lit_ssl.models.backbones.by_name import create_backbone
from lit_ssl.models.backbones.class_token import class_token_problem
from lit_ssl.models.backbones.fetching import weights_follow
from lit_ssl.models.backbones.vit import ClassTokenViT
from lit_ssl.trainer.hparams import not_plain
from lit_ssl.trainer.weights_once import WeightsOnce, say_start

__all__ = ["FrozenEncoder"]


class FrozenEncoder(FromCheckpoint, WeightsOnce, pl.LightningModule):
    """A backbone with the weights of a file, for evaluation only.

    ``lit-ssl validate`` and ``test`` run any evaluation callback on it; there is nothing to fit.
    Plain vision transformers with a class token (timm's ``vision_transformer`` and ``deit``, among
    them DINOv2) give that token, unless ``backbone_kwargs`` name another ``global_pool``, and take
    images of any size, for which positions are interpolated. All others give what timm's
    ``forward`` pools: a distilled DeiT the mean of its two tokens, BEiT, EVA and DINOv3 the mean of
    their patches, SigLIP its attention pooling, a hybrid ViT its class token at the size it was
    built for, convolutional networks their average.

    Args:
        backbone: timm name of any model; ``resnet50w2``, ``resnet50w4``, ``wide_resnet`` or
            ``wide_resnet28_2``; or a module with ``forward(images) -> [B, D]`` and D as
            ``embed_dim`` or ``num_features``.
        backbone_kwargs: arguments of a backbone given by name, e.g. ``img_size``, ``in_chans``, or
            ``pretrained: true`` for timm's own weights.
        weights: checkpoint of a run, official checkpoint, or any other file of
            ``lit_ssl.checkpoints.origins.read_weights``; None: those that the backbone has.
        online: take the trained backbone of MSN (or DINO) instead of its slow copy.
        prefix: of the backbone's names in the file, e.g. ``student_backbone``; None: by the origin,
            or the one prefix under which the file has the backbone's names.

    Raises:
        ValueError: if there is no backbone of that name, or the weights are not those of it.
    """

    def __init__(
        self,
        backbone: str | nn.Module = "vit_small_patch16_224",
        backbone_kwargs: dict[str, Any] | None = None,
        weights: str | None = None,
        online: bool = False,
        prefix: str | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=not_plain(backbone=backbone))
        check_numbers(self.hparams)
        self.weights = weights
        self.online = online
        self.prefix = prefix
        with weights_follow(weights is not None):
            self.backbone, self.embed_dim = _make_backbone(backbone, backbone_kwargs or {})
        self.backbone.requires_grad_(False)
        own_weights = (backbone_kwargs or {}).get("pretrained") or not isinstance(backbone, str)
        self._is_random = weights is None and not own_weights
        self.eval()

    @property
    def encoder(self) -> nn.Module:
        """The network, with timm's (or torchvision's) parameter names."""
        return getattr(self.backbone, "vit", self.backbone)

    def forward(self, images: Tensor) -> Tensor:
        """Features: ``[B, C, H, W]`` → ``[B, embed_dim]``; class tokens are normed.

        Args:
            images: normalised, of a size that the backbone takes.
        """
        _refuse_videos(images)
        return self.backbone(images)

    def features(self, images: Tensor) -> Tensor:
        """Features as MSN's protocols take them: a plain ViT's class token before the final norm.

        Args:
            images: ``[B, C, H, W]``.

        Returns:
            ``[B, embed_dim]``; for other networks those of
            [`forward`][lit_ssl.methods.FrozenEncoder.forward].
        """
        _refuse_videos(images)
        if isinstance(self.backbone, ClassTokenViT):
            return self.backbone(images, norm=False)
        return self(images)

    def train(self, mode: bool = True) -> FrozenEncoder:
        """Stay in eval mode, so that BatchNorm and dropout do not change the features."""
        return super().train(False)

    def setup(self, stage: str) -> None:
        """Load the weights, once.

        Raises:
            ValueError: if it is to be trained, or the weights do not fit.
        """
        if stage == "fit":
            self._refuse()
        super().setup(stage)

    def load_start(self) -> None:
        """Load the ``weights``, if any; warn of random ones."""
        if self.weights is not None:
            weights = load_encoder(self.backbone, self.weights, self.online, self.prefix)
            say_start(self, weights.source, {"backbone": True})
        elif self._is_random:
            rank_zero_warn(
                "FrozenEncoder has random weights: give weights (a file), or pretrained: true in "
                "backbone_kwargs for timm's own"
            )

    validation_step = test_step = features_and_labels
    predict_step = features_of_inputs

    def training_step(self, batch: Any, batch_idx: int) -> NoReturn:
        """Refuse."""
        self._refuse()

    def configure_optimizers(self) -> NoReturn:
        """Refuse."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise InputError(
            "FrozenEncoder has nothing to train: run `lit-ssl validate` or `lit-ssl test` with it; "
            "to train a classifier on its weights use LinearEvaluation, or ImageClassifier with "
            "pretrained: FILE"
        )


def _refuse_videos(images: Tensor) -> None:
    if images.ndim == 5:
        raise InputError(
            f"FrozenEncoder takes images, got {list(images.shape)}: take the frames of videos as "
            "images with VideoFramesDataModule, or give SupervisedVideo the weights"
        )


def _make_backbone(backbone: str | nn.Module, kwargs: dict[str, Any]) -> tuple[nn.Module, int]:
    """The network and its width; ViTs with a class token are pooled by it, as MSN trains them."""
    by_name = isinstance(backbone, str) and "global_pool" not in kwargs
    if by_name and timm.models.is_model_in_modules(str(backbone), ["vision_transformer", "deit"]):
        try:
            network, width = create_backbone(backbone, {"global_pool": "token", **kwargs})
        except AssertionError:  # it has no class token
            network, width = create_backbone(backbone, kwargs)
    else:
        network, width = create_backbone(backbone, kwargs)
    if isinstance(network, VisionTransformer) and class_token_problem(network) is None:
        return ClassTokenViT(network), width
    if getattr(network, "num_classes", 0):
        raise InputError(
            f"{type(network).__name__} has a classifier, whose scores are no features: build it "
            "with num_classes=0, or give its timm name without num_classes"
        )
    return network, width
