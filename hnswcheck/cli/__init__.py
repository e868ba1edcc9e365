"""The command line: options in, library call, text and exit code out."""
