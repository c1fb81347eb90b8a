"""The command line: parses, delegates, prints. Nothing imports it."""
