"use strict";
// Every word of the dashboard: English, Chinese. {0}, {1} are filled in.
const WORDS = {
  title: ["Cinnabar: dashboard", "Cinnabar：运行仪表盘"],
  skip: ["Skip to the figures", "跳到数据"],
  state: ["State of the engine", "引擎状态"],
  controls: ["Controls", "控制"],
  window: ["Show", "显示"],
  one_minute: ["1 minute", "1 分钟"],
  five_minutes: ["5 minutes", "5 分钟"],
  pause: ["Pause", "暂停"],
  go_on: ["Go on", "继续"],
  paused: ["The display is paused.", "显示已暂停。"],
  log_out: ["Log out", "退出登录"],
  at_a_glance: ["At a glance", "概览"],
  throughput: ["Throughput", "吞吐量"],
  throughput_note: ["A second: signatures released, and requests refused.", "每秒发出的签名数与被拒绝的请求数。"],
  per_second: ["a second", "每秒"],
  average: ["Average", "平均时延"],
  p99: ["99th percentile", "第 99 百分位"],
  longest_window: ["Longest in view", "显示范围内最长"],
  promise_average: ["promised: 100", "承诺 100"],
  promise_maximum: ["promised: 3,000", "承诺 3,000"],
  refused: ["Refused", "拒绝"],
  in_flight: ["In flight", "处理中"],
  budget_left: ["Budget left", "剩余额度"],
  minutes: ["minutes", "分钟"],
  percentiles: ["Latency", "时延"],
  percentiles_note: ["Milliseconds, each second. Percentiles of answers with a result; the longest of all answers.", "毫秒，逐秒。百分位按有结果的应答计；最长值按全部应答计。"],
  spread: ["Distribution", "时延分布"],
  spread_note: ["Last one to two minutes: this share of answers took at most so many milliseconds.", "最近一至两分钟：该比例的应答不超过多少毫秒。"],
  legend: ["Legend", "图例"],
  as_table: ["As a table", "以表格显示"],
  stages: ["Where the time goes", "时间去向"],
  stages_note: ["Signing calls of the last one to two minutes, milliseconds.", "最近一至两分钟的签名请求，单位毫秒。"],
  stage: ["Stage", "阶段"],
  decode: ["decode", "解码"],
  gate: ["gate", "准入"],
  queue: ["queue", "排队"],
  sign: ["sign", "签名"],
  commit: ["commit", "落盘"],
  reply: ["reply", "应答"],
  strip: ["Minutes of the month", "本月分钟带"],
  agreement: ["Agreement", "协议"],
  strip_summary: ["Promised {0}; so far {1} % of the whole month if nothing more fails. Budget {2} minutes, spent {3}, left {4}.", "承诺 {0}；此后不再故障则全月为 {1} %。额度 {2} 分钟，已用 {3}，剩余 {4}。"],
  breach_in: ["If everything failed from now on, the promise would break after {0} minutes.", "若从现在起全部故障，{0} 分钟后将违约。"],
  strip_label: ["Minutes of {0}: {1} available, {2} unavailable, {3} of them without a record, {4} excluded.", "{0} 的分钟：可用 {1}，不可用 {2}（其中无记录 {3}），排除 {4}。"],
  strip_none: ["Nothing has been judged yet.", "尚无判定。"],
  letter_a: ["available", "可用"],
  letter_s: ["signing down", "签章不可用"],
  letter_c: ["certificates down", "证书不可用"],
  letter_b: ["both down", "两者均不可用"],
  letter_n: ["no record", "无记录"],
  letter_x: ["excluded", "排除"],
  letter_o: ["before service began", "服务开通前"],
  letter_f: ["to come", "未到"],
  stops: ["Stops as a table", "停机列表"],
  no_stops: ["No stop in this month.", "本月没有停机。"],
  first: ["First minute", "首分钟"],
  last: ["Last minute", "末分钟"],
  length: ["Minutes", "分钟数"],
  counted: ["Counts", "计入"],
  yes: ["yes", "是"],
  no: ["no", "否"],
  devices: ["Queue and devices", "队列与设备"],
  queues: ["Software lanes: {0}, {1} jobs waiting. Journal: {2} batches waiting.", "软件通道 {0} 条，等待任务 {1}；日志等待批次 {2}。"],
  no_devices: ["No devices; software lanes sign.", "没有设备，由软件通道签名。"],
  device: ["Device", "设备"],
  device_state: ["State", "状态"],
  share: ["Share", "份额"],
  processes: ["Processes", "进程"],
  waiting: ["Waiting", "等待"],
  rate: ["A second", "每秒"],
  call: ["Call ms", "单次毫秒"],
  faults: ["Faults", "故障"],
  pending: ["pending", "待定"],
  active: ["active", "工作中"],
  draining: ["draining", "排空中"],
  quarantined: ["quarantined", "已隔离"],
  refusals: ["Refusals by reason", "拒绝原因"],
  refusals_note: ["What was answered instead of a result.", "未给出结果时的应答代码。"],
  reason: ["Reason", "原因"],
  last_minute: ["Last minute", "最近一分钟"],
  since_start: ["Since the start", "自启动以来"],
  no_refusals: ["Nothing has been refused.", "没有拒绝。"],
  tenants: ["Tenants by load", "租户负载"],
  tenants_note: ["Requests a second that count under the agreement, over ten seconds; ten tenants at most.", "十秒内计入协议的每秒请求数；最多十个租户。"],
  tenants_hidden: ["Your role does not show tenants.", "您的角色不能查看租户。"],
  no_tenants: ["No requests in the last ten seconds.", "最近十秒没有请求。"],
  tenant: ["Tenant", "租户"],
  normal: ["Normal responses", "正常响应"],
  load: ["Load", "负载"],
  time: ["Time", "时间"],
  quantile: ["Share of answers", "应答比例"],
  at_most: ["At most, ms", "不超过（毫秒）"],
  p50: ["p50", "p50"],
  p90: ["p90", "p90"],
  p99_short: ["p99", "p99"],
  p999: ["p99.9", "p99.9"],
  max: ["longest", "最长"],
  signatures: ["signatures", "签名"],
  refused_short: ["refused", "拒绝"],
  extending_band: ["shaded: capacity being extended", "阴影：正在扩容"],
  serving: ["Serving", "服务中"],
  not_ready: ["Not ready: {0}", "未就绪：{0}"],
  extending: ["Capacity is being extended", "正在扩容"],
  extending_over: ["Capacity is no longer being extended.", "扩容已结束。"],
  maintenance: ["Maintenance", "维护中"],
  storage_full: ["Disk full", "磁盘已满"],
  audit_stopped: ["Audit log stopped", "审计日志停止"],
  differences: ["Reconciliation: {0} differences", "对账差异 {0} 处"],
  busy: ["{0} % refused with 503 in the last minute", "上一分钟 {0} % 被 503 拒绝"],
  device_changed: ["Device {0}: {1}.", "设备 {0}：{1}。"],
  reconnecting: ["No connection to the engine; trying again.", "与引擎的连接中断，正在重试。"],
  connected: ["Connected.", "已连接。"],
  ended_session: ["The session is over. Ask for a new link: cinnabar operator login NAME", "会话已结束。请重新获取登录链接：cinnabar operator login NAME"],
  ended_stopping: ["The engine is stopping.", "引擎正在停止。"],
  logged_out: ["You are logged out.", "您已退出登录。"],
  chart_label: ["{0}. Latest: {1}", "{0}。最新：{1}"],
  nothing_yet: ["nothing yet", "暂无数据"],
  api: ["API of the console", "控制台接口"],
  roles: ["{0} ({1})", "{0}（{1}）"],
};

