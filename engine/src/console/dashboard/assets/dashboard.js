"use strict";
// What comes in as events is kept and shown. Nothing is asked for but the one stream.

const KEPT = 300;
const at = (id) => document.getElementById(id);

let points = [];
let now = null;
let month = null;
let me = null;
let paused = false;
let charts = null;
let spoken = {};
let before = null;
let ended = false;

// ── small parts ──

function cells(kind, texts) {
  return texts.map((text, column) => {
    const cell = document.createElement(kind === "th" || column === 0 ? "th" : "td");
    if (kind === "th") cell.scope = "col"; else if (column === 0) cell.scope = "row";
    cell.append(text instanceof Node ? text : String(text));
    return cell;
  });
}

function line(kind, texts) {
  const row = document.createElement("tr");
  row.append(...cells(kind, texts));
  return row;
}

// A table with its name; `none` stands for no rows.
function table(id, name, titles, rows, none) {
  const body = document.createElement("tbody"), head = document.createElement("thead"), caption = document.createElement("caption");
  caption.className = "hidden";
  caption.textContent = name;
  if (rows.length) {
    head.append(line("th", titles));
    body.append(...rows.map((texts) => line("td", texts)));
  } else {
    const row = document.createElement("tr"), cell = document.createElement("td");
    cell.textContent = none;
    cell.className = "none";
    row.append(cell);
    body.append(row);
  }
  at(id).replaceChildren(caption, head, body);
}

function meter(share) {
  const outer = document.createElement("span"), inner = document.createElement("span");
  outer.className = "meter";
  outer.setAttribute("aria-hidden", "true");
  inner.style.width = Math.round(100 * share) + "%";
  outer.append(inner);
  return outer;
}

function say(text) {
  at("announce").textContent = text;
}

function banner(text) {
  at("banner").textContent = text || "";
  at("banner").hidden = !text;
}

function inView() {
  return points.slice(-Number(at("window").value));
}

// ── panels ──

const MARKS = { good: "●", notice: "◆", bad: "▲" };

function badges(gauges, extending) {
  const shown = gauges.not_ready.length ? [["bad", word("not_ready", gauges.not_ready.join(", "))]] : [["good", word("serving")]];
  if (extending) shown.push(["notice", word("extending")]);
  if (gauges.maintenance) shown.push(["notice", word("maintenance")]);
  if (gauges.storage_full) shown.push(["bad", word("storage_full")]);
  if (gauges.audit_stopped) shown.push(["bad", word("audit_stopped")]);
  if (gauges.differences) shown.push(["bad", word("differences", number(gauges.differences))]);
  if (gauges.busy_ratio >= 0.05) shown.push(["bad", word("busy", number(100 * gauges.busy_ratio))]);
  const badge = ([kind, text]) => {
    const element = document.createElement("span"), mark = document.createElement("span");
    element.className = "badge " + kind;
    mark.textContent = MARKS[kind];
    mark.setAttribute("aria-hidden", "true");
    element.append(mark, " ", text);
    return element;
  };
  at("badges").replaceChildren(...shown.map(badge));
  return shown.map(([, text]) => text).join("; ");
}

// Says what has changed, and only that.
function announce(key, text, isSaid = true) {
  const known = spoken[key];
  spoken[key] = text;
  if (known !== undefined && known !== text && isSaid) say(text);
}

function tiles() {
  const view = inView(), latest = points[points.length - 1];
  const longest = Math.max(0, ...view.map((point) => (point.latency ? point.latency.max : 0)));
  at("tile-rate").textContent = number(latest.signatures);
  at("tile-avg").textContent = latest.latency ? ms(latest.latency.avg) : "–";
  at("tile-p99").textContent = latest.latency ? ms(latest.latency.p99) : "–";
  at("tile-max").textContent = longest ? ms(longest) : "–";
  at("tile-refused").textContent = number(latest.refused);
  if (now) at("tile-flight").textContent = number(now.gauges.in_flight);
}

function curves() {
  const view = inView(), times = view.map((point) => point.t / 1000);
  const us = (line) => view.map((point) => (point.latency ? Math.max(point.latency[line.name], 10) / 1000 : null));
  charts.percentiles.setData([times, ...LINES.map(us)]);
  charts.throughput.setData([times, ...RATES.map((line) => view.map((point) => point[line.name]))]);
  const latest = view[view.length - 1];
  const latency = (line) => (latest && latest.latency ? ms(latest.latency[line.name]) : null);
  const rate = (line) => (latest ? number(latest[line.name]) : null);
  legend(at("percentiles-legend"), LINES, latency);
  legend(at("throughput-legend"), RATES, rate);
  label("percentiles", "percentiles", LINES, latency);
  label("throughput", "throughput", RATES, rate);
  curveTables(view);
}

function label(id, name, lines, latest) {
  const texts = lines.map((line) => (latest(line) === null ? null : word(line.word) + " " + latest(line))).filter((text) => text);
  at(id).setAttribute("aria-label", word("chart_label", word(name), texts.join(", ") || word("nothing_yet")));
}

