"""A process that does to the sampling engine everything a service might, and checks every frame of every profile.

`scripts/full` runs it. `works/` is what it does, `truth.py` what a profile of that may say, `checker.py` compares.
"""
