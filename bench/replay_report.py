#!/usr/bin/env python3
"""Writes the JSON of `kvrm-run replay` as one self-contained HTML page.

Several files can be given, e.g. a saturated run and one at a load: each becomes
a section. docs/replay.md says what the figures mean.
"""

import argparse
import html
import json
import sys

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

# One colour a mode, in every chart: distinct also without colour vision.
COLOURS = {"kvrm": "#0072B2", "max": "#D55E00", "bucketed": "#E69F00"}
FAINT = {"kvrm": "rgba(0,114,178,.18)", "max": "rgba(213,94,0,.15)", "bucketed": "rgba(230,159,0,.15)"}
NAMES = {"kvrm": "kvrm", "max": "static max", "bucketed": "static bucketed"}
MIB = 1 << 20

STYLE = """
:root { color-scheme: light; }
body { margin: 0; background: #f6f7f9; color: #1b1f24;
       font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 26px; margin: 0 0 4px; }
h2 { font-size: 20px; margin: 40px 0 4px; }
p.sub { color: #57606a; margin: 0 0 16px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(210px, 1fr)); gap: 12px; margin: 16px 0; }
.card, .chart, table { background: #fff; border: 1px solid #e1e4e8; border-radius: 10px; }
.card { padding: 14px 16px; }
.card b { display: block; font-size: 24px; line-height: 1.25; }
.card span { color: #57606a; font-size: 13px; }
.chart { padding: 12px 12px 4px; margin: 12px 0; }
.chart h3 { margin: 4px 8px 0; font-size: 16px; }
.chart p { margin: 0 8px; color: #57606a; font-size: 13px; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 12px; }
.pair .chart { margin: 0; min-width: 0; }
@media (max-width: 900px) { .pair { grid-template-columns: 1fr; } }
table { border-collapse: separate; border-spacing: 0; width: 100%; overflow: hidden; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 14px; text-align: right; border-bottom: 1px solid #eef0f2; }
th:first-child, td:first-child { text-align: left; }
tr:last-child td { border-bottom: 0; }
tr.group td { background: #f6f8fa; color: #57606a; font-size: 12px; text-transform: uppercase; letter-spacing: .04em; }
td.best { font-weight: 600; }
td small { color: #8b949e; margin-left: 6px; }
.dot { display: inline-block; width: 10px; height: 10px; border-radius: 50%; margin-right: 6px; }
"""


def number(value, digits=3):
    """A figure with a few digits that count, never an exponent."""
    if value == int(value) and (isinstance(value, int) or value == 0):
        return f"{int(value):,}"
    size = abs(value)
    places = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 0.1 else digits + 1
    return f"{value:,.{places}f}"


def times(a, b):
    return f"{number(a / b)}×" if b else "–"


def name(mode):
    return NAMES.get(mode["mode"], mode["mode"])


