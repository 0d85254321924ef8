"""Recorded data to bytes. Encoders are generators of chunks, so that whoever runs them can pause between two."""
