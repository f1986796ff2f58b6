#!/usr/bin/env python3
"""Opens a report in headless Chromium and holds what a reader would see against what must hold.

Usage: browser.py --chromium PROGRAM --plait PROGRAM --sample PROGRAM [--keep FOLDER]

`--sample` is the test program that writes the sample runs. The page is opened as a phone (375 px), a desktop (1280 px),
in dark colours and on paper. Fails on: anything on the console, any request but for the page, a page wider than its
window, a figure that is empty, without title or description, text that leaves its figure or lies on other text, text of
too little contrast. With --keep the screenshots stay there to be looked at. Needs nothing but Python and Chromium.
Exits 77 (skipped) if there is no Chromium.
"""

import argparse
import base64
import json
import os
import pathlib
import select
import shutil
import subprocess
import sys
import tempfile
import time

PATIENCE = 240  # seconds a browser may take to answer; a loaded machine is slow

# What is wrong with the page as it is laid out, one sentence each.
FAULTS = """(() => {
  const faults = [];
  const shown = (e) => e.getClientRects().length > 0;
  const wide = document.documentElement.scrollWidth - window.innerWidth;
  if (wide > 0) faults.push(`the page is ${wide} px wider than its window`);
  for (const e of document.querySelectorAll('img, script, iframe, link[rel=stylesheet]'))
    faults.push(`there is a <${e.tagName}>`);
  const figures = [...document.querySelectorAll('svg')].filter(shown);
  if (figures.length < 5) faults.push(`only ${figures.length} figures are shown`);
  const sections = [...document.querySelectorAll('section')].filter((s) => !['checks', 'manifest'].includes(s.id));
  if (!sections.some((s) => s.id == 'remembrance')) faults.push('nothing is said of remembrance');
  for (const s of sections)
    if (![...s.querySelectorAll('svg')].some(shown)) faults.push(`section '${s.id}' has no figure`);
  for (const svg of figures) {
    const name = svg.querySelector('title')?.textContent ?? '';
    const box = svg.getBoundingClientRect();
    if (box.width < 5 || box.height < 5) faults.push(`figure '${name}' is empty`);
    if (!name || !svg.querySelector('desc')?.textContent) faults.push(`figure '${name}' lacks title or description`);
    const texts = [...svg.querySelectorAll('text')].map((t) => [t.textContent, t.getBoundingClientRect()]);
    for (const [text, t] of texts)
      if (t.left < box.left - 1.5 || t.right > box.right + 1.5 || t.top < box.top - 2 || t.bottom > box.bottom + 2)
        faults.push(`'${text}' leaves figure '${name}'`);
    for (let i = 0; i < texts.length; ++i)
      for (let j = i + 1; j < texts.length; ++j) {
        const [a, b] = [texts[i][1], texts[j][1]];
        const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (across > 1.5 && down > 3.5) faults.push(`'${texts[i][0]}' and '${texts[j][0]}' overlap in figure '${name}'`);
      }
    if (/NaN|Infinity/.test(svg.outerHTML)) faults.push(`figure '${name}' holds a number that is none`);
  }
  const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);
  if (new Set(ids).size !== ids.length) faults.push('two elements have one id');
  const rgb = (c) => c.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const light = (c) => rgb(c).map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
      .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const paper = light(getComputedStyle(document.body).backgroundColor);
  const seen = new Set();
  for (const e of document.querySelectorAll('p, h1, h2, h3, li, summary, figcaption, dt, dd, a, svg text')) {
    if (!shown(e)) continue;
    const style = getComputedStyle(e);
    const colour = e instanceof SVGElement ? style.fill : style.color;
    const [high, low] = [light(colour), paper].sort((a, b) => b - a);
    const contrast = (high + 0.05) / (low + 0.05);
    if (contrast < 4.5 && !seen.has(colour)) {
      seen.add(colour);
      faults.push(`'${e.textContent.slice(0, 30)}' has a contrast of ${contrast.toFixed(2)}`);
    }
  }
  return faults;
})()"""