def table(data):
    modes = data["modes"]
    base = next((mode for mode in modes if mode["mode"] == "kvrm"), None)

    def get(mode, path):
        for part in path.split("/"):
            if part not in mode:
                return None
            mode = mode[part]
        return mode

    # Title, path, unit's divisor, and which is better: +1 more, -1 less.
    rows = [
        ("Requests",),
        ("done", "requests/done", 1, 1),
        ("refused", "requests/refused", 1, -1),
        ("unfinished", "requests/unfinished", 1, -1),
        ("Throughput",),
        ("generated tokens/s", "tokens/generated_per_s", 1, 1),
        ("prompt and generated tokens/s", "tokens/all_per_s", 1, 1),
        ("Latency",),
        ("time to first token p50, ms", "ttft_ms/p50", 1, -1),
        ("time to first token p99, ms", "ttft_ms/p99", 1, -1),
        ("inter-token p50, ms", "itl_ms/p50", 1, -1),
        ("inter-token p99, ms", "itl_ms/p99", 1, -1),
        ("inter-token p99.9, ms", "itl_ms/p99.9", 1, -1),
        ("inter-token max, ms", "itl_ms/max", 1, -1),
        ("inter-token p99 / p50", "itl_ratios/p99_to_p50", 1, 0),
        ("decode step p50, ms", "decode_step_ms/p50", 1, -1),
        ("decode step p99, ms", "decode_step_ms/p99", 1, -1),
        ("KV memory",),
        ("slots", "slots", 1, 0),
        ("reserved at most, MiB", "kv/reserved_bytes", MIB, 0),
        ("held, mean MiB", "kv/mean_held_bytes", MIB, 0),
        ("live tokens, mean MiB", "kv/mean_live_bytes", MIB, 0),
        ("held / (live + a page a request), max", "kv/max_held_to_live_and_page", 1, -1),
        ("preempted: parked", "preemptions/parked", 1, 0),
        ("preempted: recomputed", "preemptions/recomputed", 1, 0),
        ("Transfer",),
        ("groups a step, mean", "transfer/groups/mean", 1, 0),
        ("pages a group, mean", "transfer/pages_per_group/mean", 1, 0),
        ("committed bytes a step, mean", "transfer/committed_bytes/mean", 1, 0),
        ("plan p99, µs", "transfer/plan_us/p99", 1, 0),
    ]
    out = ["<table><tr><th></th>"]
    for mode in modes:
        colour = COLOURS.get(mode["mode"], "#666")
        out.append(f'<th><span class="dot" style="background:{colour}"></span>{html.escape(name(mode))}</th>')
    out.append("</tr>")
    for row in rows:
        if len(row) == 1:
            out.append(f'<tr class="group"><td colspan="{len(modes) + 1}">{row[0]}</td></tr>')
            continue
        title, path, unit, better = row
        values = [get(mode, path) for mode in modes]
        if all(value is None for value in values):
            continue
        known = [value for value in values if value is not None]
        best = max(known) if better > 0 else min(known)
        out.append(f"<tr><td>{title}</td>")
        for mode, value in zip(modes, values):
            if value is None:
                out.append("<td>–</td>")
                continue
            mark = ' class="best"' if better and value == best and len(set(known)) > 1 else ""
            ratio = ""
            if better and base is not None and mode is not base and get(base, path):
                ratio = f"<small>{times(value, get(base, path))}</small>"
            out.append(f"<td{mark}>{number(value / unit if unit > 1 else value)}{ratio}</td>")
        out.append("</tr>")
    out.append("</table>")
    return "".join(out)


class Page:
    """Charts share a layout, and each has a title that says what it found."""

    def __init__(self):
        self.count = 0

    def chart(self, title, note, figure, height=320):
        self.count += 1
        figure.update_layout(
            template="plotly_white", height=height, margin={"l": 64, "r": 16, "t": 12, "b": 48},
            hovermode="closest", font={"family": "system-ui, sans-serif", "size": 13},
            legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        )  # fmt: skip
        body = figure.to_html(full_html=False, include_plotlyjs=False, div_id=f"chart{self.count}",
                              config={"displayModeBar": False, "responsive": True})  # fmt: skip
        return f'<div class="chart"><h3>{html.escape(title)}</h3><p>{html.escape(note)}</p>{body}</div>'


def line(mode, x, y, **extra):
    return go.Scatter(x=x, y=y, name=name(mode), mode="lines", legendgroup=mode["mode"],
                      line={"color": COLOURS.get(mode["mode"], "#666"), "width": 2}, **extra)  # fmt: skip


def overload(figure, data):
    if "overload" in data:
        span = data["overload"]
        figure.add_vrect(x0=span["begin_s"], x1=span["end_s"], fillcolor="#888", opacity=0.12, line_width=0,
                         annotation_text=f"{span['factor']:g}× arrivals", annotation_position="top left")  # fmt: skip


