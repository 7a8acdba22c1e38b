"""Neural Attentive Circuits."""
