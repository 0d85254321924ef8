"""How true CPU profiles are: programs whose CPU time their own clocks tell, under one profiler after another.

`python -m benchmarks.truth [--profilers native,google,…] [--programs loops,…] [--runs 5] [--runs-of-others 1]
[--seconds 20] [--rate 100] [--pinned] [--lines] [--json FILE]`. Every run of a program under a profiler is a fresh
process (child.py); all profilers take turns within a round. What is printed: the total-variation distance between
the measured and the true shares, beside what chance alone would make of it (distance.py), all measured CPU by all
true CPU, and for programs that work and sleep the share that stands on the work, with what the sleep itself costs.
`--lines` compares line by line, on the programs whose lines are known. `new-threads` and `operators` are run when
they are asked for.

The truth is `time.thread_time_ns()` around every piece of work, in the program itself, or, where threads never wait,
the time less that in which they were put aside (clock.py, pieces.py). A stack counts for the deepest function on it
whose cost is known; CPU time of the profiler itself is left out.

Profilers sample as often as `--rate` says, as far as they let themselves be told: ddtrace as delivered and pyroscope's
stack engine choose for themselves. pyinstrument knows wall time only, and that of one thread.

The peers are no dependency of this project; whatever is missing is left out with a line that says so. To have them:

    python3.11 -m venv peers && peers/bin/pip install -e '.[sample]' \\
        google-cloud-profiler pyroscope-io ddtrace zstandard py-spy pyinstrument
    peers/bin/python -m benchmarks.truth

google-cloud-profiler has nothing beyond CPython 3.11; zstandard unpacks what ddtrace writes. Nothing leaves this
machine: what profilers push goes to a server on 127.0.0.1 in the measured process.
"""