def tail_chart(page, data, key, what):
    figure = go.Figure()
    for mode in data["modes"]:
        points = [(ms, share) for ms, share in mode["latency"][f"{key}_tail"] if share > 0 and ms > 0]
        figure.add_trace(line(mode, [p[0] for p in points], [p[1] for p in points],
                              hovertemplate="%{y:.3%} are above %{x:.2f} ms"))  # fmt: skip
    figure.update_xaxes(type="log", title=f"{what}, ms")
    figure.update_yaxes(type="log", title="share above", tickformat="~%")
    best = min(data["modes"], key=lambda mode: mode[f"{key}_ms"]["p99"])
    others = [mode for mode in data["modes"] if mode is not best]
    title = f"p99 is {number(best[f'{key}_ms']['p99'])} ms in {name(best)}"
    if others:
        title += ", " + ", ".join(
            f"{times(mode[f'{key}_ms']['p99'], best[f'{key}_ms']['p99'])} that in {name(mode)}" for mode in others
        )
    return page.chart(title, f"{what.capitalize()}: share of samples above a latency. Further left is better.", figure)


def latency_chart(page, data):
    figure = go.Figure()
    for mode in data["modes"]:
        windows = mode["latency"]["itl_windows"]
        colour = COLOURS.get(mode["mode"], "#666")
        figure.add_trace(line(mode, windows["t_s"], windows["p99_ms"], hovertemplate="p99 %{y:.2f} ms at %{x:.1f} s"))
        figure.add_trace(go.Scatter(
            x=windows["t_s"], y=windows["p50_ms"], name=f"{name(mode)}, p50", mode="lines", legendgroup=mode["mode"],
            showlegend=False, line={"color": colour, "width": 1, "dash": "dot"},
            hovertemplate="p50 %{y:.2f} ms at %{x:.1f} s"))  # fmt: skip
    overload(figure, data)
    figure.update_xaxes(title="time, s")
    figure.update_yaxes(title="inter-token latency, ms", type="log")
    worst = {name(mode): mode["itl_ratios"]["p99_to_p50"] for mode in data["modes"]}
    title = "Inter-token p99 is " + ", ".join(f"{number(v)}× p50 in {k}" for k, v in worst.items())
    return page.chart(title, "Inter-token latency over time: p99 (line) and p50 (dots) of each of 200 spans.", figure, 360)


def first_token_chart(page, data):
    figure = go.Figure()
    for mode in data["modes"]:
        points = mode["latency"]["ttft"]
        figure.add_trace(go.Scatter(
            x=points["t_s"], y=points["ms"], name=name(mode), mode="markers",
            marker={"color": COLOURS.get(mode["mode"], "#666"), "size": 5, "opacity": 0.6},
            hovertemplate="%{y:.1f} ms, arrived at %{x:.1f} s"))  # fmt: skip
    overload(figure, data)
    figure.update_xaxes(title="arrival, s")
    figure.update_yaxes(title="time to first token, ms", type="log")
    p50 = ", ".join(f"{number(mode['ttft_ms']['p50'])} ms in {name(mode)}" for mode in data["modes"])
    return page.chart(f"Half of the requests have their first token within {p50}",
                      "Each request at its scheduled arrival.", figure)  # fmt: skip


def done_chart(page, data):
    figure = go.Figure()
    for mode in data["modes"]:
        series = mode["series"]
        figure.add_trace(line(mode, series["t_s"], series["done"], hovertemplate="%{y} done after %{x:.1f} s"))
    figure.update_xaxes(title="time, s")
    figure.update_yaxes(title="requests done", rangemode="tozero")
    ends = ", ".join(
        f"{name(mode)} {'has done' if mode['cut'] else 'is done with'} {mode['requests']['done']:,} "
        f"after {number(mode['seconds'])} s"
        for mode in data["modes"]
    )  # fmt: skip
    return page.chart(ends[0].upper() + ends[1:] if not ends.startswith("kvrm") else ends,
                      "Requests done over time: steeper is better.", figure)  # fmt: skip


