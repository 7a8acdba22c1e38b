"""Networks and parts of networks that timm does not have."""

from lit_ssl.models.conv_stem import ConvStem
from lit_ssl.models.ema import ema_update_, target_copy
from lit_ssl.models.heads import ProjectionHead
from lit_ssl.models.vit import ClassTokenViT, draw_kept_patches, keep_count

__all__ = [
    "ClassTokenViT",
    "ConvStem",
    "ProjectionHead",
    "draw_kept_patches",
    "ema_update_",
    "keep_count",
    "target_copy",
]
