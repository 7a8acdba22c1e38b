"""What a method, a data module and a callback may expect of each other."""
