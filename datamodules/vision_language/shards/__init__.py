"""Images with captions in tars, on disk and as a stream."""
