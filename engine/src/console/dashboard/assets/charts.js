"use strict";
// The charts: uPlot for curves, SVG for the strip of the month. Colours come from the style sheet.

const LINES = [
  { name: "p50", word: "p50", color: "--line-1", dash: [] },
  { name: "p90", word: "p90", color: "--line-2", dash: [8, 3] },
  { name: "p99", word: "p99_short", color: "--line-3", dash: [], width: 2.5 },
  { name: "p999", word: "p999", color: "--line-4", dash: [2, 2] },
  { name: "max", word: "max", color: "--line-5", dash: [12, 3, 2, 3] },
];
const RATES = [
  { name: "signatures", word: "signatures", color: "--line-1", dash: [], width: 2 },
  { name: "refused", word: "refused_short", color: "--line-4", dash: [4, 3], width: 2 },
];

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function legend(list, lines, latest) {
  const items = lines.map((line) => {
    const item = document.createElement("li");
    item.append(sample(line), word(line.word));
    const value = latest(line);
    if (value !== null) { const strong = document.createElement("b"); strong.textContent = value; item.append(" ", strong); }
    return item;
  });
  const band = document.createElement("li");
  const swatch = document.createElement("span");
  swatch.className = "swatch band";
  band.append(swatch, word("extending_band"));
  list.replaceChildren(...items, band);
}

const SVG = "http://www.w3.org/2000/svg";

function svg(name, attributes, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// The stroke of a line, so that it can be told without its colour.
function sample(line) {
  const stroke = svg("line", { x1: 0, y1: 5, x2: 28, y2: 5, "stroke-width": line.width || 1.5, "stroke-dasharray": line.dash.join(" "), stroke: color(line.color) });
  return svg("svg", { width: 28, height: 10, "aria-hidden": "true" }, stroke);
}

function axis(extra) {
  return { stroke: color("--quiet"), grid: { stroke: color("--grid"), width: 1 }, ticks: { stroke: color("--grid"), width: 1 }, font: "12px system-ui, sans-serif", ...extra };
}

function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString(language, { hour12: false });
}

// Seconds in which capacity was being extended are shaded.
function shadeExtensions(extensions) {
  return (plot) => {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.fillStyle = color("--band");
    const times = plot.data[0];
    extensions().forEach((extending, at) => {
      if (!extending) return;
      const from = plot.valToPos(times[at] - 1, "x", true), to = plot.valToPos(times[at], "x", true);
      const left = Math.max(from, bbox.left);
      if (to > left) ctx.fillRect(left, bbox.top, to - left, bbox.height);
    });
    ctx.restore();
  };
}

function series(lines) {
  return lines.map((line) => ({ label: line.name, stroke: color(line.color), dash: line.dash, width: line.width || 1.5, points: { show: false }, spanGaps: false }));
}

function size(element) {
  return { width: Math.max(200, element.clientWidth), height: element.clientHeight };
}

function plot(element, options, data) {
  const made = new uPlot({ ...size(element), legend: { show: false }, cursor: { y: false, points: { size: 6 } }, padding: [10, 12, 0, 0], ...options }, data, element);
  new ResizeObserver(() => made.setSize(size(element))).observe(element);
  return made;
}

function timePlot(element, lines, scale, extensions, values, axisSize) {
  return plot(element, {
    scales: { x: { time: true }, y: scale },
    series: [{}, ...series(lines)],
    axes: [axis({ values: (_, splits) => splits.map(clock), space: 90, size: 32 }), axis({ size: axisSize, values })],
    hooks: { drawClear: [shadeExtensions(extensions)] },
  }, [[], ...lines.map(() => [])]);
}

// Numbers at decades only, so that they do not run into each other.
function decades(_, splits) {
  return splits.map((value) => (value !== null && Number.isInteger(Math.round(Math.log10(value) * 1e6) / 1e6) ? String(Number(value.toPrecision(1))) : ""));
}

const LOG_MS = { distr: 3, log: 10, range: (_, min, max) => [10 ** Math.floor(Math.log10(Math.max(min || 0.1, 0.01))), 10 ** Math.ceil(Math.log10(Math.max(max || 10, 0.1) * 1.001))] };

function percentilePlot(element, extensions) {
  return timePlot(element, LINES, LOG_MS, extensions, decades, 52);
}

