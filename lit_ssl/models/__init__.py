"""Networks and parts of networks that timm does not have."""
