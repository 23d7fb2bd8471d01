"""Reads an engine's latency log with the Python implementation of HdrHistogram and prints, for each tag, how many values there
are and the longest, in microseconds, and when the log's times begin."""

import json
import sys

from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

reader = HistogramLogReader(sys.argv[1], HdrHistogram(1, 60_000_000, 2))
found = {}
while (interval := reader.get_next_interval_histogram()) is not None:
    tag = interval.get_tag() or "all"
    known = found.setdefault(tag, {"count": 0, "max": 0})
    known["count"] += interval.get_total_count()
    known["max"] = max(known["max"], interval.get_max_value())
json.dump({"tags": found, "base_time": reader.base_time_sec}, sys.stdout)
