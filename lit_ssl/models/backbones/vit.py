"""Class-token encoder on a timm VisionTransformer, with real token dropping."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from timm import create_model, is_model, list_models
from timm.layers import DropPath, PatchEmbed, trunc_normal_
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lit_ssl.errors import InputError, InputTypeError, did_you_mean
from lit_ssl.models.backbones import conv_stem  # noqa: F401 - registers its names with timm
from lit_ssl.models.backbones.class_token import class_token_problem
from lit_ssl.models.backbones.fetching import fetching, without_weights
from lit_ssl.models.backbones.queried_block import QueriedBlock, with_queried_blocks

__all__ = ["ClassTokenViT", "checkpoint_activations", "draw_kept_patches", "keep_count"]

_NEEDED = "a timm VisionTransformer is needed"
_INSTEAD = (
    "for another network, pass a module with forward(images, keep=None) -> [B, D], embed_dim and "
    "patch_size"
)


def keep_count(num_patches: int, mask_ratio: float) -> int:
    """Patches that survive masking: ``floor(num_patches * (1 - mask_ratio))``, at least 1.

    Args:
        num_patches: of an image, ≥ 1.
        mask_ratio: share of the patches that are dropped, in [0, 1).
    """
    # The small offset undoes float error: 20 * (1 - 0.3) is 13.999… but 14 patches are meant.
    return max(1, int(num_patches * (1.0 - mask_ratio) + 1e-9))


def draw_kept_patches(
    batch: int, num_patches: int, mask_ratio: float, mode: str, device: torch.device | str
) -> Tensor | None:
    """Draw the patches that the network sees, uniformly without replacement.

    Args:
        batch: number of images.
        num_patches: patches per image.
        mask_ratio: share of patches to drop, in [0, 1).
        mode: ``"image"`` draws for each image on its own, ``"batch"`` once for the whole batch (as
            in the reference code of MSN).
        device: where to draw.

    Returns:
        Patch indices, int64, ``[batch, n_keep]`` or ``[n_keep]``; None if nothing is dropped.
    """
    n_keep = keep_count(num_patches, mask_ratio)
    if n_keep == num_patches:
        return None
    if mode == "batch":
        return torch.randperm(num_patches, device=device)[:n_keep]
    # float32 also where half precision is the default, in which many of the numbers would be equal
    numbers = torch.rand(batch, num_patches, device=device, dtype=torch.float32)
    return numbers.argsort(dim=1)[:, :n_keep]


class ClassTokenViT(nn.Module):
    """A timm VisionTransformer that returns its class token and can drop patches.

    Differences from timm's own forward, all of which leave the class token as it is:

    - dropped patches are removed *before* the patch projection, so they cost nothing at all;
    - the last block computes only the class token's query: nothing else of it is used;
    - in bfloat16 on the CPU attention is written out, which is faster there;
    - any image size is accepted: borders that do not fill a patch are cropped, and positions are
      interpolated bicubically **without** antialiasing, as MSN's reference code does. (timm's
      resampling antialiases, which moves the positions of a 96 px view by several standard errors.)

    Args:
        vit: a timm VisionTransformer with a class token; its standard blocks become
            ``lit_ssl.models.backbones.queried_block.QueriedBlock``, which compute the same.
        any_pooling: take the class token also of a network that pools otherwise; only features
            before the final norm are its own then.

    Raises:
        TypeError: if ``vit`` is no VisionTransformer, or a subclass that computes otherwise.
        ValueError: if it has no class token, or parts that are not computed here.
    """

    def __init__(self, vit: VisionTransformer, any_pooling: bool = False) -> None:
        super().__init__()
        if not isinstance(vit, VisionTransformer):
            raise InputTypeError(f"{_NEEDED}, not {type(vit).__name__}; {_INSTEAD}")
        problem = class_token_problem(vit, any_pooling)
        if problem is not None:
            raise InputTypeError(f"{_NEEDED} with a class token, and {problem}; {_INSTEAD}")
        self.vit = with_queried_blocks(vit)
        self.embed_dim: int = vit.embed_dim
        self.patch_size: tuple[int, int] = tuple(vit.patch_embed.patch_size)

    def blocks_to_compile(self) -> list[nn.Module]:
        """The blocks, all of which are called as modules."""
        return list(self.vit.blocks)

    @classmethod
    def create(
        cls, name: str, initialization: Literal["reference", "sincos"] = "reference", **kwargs: Any
    ) -> ClassTokenViT:
        """Build a timm ViT by name.

        Args:
            name: timm model name, e.g. ``vit_small_patch16_224``.
            initialization: see ``init_reference`` and ``init_sincos``; unused with
                ``pretrained=True``.
            **kwargs: passed to ``timm.create_model`` (``img_size``, ``patch_size``, ``in_chans``,
                ``drop_path_rate``, ``depth`` …).

        Raises:
            ValueError: if timm has no such model, or cannot build it as a ViT with these options.
        """
        if ":" not in name and not is_model(name):  # hf-hub:… and local-dir:… are others
            hint = did_you_mean(name, list_models(), list_up_to=0)
            raise InputError(f"timm has no model {name!r}.{hint}")
        asked = {"num_classes": 0, "global_pool": "token", **without_weights(kwargs)}
        what, instead = f"{name} with backbone_kwargs.pretrained: true", "leave that out"
        try:
            with fetching(what, instead, really=":" in name or bool(asked.get("pretrained"))):
                vit: Any = create_model(name, **asked)
        except (TypeError, AssertionError) as error:
            raise InputError(
                f"timm cannot build {name!r} as a vision transformer with {kwargs}: {error}"
            ) from error
        encoder = cls(vit)
        if not kwargs.get("pretrained", False):
            {"reference": init_reference, "sincos": init_sincos}[initialization](vit)
        return encoder

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Whole patches in an image of this size (pixels).

        Args:
            height: of the image.
            width: of the image.

        Returns:
            Rows and columns.
        """
        return height // self.patch_size[0], width // self.patch_size[1]

    def num_patches(self, height: int, width: int) -> int:
        """Number of patches in an image of this size (pixels).

        Args:
            height: of the image.
            width: of the image.
        """
        rows, columns = self.grid(height, width)
        return rows * columns

    def forward(
        self, images: Tensor, keep: Tensor | None = None, norm: bool = True, blocks: int = 1
    ) -> Tensor:
        """Encode images.

        Args:
            images: ``[B, C, H, W]``, float, normalised.
            keep: indices of the patches to see, int64, ``[n_keep]`` (the same for all images) or
                ``[B, n_keep]``; None: all patches. Their order is irrelevant.
            norm: apply the final norm, whatever its name (with ``blocks=1`` only).
            blocks: number of last blocks whose class tokens are concatenated. More than one, or
                ``norm=False``, gives the features before the final norm that MSN's evaluation uses.

        Returns:
            ``[B, D * blocks]``.

        Raises:
            InputError: if the network has fewer than ``blocks`` blocks, or ``blocks`` is below 1.
        """
        x = self._embed(images, keep)
        all_blocks = list(self.vit.blocks)
        if not 1 <= blocks <= len(all_blocks):
            raise InputError(f"blocks must lie in 1 … {len(all_blocks)}, not {blocks}")
        collected = []
        for index, block in enumerate(all_blocks):
            last = index == len(all_blocks) - 1
            x = self._run(block, x, last and isinstance(block, QueriedBlock))
            if index >= len(all_blocks) - blocks:
                collected.append(x[:, 0])
        if norm and blocks == 1:
            return self.vit.fc_norm(self.vit.norm(collected[0]))  # one of them does nothing
        return torch.cat(collected, dim=1)

    def _run(self, block: nn.Module, x: Tensor, class_token_alone: bool) -> Tensor:
        options: dict[str, Any] = {"queries": 1} if class_token_alone else {}
        if self.vit.grad_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, x, use_reentrant=False, **options)
        return block(x, **options)

    def _embed(self, images: Tensor, keep: Tensor | None) -> Tensor:
        """Patches (the kept ones), positions and prefix tokens: ``[B, prefix + n, D]``."""
        vit = self.vit
        rows, columns = self.grid(*images.shape[-2:])
        if rows == 0 or columns == 0:
            raise InputError(
                f"images of {images.shape[-2]}×{images.shape[-1]} pixels hold no patch of "
                f"{self.patch_size[0]}×{self.patch_size[1]}"
            )
        images = images[..., : rows * self.patch_size[0], : columns * self.patch_size[1]]
        x = self._project(images, keep, rows, columns)

        prefix: list[Tensor] = [t for t in (vit.cls_token, vit.reg_token) if t is not None]
        head = torch.cat(prefix, dim=1).to(x.dtype)
        if vit.pos_embed is not None:
            head_positions, positions = self.positions(rows, columns)
            if keep is not None:
                positions = positions[0][keep]
            x = x + positions.to(x.dtype)
            if head_positions is not None:
                head = head + head_positions.to(x.dtype)
        x = torch.cat([head.expand(x.shape[0], -1, -1), x], dim=1)
        return vit.norm_pre(vit.pos_drop(x))

    def _project(self, images: Tensor, keep: Tensor | None, rows: int, columns: int) -> Tensor:
        embed = self.vit.patch_embed
        if (
            type(embed) is not PatchEmbed
        ):  # a convolutional stem: its patches overlap, so drop afterwards
            x = embed(images)
            x = x.flatten(1, 2) if x.ndim == 4 else x
            return x if keep is None else _gather(x, keep)
        if images.shape[1] != embed.proj.in_channels:
            raise InputError(
                f"images have {images.shape[1]} channels, but the network takes "
                f"{embed.proj.in_channels}: build it with in_chans={images.shape[1]}"
            )
        if keep is None:
            return embed.norm(embed.proj(images).flatten(2).transpose(1, 2))
        batch, channels = images.shape[:2]
        height, width = self.patch_size
        patches = images.reshape(batch, channels, rows, height, columns, width)
        patches = patches.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, -1)
        weight = embed.proj.weight.flatten(1)
        return embed.norm(F.linear(_gather(patches, keep), weight, embed.proj.bias))

    def positions(self, rows: int, columns: int) -> tuple[Tensor | None, Tensor]:
        """Position embeddings for a grid of patches.

        Args:
            rows: of patches; another grid than the network's has its table interpolated.
            columns: of patches.

        Returns:
            Positions of the prefix tokens ``[1, prefix, D]`` (None if they have none) and of the
            patches ``[1, rows * columns, D]``.

        Raises:
            InputError: if the network has no table of positions.
        """
        vit = self.vit
        if vit.pos_embed is None:
            raise InputError("this vision transformer has no position table")
        prefix = 0 if vit.no_embed_class else vit.num_prefix_tokens
        head = vit.pos_embed[:, :prefix] if prefix else None
        table = vit.pos_embed[:, prefix:]
        old_rows, old_columns = vit.patch_embed.grid_size
        if (rows, columns) != (old_rows, old_columns):
            grid = table.reshape(1, old_rows, old_columns, -1).permute(0, 3, 1, 2)
            # float32: bicubic interpolation of a small table in half precision is lossy for nothing
            grid = F.interpolate(
                grid if grid.dtype == torch.float64 else grid.float(),
                size=(rows, columns), mode="bicubic", align_corners=False,
            )  # fmt: skip
            table = grid.flatten(2).transpose(1, 2).to(table.dtype)
        return head, table


