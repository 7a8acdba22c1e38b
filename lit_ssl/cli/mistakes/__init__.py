"""One line for a mistake on the command line or in a config file."""
