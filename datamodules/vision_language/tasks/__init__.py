"""Tasks of fine-tuning on their official layouts."""