def checkpoint_activations(network: nn.Module) -> None:
    """Let a network keep only the inputs of its blocks for the gradient.

    Args:
        network: changed in place.

    Raises:
        InputError: if it is no [`ClassTokenViT`][lit_ssl.models.ClassTokenViT].
    """
    if not isinstance(network, ClassTokenViT):
        raise InputError(
            "activation_checkpointing needs a vision transformer of timm as backbone, not "
            f"{type(network).__name__}: let that one compute its blocks by "
            "torch.utils.checkpoint itself"
        )
    network.vit.set_grad_checkpointing()


def init_reference(vit: VisionTransformer) -> None:
    """Initialise as MSN's reference: truncated normal 0.02, Kaiming normal patch projection.

    Args:
        vit: of timm; changed in place.
    """
    for module in vit.modules():
        if isinstance(module, nn.Linear):
            trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
    for table in (vit.cls_token, vit.pos_embed, vit.reg_token):
        if table is not None:
            trunc_normal_(table, std=0.02)


def init_sincos(vit: VisionTransformer) -> None:
    """Initialise for narrow networks and short runs: Xavier weights, sine-cosine positions.

    With the reference's standard deviation of 0.02, the class token of a network of width 64 is
    almost blind to the image, and so are all tokens to their place, for the first hundreds of
    steps. Wavelengths run from 4 to 40 patches, to suit small grids; the table is trained.

    Args:
        vit: of timm; changed in place.
    """
    vit.init_weights("jax")
    if vit.pos_embed is not None:
        prefix = 0 if vit.no_embed_class else vit.num_prefix_tokens
        rows, columns = vit.patch_embed.grid_size
        with torch.no_grad():
            vit.pos_embed[0, prefix:] = _sincos_table(rows, columns, vit.embed_dim)


