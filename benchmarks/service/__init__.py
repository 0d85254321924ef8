"""A process to be profiled, in which profilers are switched on and off while it runs: the sample app, or nothing."""
