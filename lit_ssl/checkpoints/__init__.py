"""Files of weights: read, recognise, fit to a network, export."""
