"""Files in folders and object stores, and copies of them kept on this machine."""
