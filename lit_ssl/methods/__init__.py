"""One LightningModule per paper, and a supervised classifier."""

from lit_ssl.methods.classifier import ImageClassifier
from lit_ssl.methods.msn import MSN

__all__ = ["MSN", "ImageClassifier"]
