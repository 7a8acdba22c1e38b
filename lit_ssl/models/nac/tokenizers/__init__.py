"""From inputs of every kind to the tokens that a circuit reads."""