class Browser:
    """Chromium spoken to over a pipe (--remote-debugging-pipe: JSON messages that end in NUL)."""

    def __init__(self, program, profile):
        to_browser, self.write_end = os.pipe()
        self.read_end, from_browser = os.pipe()

        def place():  # Chromium reads descriptor 3 and writes descriptor 4.
            a, b = os.dup(to_browser), os.dup(from_browser)
            os.dup2(a, 3), os.dup2(b, 4)

        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
                 "--no-first-run", "--disable-extensions", "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        self.process = subprocess.Popen([program, *flags, "about:blank"], preexec_fn=place, close_fds=False,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_browser), os.close(from_browser)
        self.buffer, self.number, self.events, self.session = b"", 0, [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(domain + ".enable")

    def message(self):
        end = time.monotonic() + PATIENCE
        while b"\0" not in self.buffer:
            if not select.select([self.read_end], [], [], max(0, end - time.monotonic()))[0]:
                raise RuntimeError("Chromium does not answer")
            piece = os.read(self.read_end, 1 << 20)
            if not piece:
                raise RuntimeError("Chromium ended")
            self.buffer += piece
        text, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(text)

    def call(self, method, **params):
        self.number += 1
        request = {"id": self.number, "method": method, "params": params}
        if self.session:
            request["sessionId"] = self.session
        data = json.dumps(request).encode() + b"\0"
        while data:
            data = data[os.write(self.write_end, data):]
        while True:
            answer = self.message()
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def open(self, url):
        self.events.clear()
        self.call("Page.navigate", url=url)
        while not any(e.get("method") == "Page.loadEventFired" for e in self.events):
            self.events.append(self.message())

    def evaluate(self, script):
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(str(result["exceptionDetails"]))
        return result["result"]["value"]

    def heard(self, url):
        """What the page said or asked for that it should not have."""
        for event in self.events:
            method, params = event.get("method"), event.get("params", {})
            if method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
                yield f"console: {json.dumps(params)[:300]}"
            if method == "Network.requestWillBeSent" and params["request"]["url"] not in (url, "data:,"):
                yield f"request for {params['request']['url']}"

    def screenshot(self, path):
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        data = self.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self):
        self.process.kill()
        self.process.wait()


VIEWS = [("phone", 375, "light", "screen"), ("desktop", 1280, "light", "screen"), ("dark", 1280, "dark", "screen"),
         ("paper", 794, "light", "print")]


def check(browser, page, pictures):
    url, faults = page.as_uri(), []
    for name, width, scheme, media in VIEWS:
        browser.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500)
        browser.call("Emulation.setEmulatedMedia", media=media, features=[{"name": "prefers-color-scheme", "value": scheme}])
        browser.open(url)
        found = browser.evaluate(FAULTS) + list(browser.heard(url))
        faults += [f"{page.name}, {name}: {fault}" for fault in found]
        picture = pictures / f"{page.stem}-{name}.png"
        browser.screenshot(picture)
        if picture.stat().st_size < 20_000:
            faults.append(f"{page.name}, {name}: the picture is as good as empty")
    data = browser.call("Page.printToPDF", preferCSSPageSize=True)["data"]
    (pictures / f"{page.stem}.pdf").write_bytes(base64.b64decode(data))
    return faults


def make_pages(options, folder):
    environment = dict(os.environ, PLAIT_SAMPLE_RUNS=str(folder))
    subprocess.run([options.sample, "--gtest_filter=SampleRun.*", "--gtest_brief=1"], env=environment, check=True)
    pages = []
    for name, flags in (("study", []), ("odd", []), ("compared", ["--compare", str(folder / "second")])):
        run = folder / ("study" if name == "compared" else name)
        page = folder / f"{name}.html"
        subprocess.run([options.plait, "report", str(run), "--html", str(page), "--quiet", *flags], check=True,
                       stdout=subprocess.DEVNULL)
        pages.append(page)
    return pages


def main():
    parser = argparse.ArgumentParser()
    for flag in ("--chromium", "--plait", "--sample", "--keep"):
        parser.add_argument(flag)
    options = parser.parse_args()
    chromium = options.chromium or shutil.which("chromium")
    if not chromium or not shutil.which(chromium):
        print("no Chromium on this machine: skipped")
        return 77
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        pictures = pathlib.Path(options.keep or folder).resolve()
        pictures.mkdir(parents=True, exist_ok=True)
        pages = make_pages(options, folder)
        browser = Browser(chromium, folder / "profile")
        try:
            faults = [fault for page in pages for fault in check(browser, page, pictures)]
        finally:
            browser.close()
    for fault in faults:
        print(fault)
    print(f"{len(pages)} pages in {len(VIEWS)} views, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