function isOpen(id) {
  return at(id).closest("details").open;
}

// Ten seconds a row, the latest first; only while somebody looks.
function curveTables(view) {
  const rows = view.filter((_, index) => (view.length - 1 - index) % 10 === 0).reverse();
  const time = (point) => new Date(point.t).toLocaleTimeString(language, { hour12: false });
  if (isOpen("percentiles-table")) {
    const cellsOf = (point) => [time(point), ...LINES.map((line) => (point.latency ? ms(point.latency[line.name]) : "–"))];
    table("percentiles-table", word("percentiles"), [word("time"), ...LINES.map((line) => word(line.word))], rows.map(cellsOf), word("nothing_yet"));
  }
  if (isOpen("throughput-table")) {
    const cellsOf = (point) => [time(point), ...RATES.map((line) => number(point[line.name], 1)), point.extending ? word("extending") : ""];
    table("throughput-table", word("throughput"), [word("time"), ...RATES.map((line) => word(line.word)), word("device_state")], rows.map(cellsOf), word("nothing_yet"));
  }
}

function spread() {
  charts.spread.setData([now.spread.map(([share]) => nines(share)), now.spread.map(([, us]) => Math.max(us, 10) / 1000)]);
  const shown = now.spread.filter(([share]) => [0.5, 0.9, 0.99, 0.999, 1].includes(share));
  const texts = shown.map(([share, us]) => number(100 * share, share > 0.99 && share < 1 ? 1 : 0) + " %: " + ms(us) + " ms");
  at("spread").setAttribute("aria-label", word("chart_label", word("spread"), texts.join(", ") || word("nothing_yet")));
  if (isOpen("spread-table")) {
    const rows = now.spread.map(([share, us]) => [number(100 * share, 2) + " %", ms(us)]);
    table("spread-table", word("spread"), [word("quantile"), word("at_most")], rows, word("nothing_yet"));
  }
}

function stages() {
  const sum = now.stages.reduce((all, stage) => all + stage.avg, 0);
  const part = (stage, index) => {
    const element = document.createElement("span");
    element.className = "part part-" + (index + 1);
    element.style.width = (sum ? (100 * stage.avg) / sum : 0) + "%";
    if (sum && stage.avg / sum > 0.14) element.textContent = word(stage.stage);
    return element;
  };
  at("stack").replaceChildren(...now.stages.map(part));
  const named = (stage, index) => {
    const name = document.createElement("span"), swatch = document.createElement("span");
    swatch.className = "swatch part-" + (index + 1);
    name.append(swatch, word(stage.stage));
    return name;
  };
  const rows = now.stages.map((stage, index) => [named(stage, index), ms(stage.avg), ms(stage.p50), ms(stage.p99), ms(stage.max)]);
  table("stages", word("stages"), [word("stage"), word("average"), word("p50"), word("p99_short"), word("max")], rows, "");
}

function devices() {
  const { gauges } = now;
  at("queues").textContent = word("queues", number(gauges.lanes), number(gauges.lane_queue), number(gauges.journal_backlog));
  const seconds = before ? Math.max(0.5, (now.point.t - before.t) / 1000) : 1;
  const rate = (device) => (before && before.signed[device.name] !== undefined ? number(Math.max(0, device.signed - before.signed[device.name]) / seconds) : "–");
  const state = (device) => {
    const element = document.createElement("span");
    const kind = device.state === "active" ? "good" : device.state === "quarantined" ? "bad" : "notice";
    element.className = "state " + kind;
    element.textContent = MARKS[kind] + " " + word(device.state);
    if (device.reason && kind !== "good") element.append(": " + device.reason);
    return element;
  };
  const row = (device) => [device.name, state(device), device.share + " %", device.up + " / " + device.wanted, number(device.waiting), device.in_flight + " / " + device.limit, rate(device), ms(device.call_us), number(device.faults)];
  const titles = ["device", "device_state", "share", "processes", "waiting", "in_flight", "rate", "call", "faults"].map((name) => word(name));
  table("devices", word("devices"), titles, now.devices.map(row), word("no_devices"));
  now.devices.forEach((device) => announce("device " + device.name, word("device_changed", device.name, word(device.state))));
}

function refusals() {
  const code = (refusal) => { const element = document.createElement("code"); element.textContent = refusal.code; return element; };
  const rows = now.refusals.map((refusal) => [code(refusal), number(refusal.recent), number(refusal.total)]);
  table("refusals", word("refusals"), [word("reason"), word("last_minute"), word("since_start")], rows, word("no_refusals"));
}

function tenants() {
  const hidden = me && !me.tenants;
  at("tenants-note").textContent = word(hidden ? "tenants_hidden" : "tenants_note");
  at("tenants").hidden = hidden;
  if (hidden || !now.tenants) return;
  const most = Math.max(1e-9, ...now.tenants.map((tenant) => tenant.rate));
  const rows = now.tenants.map((tenant) => [tenant.name, number(tenant.rate, 1), number(100 * tenant.normal, 1) + " %", meter(tenant.rate / most)]);
  table("tenants", word("tenants"), [word("tenant"), word("rate"), word("normal"), word("load")], rows, word("no_tenants"));
}

