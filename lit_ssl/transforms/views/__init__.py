"""View recipes, and the two engines that run them."""