const LANGUAGES = ["en", "zh-CN"];

function remembered(name) {
  try { return localStorage.getItem(name); } catch { return null; }
}

function remember(name, value) {
  try { localStorage.setItem(name, value); } catch { /* A browser that keeps nothing asks again next time. */ }
}

function firstLanguage() {
  const kept = remembered("language");
  if (LANGUAGES.includes(kept)) return kept;
  return navigator.language.startsWith("zh") ? "zh-CN" : "en";
}

let language = firstLanguage();

function word(name, ...values) {
  const both = WORDS[name];
  if (!both) throw new Error("no word '" + name + "'");
  return both[LANGUAGES.indexOf(language)].replace(/\{(\d)\}/g, (_, at) => values[at]);
}

// Words of the page itself.
function applyWords() {
  document.documentElement.lang = language;
  document.title = word("title");
  for (const element of document.querySelectorAll("[data-word]")) element.textContent = word(element.dataset.word);
  for (const element of document.querySelectorAll("[data-label]")) element.setAttribute("aria-label", word(element.dataset.label));
}

function number(value, digits = 0) {
  return new Intl.NumberFormat(language, { maximumFractionDigits: digits, minimumFractionDigits: digits }).format(value);
}

// Microseconds as milliseconds, with three digits that matter.
function ms(us) {
  if (us === null || us === undefined) return "–";
  const value = us / 1000;
  return number(value, value >= 100 ? 0 : value >= 10 ? 1 : 2);
}
