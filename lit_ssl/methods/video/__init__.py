"""Methods over videos."""
