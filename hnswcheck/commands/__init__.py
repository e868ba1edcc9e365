"""The commands: options in, library call, exit code out."""
