"""Data sets behind one face, and views rendered in batches."""
