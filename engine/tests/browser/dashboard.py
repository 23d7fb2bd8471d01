"""The dashboard as an operator's browser sees it: `dashboard.py LINK FOLDER`, with a one-time login link, while there is load.

Pictures go into the folder. Says what it has seen as JSON, or ends with what is wrong.
"""

import json
import re
import sys

from chromium import Browser

# Whether a canvas has something of this colour in it.
DRAWN = """(id, variable) => {
  const canvas = document.querySelector('#' + id + ' canvas'), context = canvas.getContext('2d');
  const probe = document.createElement('canvas').getContext('2d');
  probe.fillStyle = color(variable); probe.fillRect(0, 0, 1, 1);
  const [r, g, b] = probe.getImageData(0, 0, 1, 1).data;
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  let count = 0;
  for (let at = 0; at < data.length; at += 4)
    if (data[at + 3] > 200 && Math.abs(data[at] - r) + Math.abs(data[at + 1] - g) + Math.abs(data[at + 2] - b) < 24) count++;
  return count;
}"""


def log_in(browser, link):
    browser.call("Page.navigate", url=link)
    browser.until("the login page", "document.querySelector('form button') !== null")
    browser.run("document.querySelector('form button').click()")
    browser.until("the dashboard", "typeof points !== 'undefined' && points.length > 5 && now !== null")


def check_charts(browser):
    browser.until("latencies of some seconds", "charts.percentiles.data[1].filter((value) => value > 0).length > 3")
    browser.until("throughput", "charts.throughput.data[1].some((value) => value > 0)")
    browser.until("refusals a second", "charts.throughput.data[2].some((value) => value > 0)")
    browser.until("a distribution", "charts.spread.data[1].length > 5 && charts.spread.data[1].every((value) => value > 0)")
    for chart, variable in (("percentiles", "--line-4"), ("throughput", "--line-1"), ("spread", "--line-3")):
        pixels = browser.run(f"({DRAWN})('{chart}', '{variable}')")
        assert pixels > 20, f"{chart}: {pixels} pixels of {variable}"
    ordered = browser.run("now.spread.every(([, us], at) => at === 0 || us >= now.spread[at - 1][1])")
    assert ordered, "the distribution falls"


def check_panels(browser):
    rows = lambda name: browser.run(f"[...document.querySelectorAll('#{name} tbody tr')].map((row) => row.innerText.split('\\t'))")
    stages = rows("stages")
    assert len(stages) == 6 and all(float(stage[1]) >= 0 for stage in stages), stages
    browser.until("a device that signs", "now.devices.some((device) => device.name === 'hsm-1' && device.signed > 0)")
    devices = rows("devices")
    assert devices[0][0] == "hsm-1" and "active" in devices[0][1], devices
    browser.until("refusals by reason", "now.refusals.length > 0")
    codes = [row[0] for row in rows("refusals")]
    assert "credential_unknown" in codes or "not_found" in codes or codes, codes
    browser.until("the tenant's load", "now.tenants.some((tenant) => tenant.name === 'demo' && tenant.rate > 0)")
    assert rows("tenants")[0][0] == "demo", rows("tenants")
    # A minute is judged when it is over and settled; the first of a new engine takes that long.
    browser.until("a judged minute", "month !== null && month.policies.length === 2", patience=90)
    assert browser.run("document.querySelectorAll('#strip rect').length") > 20, "a strip of the month"
    assert re.fullmatch(r"[\d,]+", browser.run("document.getElementById('tile-budget').innerText")), "minutes left"
    assert "Serving" in browser.run("document.getElementById('badges').innerText")
    return {"devices": devices, "refusals": codes, "stages": [stage[0] for stage in stages]}


def check_languages(browser):
    browser.run("document.getElementById('chinese').click()")
    assert browser.run("document.documentElement.lang") == "zh-CN"
    assert "时延" in browser.run("document.querySelector('main').innerText")
    browser.call("Page.reload")
    browser.until("Chinese after a reload", "document.documentElement.lang === 'zh-CN' && typeof now !== 'undefined' && now !== null && month !== null && month.policies.length === 2")
    text = browser.run("document.body.innerText.replace(/\\b(Cinnabar|cinnabar|p\\d+\\.?\\d?|ms)\\b/g, '')")
    english = browser.run("Object.entries(WORDS).filter(([, [english, chinese]]) => english !== chinese && english.length > 6 && document.querySelector('main').innerText.includes(english)).map(([name]) => name)")
    assert "吞吐量" in text and english == [], f"left in English: {english}"
    browser.run("document.getElementById('english').click()")
    assert browser.run("document.documentElement.lang") == "en"


