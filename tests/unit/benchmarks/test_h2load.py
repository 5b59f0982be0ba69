"""Reading h2load, and telling right answers from wrong ones by their size."""

from __future__ import annotations

import pytest
from benchmarks.load import Answer, Load, Target, WrongAnswer
from benchmarks.load.h2load import LoadFailed, Summary, check, logged_us, parse, percentile

REPORT = """starting benchmark...
spawning thread #0: 4 total client(s). Timing-based test with 0.000000s of warm-up time and 1.000000s of main duration.
Main benchmark duration is started for thread #0.
Main benchmark duration is over for thread #0. Stopping all clients.
Stopped all clients for thread #0

finished in 1.00s, 11051.50 req/s, 1.24MB/s
requests: 22103 total, 22135 started, 22103 done, 22103 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 22107 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 2.48MB (2602722) total, 91.06KB (93246) headers (space savings 96.28%), 795.71KB (814792) data
                     min         max         mean         sd        +/- sd
time for request:      312us     35.67ms      2.88ms      1.30ms    86.02%
time for connect:      137us       201us       167us        31us    75.00%
time to 1st byte:     3.06ms      4.90ms      3.98ms       902us    50.00%
req/s           :    2762.28     2763.30     2762.85        0.45    50.00%
"""


def test_a_report_is_read() -> None:
    summary = parse(REPORT)
    assert summary == Summary(rate=11051.5, succeeded=22103, failed=0, data_bytes=814792, mean_us=2880.0)


def test_what_failed_in_any_way_counts_as_failed() -> None:
    changed = REPORT.replace("0 failed, 0 errored, 0 timeout", "1 failed, 2 errored, 3 timeout")
    assert parse(changed).failed == 6


@pytest.mark.parametrize(("text", "microseconds"), [("2.88ms", 2880.0), ("950us", 950.0), ("1.20s", 1_200_000.0)])
def test_times_have_units(text: str, microseconds: float) -> None:
    assert parse(REPORT.replace("2.88ms", text)).mean_us == pytest.approx(microseconds)


def test_a_report_without_requests_is_an_error_with_the_report() -> None:
    with pytest.raises(LoadFailed, match="could not connect"):
        parse("could not connect to 127.0.0.1:1\n")


def test_answers_of_the_right_size_pass_with_some_cut_off_at_the_end() -> None:
    load, answer = Load(connections=4, streams=8), Answer(size_bytes=31)
    check(Summary(1.0, 1000, 0, 1000 * 36, 1.0), answer, load)
    check(Summary(1.0, 1000, 0, 1032 * 36, 1.0), answer, load)


@pytest.mark.parametrize("data_bytes", [0, 999 * 36, 1033 * 36])
def test_calls_without_a_message_or_with_another_one_are_noticed(data_bytes: int) -> None:
    with pytest.raises(WrongAnswer, match="bytes of data"):
        check(Summary(1.0, 1000, 0, data_bytes, 1.0), Answer(31), Load(4, 8))


@pytest.mark.parametrize("summary", [Summary(1.0, 10, 1, 360, 1.0), Summary(0.0, 0, 0, 0, 0.0)])
def test_failed_requests_and_none_at_all_are_noticed(summary: Summary) -> None:
    with pytest.raises(WrongAnswer, match="failed"):
        check(summary, Answer(31), Load(1, 1))


def test_a_frame_is_flag_length_message() -> None:
    assert Target("127.0.0.1:1", b"abc").frame == b"\0\0\0\0\x03abc"


def test_percentiles_are_values_that_occurred() -> None:
    times = sorted(logged_us("1700000000000\t200\t30\n1700000000001\t200\t10\n1700000000002\t200\t20\n"))
    assert [percentile(times, per_cent) for per_cent in (0, 50, 99, 100)] == [10.0, 20.0, 30.0, 30.0]
    assert percentile([], 50) is None
