"""The hinge loss of BigGAN's released code."""

from __future__ import annotations

import torch
from torch.testing import assert_close

from lit_ssl.losses import hinge_d_loss, hinge_g_loss


def test_values_and_gradients(golden):
    a = golden("video_biggan_layers")
    real, fake = a["hinge_real"].requires_grad_(), a["hinge_fake"].requires_grad_()
    loss = hinge_d_loss(real, fake)
    assert_close(loss, a["hinge_d_real"] + a["hinge_d_fake"])
    loss.backward()
    assert_close(real.grad, a["hinge_d_grad_real"])
    assert_close(fake.grad, a["hinge_d_grad_fake"])
    fake.grad = None
    loss = hinge_g_loss(fake)
    assert_close(loss, a["hinge_g"])
    loss.backward()
    assert_close(fake.grad, a["hinge_g_grad"])


def test_half_precision_is_widened():
    scores = torch.full((4099,), 1.001).bfloat16()
    assert hinge_g_loss(scores).dtype == hinge_d_loss(scores, scores).dtype == torch.float32
    assert hinge_g_loss(scores.double()).dtype == torch.float64