def check_keyboard(browser):
    # Everything that can be operated, in the order of the page; a closed list of options counts once.
    wanted = browser.run("""[...document.querySelectorAll('a[href], button, select, summary, input')]
        .filter((element) => element.checkVisibility() || element.className === 'skip').length""")
    browser.run("document.activeElement.blur(); window.seen = []; document.addEventListener('focusin', (event) => window.seen.push(event.target))")
    browser.run("document.body.tabIndex = -1; document.body.focus(); document.body.removeAttribute('tabindex')")
    for _ in range(wanted + 4):
        browser.key("Tab")
    reached = browser.run("new Set(window.seen.filter((element) => element.matches('a[href], button, select, summary, input'))).size")
    assert reached == wanted, f"Tab reaches {reached} of {wanted} controls"
    visible = browser.run("(() => { document.getElementById('pause').focus(); return true; })()")
    browser.key("Tab")
    outline = browser.run("getComputedStyle(document.activeElement).outlineStyle")
    assert visible and outline == "solid", f"focus is shown as {outline}"
    return wanted


def check_tree(browser):
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    value = lambda node, key: (node.get(key) or {}).get("value") or ""
    shown = [node for node in nodes if not node.get("ignored")]
    roles = {}
    for node in shown:
        roles.setdefault(value(node, "role"), []).append(value(node, "name").strip())
    for role in ("button", "combobox", "link", "image", "heading", "table", "group"):
        nameless = [name for name in roles.get(role, []) if not name]
        assert not nameless or role == "group", f"{len(nameless)} of role {role} have no name"
    for landmark in ("banner", "main", "contentinfo", "status"):
        assert landmark in roles, f"no {landmark} among {sorted(roles)}"
    assert len(roles.get("image", [])) >= 4, roles.get("image")
    levels = browser.run("[...document.querySelectorAll('h1, h2, h3')].map((heading) => heading.tagName).join()")
    assert levels.startswith("H1,H2"), levels
    return {role: len(names) for role, names in sorted(roles.items())}


def luminance(text):
    parts = [int(text[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first, second):
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def check_contrast(browser):
    """WCAG 2.2, 1.4.3 and 1.4.11: 4.5 for text, 3 for the lines of charts."""
    for scheme in ("light", "dark"):
        browser.scheme(scheme)
        color = lambda name: browser.run(f"color('{name}')")
        for back in ("--paper", "--panel"):
            for text in ("--ink", "--quiet", "--good", "--notice", "--bad", "--cinnabar"):
                ratio = contrast(color(text), color(back))
                assert ratio >= 4.5, f"{scheme}: {text} on {back} is {ratio:.2f}"
            for line in range(1, 6):
                ratio = contrast(color(f"--line-{line}"), color(back))
                assert ratio >= 3, f"{scheme}: line {line} on {back} is {ratio:.2f}"
        for part in range(1, 7):
            ratio = contrast("#ffffff", color(f"--part-{part}"))
            assert ratio >= 4.5, f"{scheme}: white on part {part} is {ratio:.2f}"


def check_sizes(browser, folder):
    for name, width, height in (("wide", 1280, 900), ("phone", 390, 844)):
        browser.size(width, height)
        for scheme in ("light", "dark"):
            browser.scheme(scheme)
            browser.until("charts of the new size", "charts.percentiles.width <= document.getElementById('percentiles').clientWidth")
            browser.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
            browser.screenshot(f"{folder}/dashboard-{name}-{scheme}.png")
        over = browser.run("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert over <= 0, f"{name}: {over} pixels too wide"
    browser.size(1280, 900)


def check_end(browser):
    browser.run("document.getElementById('leave').click()")
    browser.until("it says that it is over", "!document.getElementById('banner').hidden && ended")
    status = browser.run("fetch('/operator/v1/live').then((answer) => answer.status)")
    assert status == 401, status


def main(link, folder):
    browser = Browser()
    try:
        browser.size(1280, 900)
        log_in(browser, link)
        check_charts(browser)
        seen = check_panels(browser)
        check_languages(browser)
        check_charts(browser)
        seen["controls"] = check_keyboard(browser)
        seen["roles"] = check_tree(browser)
        check_contrast(browser)
        check_sizes(browser, folder)
        complaints = browser.complaints()
        assert not complaints, complaints
        origin = re.match(r"https://[^/]+/", link)[0]
        elsewhere = [url for url in browser.asked_for() if not url.startswith(origin)]
        assert not elsewhere, elsewhere
        check_end(browser)
    finally:
        browser.close()
    print(json.dumps(seen, ensure_ascii=False))


if __name__ == "__main__":
    main(*sys.argv[1:])
