"""Other ways to write MSN's training step, which ``msn_step.py`` compares ours with."""

from __future__ import annotations

from copy import deepcopy

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_ssl import MSN


class PlainStep:
    """The step as one writes it down today: torch's fused attention, all tokens in all blocks."""

    def __init__(self, module: MSN, mask_ratio: float) -> None:
        self.module, self.mask_ratio = module, mask_ratio
        trained = [p for p in module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.04)
        self.clipped = [*module.backbone.parameters(), *module.projection_head.parameters()]

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)

    def block(self, block: nn.Module, x: Tensor) -> Tensor:
        attn = block.attn
        qkv = attn.qkv(block.norm1(x)).unflatten(2, (3, attn.num_heads, -1))
        read = self.attend(*qkv.permute(2, 0, 3, 1, 4).unbind(0))
        x = x + attn.proj(read.transpose(1, 2).flatten(2))
        return x + block.mlp(block.norm2(x))

    def encode(self, network: nn.Module, head: nn.Module, images: Tensor, drop: float) -> Tensor:
        vit = network.vit
        x = vit.patch_embed.proj(images).flatten(2).transpose(1, 2)
        first, positions = network.positions(*network.grid(*images.shape[-2:]))
        x = x + positions
        if drop:
            keep = torch.randperm(x.shape[1], device=x.device)[: int(x.shape[1] * (1 - drop))]
            x = x[:, keep]
        x = torch.cat([(vit.cls_token + first).expand(len(x), -1, -1), x], dim=1)
        for block in vit.blocks:
            x = self.block(block, x)
        return head(vit.norm(x)[:, 0])

    def loss(self, anchors: Tensor, targets: Tensor, prototypes: Tensor) -> Tensor:
        anchors, targets, prototypes = (
            F.normalize(x.float(), dim=1) for x in (anchors, targets, prototypes)
        )
        probs = F.softmax(anchors @ prototypes.T / 0.1, dim=1)
        with torch.no_grad():
            target = F.softmax(targets @ prototypes.T / 0.1, dim=1) ** 4
            target = target / target.sum(1, keepdim=True)
            q = target.T
            q = q / q.sum()
            for _ in range(3):
                q = q / q.sum(1, keepdim=True) / q.shape[0]
                q = q / q.sum(0, keepdim=True) / q.shape[1]
            target = (q * q.shape[1]).T
        target = target.repeat(len(probs) // len(target), 1)
        cross_entropy = -(target * torch.log(probs)).sum(1).mean()
        mean = probs.mean(0)
        return cross_entropy + (mean * torch.log(mean)).sum()

    def __call__(self, views: list[Tensor]) -> None:
        m = self.module
        large, small = views
        with torch.no_grad():
            target = self.encode(m.target_backbone, m.target_head, large[:, 0], 0.0)
        z = [
            self.encode(m.backbone, m.projection_head, large[:, 1], self.mask_ratio),
            self.encode(m.backbone, m.projection_head, torch.cat(list(small.unbind(1))), 0.0),
        ]
        loss = self.loss(torch.cat(z), target, m.prototypes)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.clipped, 3.0)
        self.optimizer.step()
        with torch.no_grad():
            for slow, fast in (
                (m.target_backbone, m.backbone),
                (m.target_head, m.projection_head),
            ):
                for q, p in zip(slow.parameters(), fast.parameters(), strict=True):
                    q.mul_(0.996).add_(p, alpha=0.004)


class ReferenceStep(PlainStep):
    """In the style of the paper's code: attention written out, scores scaled afterwards."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = (q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5
        return scores.softmax(dim=-1) @ v


class LightlyStep:
    """lightly's building blocks, put together as in its MSN example.

    Its masks cover focal views too, its prototypes do not train and nothing is clipped, so it has
    somewhat less to do.
    """

    def __init__(self, backbone: str, mask_ratio: float, device: torch.device) -> None:
        from lightly.loss import MSNLoss
        from lightly.models.modules import MaskedVisionTransformerTIMM
        from lightly.models.modules.heads import MSNProjectionHead
        from lightly.models.utils import deactivate_requires_grad

        vit = timm.create_model(backbone, num_classes=0, dynamic_img_size=True)
        self.mask_ratio, self.patch = mask_ratio, vit.patch_embed.patch_size[0]
        self.target = MaskedVisionTransformerTIMM(vit=vit).to(device)
        self.target_head = MSNProjectionHead(vit.embed_dim).to(device)
        self.anchor, self.anchor_head = deepcopy(self.target), deepcopy(self.target_head)
        deactivate_requires_grad(self.target)
        deactivate_requires_grad(self.target_head)
        self.prototypes = nn.Linear(256, 1024, bias=False).to(device).weight
        self.criterion = MSNLoss()
        trained = [*self.anchor.parameters(), *self.anchor_head.parameters(), self.prototypes]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.04)

    def masked(self, images: Tensor) -> Tensor:
        from lightly.models.utils import random_token_mask

        length = (images.shape[-1] // self.patch) ** 2
        keep, _ = random_token_mask((len(images), length), self.mask_ratio, device=images.device)
        return self.anchor_head(self.anchor(images, idx_keep=keep))

    def focal(self, images: Tensor) -> Tensor:
        return self.masked(images)

    def __call__(self, views: list[Tensor]) -> None:
        from lightly.models.utils import update_momentum

        update_momentum(self.anchor, self.target, 0.996)
        update_momentum(self.anchor_head, self.target_head, 0.996)
        large, small = views
        with torch.no_grad():
            targets = self.target_head(self.target(large[:, 0]))
        z = [self.masked(large[:, 1]), self.focal(torch.cat(list(small.unbind(1))))]
        loss = self.criterion(torch.cat(z), targets, self.prototypes.data)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


class WholeFocalStep(LightlyStep):
    """With focal views as in the paper, which are not masked."""

    def focal(self, images: Tensor) -> Tensor:
        return self.anchor_head(self.anchor(images))
