"""The bytes of one file as typed values, and back: no directory, no sqlite, no judgement."""
