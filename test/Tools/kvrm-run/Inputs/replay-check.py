"""Checks the JSON and the timeline of `kvrm-run replay`.

usage: replay-check.py REPLAY.json TIMELINE.json|- MODES
"""

import json
import sys

replay, timeline, modes = sys.argv[1:]
with open(replay) as file:
    data = json.load(file)
assert (data["format"], data["version"]) == ("kvrm-replay", 1)
assert [mode["mode"] for mode in data["modes"]] == modes.split(",")
total = data["trace"]["requests"]
for mode in data["modes"]:
    requests = mode["requests"]
    assert requests == {"done": total, "refused": 0, "failed": 0, "unfinished": 0}, requests
    tokens = mode["tokens"]
    assert tokens["generated"] == data["trace"]["output_tokens"]
    assert tokens["prompt"] == data["trace"]["prompt_tokens"]
    # One first token a request; every other one has a latency.
    assert mode["ttft_ms"]["count"] == total
    assert mode["itl_ms"]["count"] == tokens["generated"] - total
    for figure in ("ttft_ms", "itl_ms", "decode_step_ms", "queue_wait_ms"):
        order = [mode[figure][key] for key in ("p50", "p90", "p99", "p99.9", "max")]
        assert order == sorted(order) and order[0] >= 0, (figure, order)
    latency = mode["latency"]
    assert sum(latency["itl_histogram"]["counts"]) == mode["itl_ms"]["count"]
    assert len(latency["itl_histogram"]["edges_ms"]) == len(latency["itl_histogram"]["counts"]) + 1
    assert sum(latency["itl_windows"]["count"]) == mode["itl_ms"]["count"]
    series = mode["series"]
    assert len({len(values) for values in series.values()}) == 1
    assert series["t_s"] == sorted(series["t_s"])
    for pool, held, live in zip(series["pool_bytes"], series["held_bytes"], series["live_bytes"]):
        assert live <= held <= pool <= data["kv_budget_bytes"]
    assert mode["kv"]["reserved_bytes"] <= data["kv_budget_bytes"]
    if mode["mode"] == "kvrm":
        assert mode["kv"]["max_held_to_live_and_page"] <= 1
        assert mode["transfer"]["groups"]["mean"] > 0
if data["load"]:
    assert data["saturation"]["generated_per_s"] > 0
if timeline != "-":
    with open(timeline) as file:
        events = json.load(file)["traceEvents"]
    names = [event["args"]["name"] for event in events if event["name"] == "process_name"]
    assert names == modes.split(","), names
    spans = [event for event in events if event["ph"] in "be"]
    for phase in "be":
        # Itself, waiting, prefill and decode of each request of each mode.
        assert sum(event["ph"] == phase for event in spans) == 4 * total * len(names)
    assert all(event["ts"] >= 0 and event.get("dur", 0) >= 0 for event in events)
