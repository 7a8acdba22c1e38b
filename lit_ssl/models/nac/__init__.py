"""Neural Attentive Circuits: layers, graph, network."""
