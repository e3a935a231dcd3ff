"""The command line: parse, read, call the core, write, report."""
