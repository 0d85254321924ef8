"""What a load tells people."""

from __future__ import annotations

import math

from sample_app.load_result import LoadRecorder, format_result


def test_percentiles_are_latencies_that_were_seen() -> None:
    recorder = LoadRecorder(["/plain", "/quiet"])
    for milliseconds in (50, 10, 30, 20, 40):
        recorder.answered("/plain", milliseconds / 1000)

    plain, quiet = recorder.result(1.0).paths

    assert [plain.percentile(share) for share in (0.2, 0.5, 0.99)] == [0.01, 0.03, 0.05]
    assert math.isnan(quiet.percentile(0.5))


def test_the_table_tells_counts_latencies_and_the_first_failure() -> None:
    recorder = LoadRecorder(["/plain", "/error"])
    recorder.answered("/plain", 0.0125)
    recorder.failed("/error", "/error: status 500")
    recorder.failed("/error", "/error: status 502")

    table = format_result(recorder.result(1.0)).splitlines()

    assert table[1].split() == ["/plain", "1", "0", "12.5", "12.5"]
    assert table[2].split() == ["/error", "2", "2", "-", "-"]
    assert table[-1] == "the first failure: /error: status 500"