def memory_chart(page, mode, top):
    series = mode["series"]
    colour, faint = COLOURS.get(mode["mode"], "#666"), FAINT.get(mode["mode"], "#ddd")
    in_mib = lambda key: [value / MIB for value in series[key]]
    figure = go.Figure()
    figure.add_trace(go.Scatter(x=series["t_s"], y=in_mib("pool_bytes"), name="set aside", mode="lines",
                                line={"color": "#8b949e", "width": 1.5, "dash": "dash", "shape": "hv"}))  # fmt: skip
    figure.add_trace(go.Scatter(x=series["t_s"], y=in_mib("held_bytes"), name="held by requests", mode="lines",
                                fill="tozeroy", fillcolor=faint, line={"color": colour, "width": 1}))  # fmt: skip
    figure.add_trace(go.Scatter(x=series["t_s"], y=in_mib("live_bytes"), name="live tokens", mode="lines",
                                line={"color": colour, "width": 2.5}))  # fmt: skip
    figure.update_xaxes(title="time, s")
    figure.update_yaxes(title="KV, MiB", range=[0, top * 1.08])
    kv = mode["kv"]
    share = 100 * kv["mean_live_bytes"] / kv["mean_held_bytes"] if kv["mean_held_bytes"] else 0
    return page.chart(f"{name(mode)}: {share:.0f}% of the KV that requests hold is tokens",
                      f"Live {number(kv['mean_live_bytes'] / MIB)} MiB of {number(kv['mean_held_bytes'] / MIB)} MiB "
                      f"held, means over time; at most {number(kv['reserved_bytes'] / MIB)} MiB reserved.", figure, 300)  # fmt: skip


def transfer_chart(page, mode):
    series = mode["series"]
    figure = go.Figure()
    figure.add_trace(go.Scatter(x=series["t_s"], y=series["groups"], name="groups a step", mode="lines",
                                line={"color": COLOURS["kvrm"], "width": 1.5}))  # fmt: skip
    ratio = [pages / groups if groups else None for pages, groups in zip(series["pages"], series["groups"])]
    figure.add_trace(go.Scatter(x=series["t_s"], y=ratio, name="pages a group", mode="lines", yaxis="y2",
                                line={"color": "#009E73", "width": 1.5}))  # fmt: skip
    figure.update_layout(yaxis={"title": "groups a step", "rangemode": "tozero"},
                         yaxis2={"title": "pages a group", "overlaying": "y", "side": "right", "rangemode": "tozero",
                                 "showgrid": False})  # fmt: skip
    figure.update_xaxes(title="time, s")
    transfer = mode["transfer"]
    before, after = transfer["pages_per_group_first_tenth"], transfer["pages_per_group_last_tenth"]
    return page.chart(f"A transfer group has {number(transfer['pages_per_group']['mean'])} pages on average",
                      f"{number(before)} in the first tenth of the run, {number(after)} in the last: "
                      "long groups are few copies a step.", figure, 300)  # fmt: skip


def queue_chart(page, data):
    figure = go.Figure()
    for mode in data["modes"]:
        series = mode["series"]
        figure.add_trace(line(mode, series["t_s"], series["waiting"], hovertemplate="%{y} wait at %{x:.1f} s"))
        if series["refused"] and series["refused"][-1] > 0:
            figure.add_trace(go.Scatter(
                x=series["t_s"], y=series["refused"], name=f"{name(mode)}, refused so far", mode="lines",
                line={"color": COLOURS.get(mode["mode"], "#666"), "width": 1.5, "dash": "dot", "shape": "hv"}))  # fmt: skip
    overload(figure, data)
    figure.update_xaxes(title="time, s")
    figure.update_yaxes(title="requests", rangemode="tozero")
    peak = ", ".join(f"{max(mode['series']['waiting'], default=0)} in {name(mode)}" for mode in data["modes"])
    refused = sum(mode["requests"]["refused"] for mode in data["modes"])
    return page.chart(f"At most {peak} wait for a slot", "Requests in the queue over time" +
                      (", and refused by a full one (dots)." if refused else "; none was refused."), figure)  # fmt: skip


