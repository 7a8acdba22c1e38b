"""One LightningModule per paper."""
