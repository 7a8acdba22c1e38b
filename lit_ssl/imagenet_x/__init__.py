"""ImageNet-X: accuracy by factor of variation, from annotations and predictions."""