def cards(data):
    base = next((mode for mode in data["modes"] if mode["mode"] == "kvrm"), None)
    if not base:
        return ""
    out = [(number(base["tokens"]["generated_per_s"]), "tokens/s generated by kvrm")]
    for mode in data["modes"]:
        if mode is base or not mode["tokens"]["generated_per_s"]:
            continue
        out.append((times(base["tokens"]["generated_per_s"], mode["tokens"]["generated_per_s"]),
                    f"the tokens/s of {name(mode)}"))  # fmt: skip
        out.append((times(mode["ttft_ms"]["p50"], base["ttft_ms"]["p50"]),
                    f"the median time to first token in {name(mode)}"))  # fmt: skip
    out.append((f"{base['kv']['max_held_to_live_and_page']:.3f}", "KV held / (live + a page a request), at worst"))
    check = data.get("verification")
    if check:
        out.append((f"{check['requests'] - check['mismatches']} of {check['requests']}",
                    "requests had the tokens of a run alone"))  # fmt: skip
    return '<div class="cards">' + "".join(f'<div class="card"><b>{b}</b><span>{html.escape(s)}</span></div>' for b, s in out) + "</div>"


def section(page, data):
    trace, model = data["trace"], data["model"]
    if data["saturated"]:
        how = "Saturated: requests as fast as they are taken"
    elif data.get("load"):
        how = f"Open loop at load {data['load']:g}"
    else:
        how = "Open loop" + (f", arrivals × {trace['time_scale']:.4g}" if trace["time_scale"] != 1 else "")
    source = trace["name"] if trace["format"] == "synthetic" else trace["name"].replace("\\", "/").split("/")[-1]
    clipped = f", {trace['clipped']:,} clipped" if trace["clipped"] else ""
    top = max(mode["kv"]["reserved_bytes"] for mode in data["modes"]) / MIB
    parts = [
        f"<h2>{how}</h2>",
        f'<p class="sub">{html.escape(source)}: {trace["requests"]:,} requests{clipped}, '
        f"{trace['prompt_tokens']:,} prompt and {trace['output_tokens']:,} output tokens. "
        f"{html.escape(model['name'])}, {model['layers']} layers, KV budget "
        f"{number(data['kv_budget_bytes'] / MIB)} MiB, {data['threads']} threads.</p>",
        cards(data),
        table(data),
        "".join(f'<p class="sub">{html.escape(name(mode))} was cut after {number(mode["seconds"])} s; its latencies '
                "are of what it served until then.</p>" for mode in data["modes"] if mode["cut"]),
        latency_chart(page, data),
        '<div class="pair">' + tail_chart(page, data, "itl", "inter-token latency")
        + tail_chart(page, data, "ttft", "time to first token") + "</div>",
        # Saturated, all arrive at once: there is no arrival to draw over.
        done_chart(page, data) if data["saturated"] else first_token_chart(page, data),
        '<div class="pair">' + "".join(memory_chart(page, mode, top) for mode in data["modes"])
        + "".join(transfer_chart(page, mode) for mode in data["modes"] if "transfer" in mode) + "</div>",
        queue_chart(page, data),
    ]  # fmt: skip
    return "".join(parts)


def report(runs):
    page = Page()
    body = "".join(section(page, data) for data in runs)
    model = html.escape(runs[0]["model"]["name"])
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>kvrm replay: {model}</title><style>{STYLE}</style>"
        f"<script>{get_plotlyjs()}</script></head><body><main>"
        f"<h1>{model}: kvrm and static baselines under one KV budget</h1>"
        '<p class="sub">Written by bench/replay_report.py from the JSON of kvrm-run replay.</p>'
        f"{body}</main></body></html>\n"
    )


def load(path):
    try:
        with open(path) as file:
            data = json.load(file)
    except (OSError, ValueError) as error:
        sys.exit(f"{path}: {error}")
    if not isinstance(data, dict) or data.get("format") != "kvrm-replay" or data.get("version") != 1:
        sys.exit(f"{path}: is not what kvrm-run replay --json writes, version 1")
    return data


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("json", nargs="+", help="output of kvrm-run replay --json or --output")
    parser.add_argument("-o", "--output", default="replay.html", help="HTML to write")
    args = parser.parse_args()
    text = report([load(path) for path in args.json])
    with open(args.output, "w") as file:
        file.write(text)


if __name__ == "__main__":
    main()
