"""One LightningModule per paper, and a supervised classifier."""

from lit_ssl.methods.classifier import ImageClassifier
from lit_ssl.methods.msn import MSN
from lit_ssl.methods.paws import PAWS
from lit_ssl.methods.pmsn import PMSN
from lit_ssl.methods.ropaws import RoPAWS
from lit_ssl.methods.suncet import SuNCEt

__all__ = ["MSN", "PAWS", "PMSN", "ImageClassifier", "RoPAWS", "SuNCEt"]
