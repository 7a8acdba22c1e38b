"""Measures of vision-language tasks, as torchmetrics metrics."""