function ratePlot(element, extensions) {
  const values = (_, splits) => splits.map((value) => number(value, value > 0 && value < 1 ? 1 : 0));
  return timePlot(element, RATES, { range: (_, min, max) => [0, Math.max(max || 0, 1) * 1.05] }, extensions, values, 62);
}

// Nines to the right: 0 is all, 1 is 90 %, 2 is 99 %.
function nines(share) {
  return share >= 1 ? 4.5 : -Math.log10(1 - share);
}

const NINES = [[0, ""], [Math.log10(2), "50 %"], [1, "90 %"], [2, "99 %"], [3, "99.9 %"], [4, "99.99 %"]];

function spreadPlot(element) {
  return plot(element, {
    scales: { x: { time: false, range: [0, 4.5] }, y: LOG_MS },
    series: [{}, { stroke: color("--line-3"), width: 2, points: { show: true, size: 5 } }],
    axes: [
      axis({ splits: () => NINES.map(([at]) => at), values: () => NINES.map(([, text]) => text), space: 10, size: 32 }),
      axis({ size: 52, values: decades }),
    ],
  }, [[], []]);
}

// ── the strip ──

const LETTERS = ["a", "s", "c", "b", "n", "x", "o", "f"];
const DAY = 1440;
const ROW = 12;
const HEIGHTS = { a: 4, x: 6, o: 1, f: 1 };

function stretches(strip) {
  return [...strip.matchAll(/([a-z])(\d+)/g)].map(([, letter, count]) => [letter, Number(count)]);
}

// Stretches cut at midnight: [day, first minute, letter, count].
function byDay(strip) {
  const parts = [];
  let at = 0;
  for (const [letter, count] of stretches(strip)) {
    for (let left = count; left > 0;) {
      const part = Math.min(left, DAY - (at % DAY));
      parts.push([Math.floor(at / DAY), at % DAY, letter, part]);
      at += part;
      left -= part;
    }
  }
  return parts;
}

function bar(x, day, letter, minutes) {
  const height = HEIGHTS[letter] || ROW - 3;
  // A single minute must be seen on a phone, too.
  const width = Math.max(minutes, letter === "o" || letter === "f" ? 1 : 4);
  return svg("rect", { class: "minute-" + letter, x, y: day * ROW + (ROW - height) / 2, width, height });
}

function stripPlot(element, strip, label) {
  const parts = byDay(strip);
  const days = parts.length ? parts[parts.length - 1][0] + 1 : 0;
  const drawing = svg("svg", { viewBox: `0 0 ${DAY} ${days * ROW}`, preserveAspectRatio: "none", class: "days", height: days * ROW, "aria-hidden": "true" });
  const calm = parts.filter(([, , letter]) => HEIGHTS[letter]), bad = parts.filter(([, , letter]) => !HEIGHTS[letter]);
  for (const [day, from, letter, minutes] of [...calm, ...bad]) drawing.append(bar(from, day, letter, minutes));
  const numbers = document.createElement("ol");
  numbers.className = "day-numbers";
  numbers.setAttribute("aria-hidden", "true");
  for (let day = 1; day <= days; day++) { const item = document.createElement("li"); item.textContent = day % 5 === 0 || day === 1 ? day : ""; numbers.append(item); }
  const hours = document.createElement("div");
  hours.className = "hours";
  hours.setAttribute("aria-hidden", "true");
  for (const hour of ["00:00", "06:00", "12:00", "18:00", "24:00"]) { const mark = document.createElement("span"); mark.textContent = hour; hours.append(mark); }
  element.replaceChildren(numbers, drawing, hours);
  element.setAttribute("aria-label", label);
}

function stripLegend(list, strip) {
  const there = new Set(stretches(strip).map(([letter]) => letter));
  const item = (letter) => {
    const height = HEIGHTS[letter] || ROW - 3;
    const swatch = svg("svg", { width: 18, height: ROW, "aria-hidden": "true" }, svg("rect", { class: "minute-" + letter, x: 0, y: (ROW - height) / 2, width: 18, height }));
    const entry = document.createElement("li");
    entry.append(swatch, word("letter_" + letter));
    return entry;
  };
  list.replaceChildren(...LETTERS.filter((letter) => there.has(letter)).map(item));
}
