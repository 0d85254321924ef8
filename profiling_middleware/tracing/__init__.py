"""The execution trace: what happens in the service, moment by moment, from hooks to chunks of bytes and where they go.

`requests.py`, `steps.py` with `tasks.py`, `executors.py`, `garbage.py` and `counters.py` tell what happens;
`buffer.py` takes it, and `seen.py` what the engine sees. Once a second `tracer.py` fetches all that; `writer.py`, on a
thread of its own, has it drawn (`drawing.py`, `states.py`, `stalls.py`) and encoded; `sinks.py` and `flight.py` keep
the bytes.
"""
