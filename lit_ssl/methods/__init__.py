"""One LightningModule per paper."""

from lit_ssl.methods.msn import MSN

__all__ = ["MSN"]
