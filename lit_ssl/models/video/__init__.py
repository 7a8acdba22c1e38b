"""Networks that make and judge videos."""
