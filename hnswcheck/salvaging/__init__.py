"""For every record: where its best vector still is, and how sure that is. Reads only."""
