"""The C extension's `Packets`; see `packets.PythonPackets`."""

from typing import final

@final
class Packets:
    def __new__(cls, flow_base: int, /) -> Packets: ...
    def __len__(self) -> int: ...
    def slice(
        self,
        begin: bytes,
        end: bytes,
        began_ns: int,
        ended_ns: int,
        flows: tuple[int, ...],
        last_flows: tuple[int, ...],
        /,
    ) -> None: ...
    def moment(self, time_ns: int, event: bytes, /) -> None: ...
    def first_us(self) -> int: ...
    def take(self, base_us: int, sequence: bytes, /) -> bytes: ...
