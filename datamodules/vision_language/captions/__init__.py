"""Images with captions: layouts of data sets, own lists, and their mixture."""
