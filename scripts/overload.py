"""What overload.sh measured: a row of a report, then all rows as a Markdown table and as a picture (SVG)."""

import json
import math
import sys
from html import escape


def take(what, nominal, capacity, factor, path):
    """One report as one line of JSON."""
    with open(path) as file:
        report = json.load(file)
    ok, failed = report["ok_latency_ms"], report["failed_latency_ms"]
    offered = report["offered"] / report["seconds"]
    refused = report["offered"] - report["ok"]
    row = {
        "what": what,
        "nominal": float(nominal),
        "capacity": float(capacity),
        "factor": float(factor),
        "offered": offered,
        "goodput": report["ok"] / report["seconds"],
        "avg": ok["avg"],
        "p99": ok["p99"],
        "max": max(ok["max"], failed["max"]),
        "refused": refused,
        "refused_p99": failed["p99"] if refused else 0.0,
        "errors": report["errors"],
        "saturated": report["saturated"],
    }
    print(json.dumps(row))


def share(row):
    return row["goodput"] / min(row["offered"], row["capacity"])


def wanted(row):
    """What the row does not keep of what it should."""
    limits = [
        (share(row) >= 0.95, "goodput"),
        (row["avg"] <= 100, "average"),
        (row["max"] <= 3000, "3 s"),
        (row["refused_p99"] <= 10, "refusals"),
        (not row["saturated"], "generator saturated"),
    ]
    return [name for kept, name in limits if not kept]


