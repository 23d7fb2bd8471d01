"""Reads an interval log with the Python implementation of HdrHistogram, counts what a percentile distribution says, and
prints what it found as JSON."""

import json
import sys

from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

# As the log's writer: 1 microsecond to a minute, three digits.
LOWEST, HIGHEST, DIGITS = 1, 60_000_000, 3


def figures(histogram):
    return {
        "count": histogram.get_total_count(),
        "p50": histogram.get_value_at_percentile(50),
        "p99": histogram.get_value_at_percentile(99),
        "p999": histogram.get_value_at_percentile(99.9),
        "max": histogram.get_max_value(),
    }


def distribution(histogram, hgrm):
    """For each line of a percentile distribution: how many values are at most the line's, and what the line says."""
    upto, count = {}, 0
    for item in histogram.get_recorded_iterator():
        count += item.count_added_in_this_iter_step
        upto[item.value_iterated_to] = count
    rows = []
    for line in open(hgrm).read().splitlines()[1:]:
        if line and not line.startswith("#"):
            value, _, said = (float(cell) for cell in line.split()[:3])
            known = [count for at, count in upto.items() if at <= round(value * 1000)]
            rows.append([max(known, default=0), int(said)])
    return rows


def main(path, hgrm):
    names = {None: "latency", "service": "service", "lag": "lag"}
    sums = {name: HdrHistogram(LOWEST, HIGHEST, DIGITS) for name in names.values()}
    counts = []
    reader = HistogramLogReader(path, HdrHistogram(LOWEST, HIGHEST, DIGITS))
    while True:
        interval = reader.get_next_interval_histogram()
        if interval is None:
            break
        name = names[interval.get_tag()]
        sums[name].add(interval)
        if name == "latency":
            counts.append(interval.get_total_count())
    found = {name: figures(histogram) for name, histogram in sums.items()}
    found |= {"counts": counts, "base_time": reader.base_time_sec, "distribution": distribution(sums["latency"], hgrm)}
    json.dump(found, sys.stdout)


main(sys.argv[1], sys.argv[2])