def _sincos_table(rows: int, columns: int, dim: int) -> Tensor:
    """Sines and cosines of row and column at ``dim / 4`` frequencies: ``[patches, dim]``."""
    if dim % 4:
        raise InputError(f"sine-cosine positions need a width that 4 divides, not {dim}")
    frequencies = (math.pi / 2) * 10.0 ** -(torch.arange(dim // 4) / (dim // 4))
    tables = []
    for count in (rows, columns):
        angles = torch.arange(count)[:, None] * frequencies
        tables.append(torch.cat([angles.sin(), angles.cos()], dim=1))
    row, column = tables
    grid = [row[:, None].expand(-1, columns, -1), column[None].expand(rows, -1, -1)]
    return torch.cat(grid, dim=2).flatten(0, 1)


def _gather(tokens: Tensor, keep: Tensor) -> Tensor:
    """Select tokens ``[B, N, D]`` by index ``[n]`` or ``[B, n]``."""
    if keep.ndim == 1:
        return tokens[:, keep]
    return tokens.gather(1, keep.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def without_drop_path(module: nn.Module) -> nn.Module:
    """Switch stochastic depth off in place, for networks that only give targets.

    Args:
        module: any; the same one is returned.
    """
    for child in module.modules():
        if isinstance(child, DropPath):
            child.drop_prob = 0.0
    return module