// ── the month ──

function policies() {
  const chosen = at("policy").value || remembered("policy");
  at("policy").replaceChildren(...month.policies.map((policy) => new Option(policy.name, policy.name)));
  if (month.policies.some((policy) => policy.name === chosen)) at("policy").value = chosen;
}

function monthPanel() {
  if (!month) return;
  at("strip-month").textContent = month.month;
  const policy = month.policies.find((each) => each.name === at("policy").value);
  if (!policy) {
    at("strip-summary").textContent = word("strip_none");
    return;
  }
  const { budget, minutes } = policy;
  const percent = number(Math.floor((1e6 * policy.up) / Math.max(1, policy.of)) / 1e4, 4);
  const breach = budget.until_breach === null ? "" : " " + word("breach_in", number(budget.until_breach));
  at("strip-summary").textContent = word("strip_summary", policy.promise, percent, number(budget.minutes), number(budget.spent), number(budget.remaining)) + breach;
  at("tile-budget").textContent = number(budget.remaining);
  at("tile-policy").textContent = policy.name + " " + policy.promise;
  stripPlot(at("strip"), policy.strip, word("strip_label", month.month, number(minutes.available), number(minutes.unavailable), number(minutes.no_record), number(minutes.excluded)));
  stripLegend(at("strip-legend"), policy.strip);
  const row = (run) => [run.first.replace("T", " ").slice(0, 16), run.last.replace("T", " ").slice(0, 16), number(run.minutes), word(run.counted ? "yes" : "no")];
  table("runs", word("stops"), [word("first"), word("last"), word("length"), word("counted")], policy.runs.map(row).reverse(), word("no_stops"));
  announce("budget " + policy.name, word("budget_left") + ": " + number(budget.remaining) + " " + word("minutes"));
}

// ── all of it ──

function show() {
  if (paused || !points.length) return;
  tiles();
  curves();
  if (!now) return;
  announce("state", badges(now.gauges, now.point.extending));
  spread();
  stages();
  devices();
  refusals();
  tenants();
}

function makeCharts() {
  for (const id of ["percentiles", "throughput", "spread"]) at(id).replaceChildren();
  const extensions = () => inView().map((point) => point.extending);
  charts = { percentiles: percentilePlot(at("percentiles"), extensions), throughput: ratePlot(at("throughput"), extensions), spread: spreadPlot(at("spread")) };
}

function setLanguage(chosen) {
  language = chosen;
  remember("language", chosen);
  spoken = {};
  applyWords();
  at("english").setAttribute("aria-pressed", chosen === "en");
  at("chinese").setAttribute("aria-pressed", chosen === "zh-CN");
  at("pause").textContent = word(paused ? "go_on" : "pause");
  who();
  makeCharts();
  show();
  monthPanel();
}

function who() {
  if (!me) return;
  at("who").textContent = word("roles", me.name, me.roles.join(", "));
  at("version").textContent = "cinnabar " + me.version;
}

function pause() {
  paused = !paused;
  at("pause").setAttribute("aria-pressed", paused);
  at("pause").textContent = word(paused ? "go_on" : "pause");
  if (paused) say(word("paused"));
  show();
}

async function leave() {
  await fetch("/operator/v1/logout", { method: "POST" });
  end("logged_out");
}

// ── the stream ──

const stream = new EventSource("/operator/v1/live");

function end(reason) {
  ended = true;
  stream.close();
  banner(word(reason));
  document.body.classList.add("stale");
}

const on = (name, take) => stream.addEventListener(name, (event) => take(JSON.parse(event.data)));

on("hello", (said) => { me = said; banner(""); who(); if (before) say(word("connected")); });
on("history", (said) => { points = said; show(); });
on("now", (said) => {
  if (now) before = { t: now.point.t, signed: Object.fromEntries(now.devices.map((device) => [device.name, device.signed])) };
  now = said;
  points.push(said.point);
  if (points.length > KEPT) points.shift();
  show();
});
on("month", (said) => { month = said; policies(); monthPanel(); });
stream.addEventListener("end", (event) => end("ended_" + event.data));
stream.addEventListener("error", () => {
  if (ended) return;
  // A browser does not try again after an answer such as 401.
  if (stream.readyState === EventSource.CLOSED) end("ended_session"); else banner(word("reconnecting"));
});

// ── controls ──

at("english").addEventListener("click", () => setLanguage("en"));
at("chinese").addEventListener("click", () => setLanguage("zh-CN"));
at("pause").addEventListener("click", pause);
at("leave").addEventListener("click", leave);
at("window").addEventListener("change", show);
at("policy").addEventListener("change", () => { remember("policy", at("policy").value); monthPanel(); });
for (const details of document.querySelectorAll("details")) details.addEventListener("toggle", show);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { makeCharts(); show(); });
setLanguage(language);