def table(rows):
    head = ["offered", "a second", "goodput", "of the lower of offered and C", "admitted avg ms", "p99", "longest", "refused", "refusals p99 ms", "kept"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        errors = " ".join(row["errors"])
        missed = wanted(row)
        cells = [
            f"{row['factor']:g} C",
            f"{row['offered']:,.0f}",
            f"{row['goodput']:,.1f}",
            f"{100 * share(row):.1f} %",
            f"{row['avg']:.1f}",
            f"{row['p99']:.1f}",
            f"{row['max']:.0f}",
            f"{row['refused']:,} {errors}".strip(),
            f"{row['refused_p99']:.1f}",
            "yes" if not missed else "NO: " + ", ".join(missed),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


# ── the picture ──

WIDTH, HEIGHT = 430, 250
LEFT, TOP, PLOT_W, PLOT_H = 58, 40, 350, 160
BLUE, RED, GRAY, GREEN = "#2f5d8a", "#b5361c", "#8a8178", "#2a6b3f"


class Axes:
    """Offered load on a logarithmic axis in units of C; values on a linear or logarithmic one."""

    def __init__(self, x0, y0, factors, low, high, log):
        self.x0, self.y0, self.low, self.high, self.log = x0, y0, low, high, log
        self.first, self.last = math.log10(min(factors)), math.log10(max(max(factors), min(factors) * 1.01))

    def x(self, factor):
        return self.x0 + LEFT + PLOT_W * (math.log10(factor) - self.first) / (self.last - self.first)

    def y(self, value):
        value = min(max(value, self.low), self.high)
        if self.log:
            part = math.log10(value / self.low) / math.log10(self.high / self.low)
        else:
            part = (value - self.low) / (self.high - self.low)
        return self.y0 + TOP + PLOT_H * (1 - part)

    def line(self, points, color, dash=""):
        path = " ".join(f"{self.x(factor):.1f},{self.y(value):.1f}" for factor, value in points)
        dots = "".join(f'<circle cx="{self.x(factor):.1f}" cy="{self.y(value):.1f}" r="2.6" fill="{color}"/>' for factor, value in points)
        return f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.8" stroke-dasharray="{dash}"/>{dots}'

    def frame(self, title, ticks, factors, unit):
        parts = [f'<text x="{self.x0 + LEFT}" y="{self.y0 + 20}" class="title">{escape(title)}</text>']
        for tick in ticks:
            y = self.y(tick)
            parts.append(f'<line x1="{self.x0 + LEFT}" x2="{self.x0 + LEFT + PLOT_W}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e2dcd2"/>')
            parts.append(f'<text x="{self.x0 + LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}{unit}</text>')
        for factor in factors:
            parts.append(f'<text x="{self.x(factor):.1f}" y="{self.y0 + TOP + PLOT_H + 17}" text-anchor="middle">{factor:g} C</text>')
        return "".join(parts)

    def words(self, texts):
        parts, x = [], self.x0 + LEFT
        for text, color in texts:
            parts.append(f'<text x="{x}" y="{self.y0 + TOP + PLOT_H + 38}" fill="{color}">{escape(text)}</text>')
            x += 8 * len(text) * 0.86 + 16
        return "".join(parts)


def goodput_panel(rows, x0, y0):
    factors = [row["factor"] for row in rows]
    axes = Axes(x0, y0, factors, 0, 1.2, False)
    ideal = [(row["factor"], min(row["offered"] / row["capacity"], 1)) for row in rows]
    good = [(row["factor"], row["goodput"] / row["capacity"]) for row in rows]
    return (
        axes.frame(f"Goodput, parts of C = {rows[0]['capacity']:.0f} a second", [0, 0.25, 0.5, 0.75, 1], factors, "")
        + axes.line(ideal, GRAY, "4 3") + axes.line(good, BLUE)
        + axes.words([("goodput", BLUE), ("the most there could be (dashed)", "#6a625a")])
    )


def latency_panel(rows, x0, y0):
    factors = [row["factor"] for row in rows]
    axes = Axes(x0, y0, factors, 0.1, 10_000, True)
    promise = [(min(factors), 100), (max(factors), 100)]
    refused = [(row["factor"], row["refused_p99"]) for row in rows if row["refused"]]
    return (
        axes.frame("Latency, milliseconds", [0.1, 1, 10, 100, 1000, 10_000], factors, "")
        + axes.line(promise, GRAY, "2 3")
        + axes.line([(row["factor"], row["avg"]) for row in rows], BLUE)
        + axes.line([(row["factor"], row["p99"]) for row in rows], RED, "7 3")
        + (axes.line(refused, GREEN, "2 2") if refused else "")
        + axes.words([("average", BLUE), ("p99 (dashed)", RED), ("refusals p99 (dotted)", GREEN)])
    )


def picture(devices):
    """A row of two panels for each device."""
    parts = []
    for number, (what, rows) in enumerate(devices.items()):
        y0 = number * (HEIGHT + 34)
        parts.append(f'<text x="{LEFT}" y="{y0 + 20}" class="device">{escape(what)}</text>')
        parts.append(goodput_panel(rows, 0, y0 + 20) + latency_panel(rows, WIDTH, y0 + 20))
    width, height = 2 * WIDTH, len(devices) * (HEIGHT + 34) + 8
    style = "text{font:12px system-ui,sans-serif;fill:#3a342e}.title{font-size:13px;font-weight:600}.device{font-size:14px;font-weight:700}"
    words = "Offered load from half to ten times the capacity: goodput stays at capacity, latency stays below the promise"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">'
        f"<title>{words}</title><style>{style}</style>"
        f'<rect width="{width}" height="{height}" fill="#fffefb"/>{"".join(parts)}</svg>\n'
    )


def show(path, svg):
    with open(path) as file:
        rows = [json.loads(line) for line in file]
    devices = {}
    for row in rows:
        devices.setdefault(row["what"], []).append(row)
    for what, of_device in devices.items():
        first = of_device[0]
        print(f"{what}: C = {first['capacity']:.1f} signatures a second (by its own account {first['nominal']:.1f})\n")
        print(table(of_device) + "\n")
    with open(svg, "w") as file:
        file.write(picture(devices))
    print(f"picture: {svg}")
    return 1 if any(wanted(row) for row in rows) else 0


if __name__ == "__main__":
    if sys.argv[1] == "take":
        take(*sys.argv[2:])
    else:
        sys.exit(show(*sys.argv[2:]))
