"""Images from files, folders and arrays."""
