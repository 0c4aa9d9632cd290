# SPDX-License-Identifier: Apache-2.0
"""
A browser that a test looks through: Debian's Chromium, asked by way of its chromium-driver, which speaks W3C WebDriver (JSON
over HTTP). Only what the page's tests need.
"""
import base64
import json
import os
import re
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
ENTER, TAB, ESCAPE = "\ue007", "\ue004", "\ue00c"


class Failed(Exception):
    pass


class Element:
    def __init__(self, browser, ref):
        self.browser, self.ref = browser, ref

    def click(self):
        self.browser.call("POST", "/element/%s/click" % self.ref, {})

    def name(self):
        """What it is called for who cannot see it."""
        return self.browser.call("GET", "/element/%s/computedlabel" % self.ref)


class Browser:
    def __init__(self, seconds=20):
        self.dir = tempfile.TemporaryDirectory(prefix="browser.")
        self.driver = subprocess.Popen(
            ["chromedriver", "--port=0", "--log-path=" + os.path.join(self.dir.name, "log")],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            start_new_session=True, env=dict(os.environ, HOME=self.dir.name))
        self.seconds = seconds
        self.session = None
        try:
            self.base = "http://127.0.0.1:%d" % self._port()
            self._begin()
        except BaseException:
            self.end()
            raise

    def _port(self):
        for line in self.driver.stdout:
            found = re.search(r"started successfully on port (\d+)", line)
            if found:
                return int(found[1])
        raise Failed("chromedriver does not start")

    def _begin(self):
        options = {"args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                            "--no-first-run", "--disable-background-networking", "--disable-extensions",
                            "--force-prefers-reduced-motion", "--window-size=1280,900",
                            "--user-data-dir=" + os.path.join(self.dir.name, "profile")]}
        made = self._http("POST", "/session", {"capabilities": {"alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}}})
        self.session = made["sessionId"]

    def _http(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        req = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(req, timeout=60) as r:
                return json.load(r)["value"]
        except urllib.error.HTTPError as e:
            value = json.load(e)["value"]
            raise Failed("%s %s: %s" % (method, path, value.get("message", value).splitlines()[0])) from None

    def call(self, method, path, body=None):
        return self._http(method, "/session/" + self.session + path, body)

    def end(self):
        try:
            if self.session:
                self.call("DELETE", "")
        except (Failed, OSError):
            pass
        # Whatever it has started is of its session.
        try:
            os.killpg(self.driver.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.driver.wait()
        for _ in range(20):
            try:
                self.dir.cleanup()
                return
            except OSError:
                time.sleep(0.1)

    def go(self, url):
        self.call("POST", "/url", {"url": url})

    def run(self, script, *args):
        return self.call("POST", "/execute/sync", {"script": script, "args": list(args)})

    def chrome(self, cmd, params):
        """A command of the Chrome DevTools Protocol."""
        return self.call("POST", "/goog/cdp/execute", {"cmd": cmd, "params": params})

    def all(self, css):
        return [Element(self, e[ELEMENT]) for e in self.call("POST", "/elements", {"using": "css selector", "value": css})]

    def one(self, css):
        return Element(self, self.call("POST", "/element", {"using": "css selector", "value": css})[ELEMENT])

    def keys(self, *keys):
        """What is typed goes to whatever has the focus."""
        acts = []
        for k in keys:
            acts += [{"type": "keyDown", "value": k}, {"type": "keyUp", "value": k}]
        self.call("POST", "/actions", {"actions": [{"type": "key", "id": "keys", "actions": acts}]})

    def log(self):
        return self.call("POST", "/se/log", {"type": "browser"})

    def shot(self, path):
        with open(path, "wb") as f:
            f.write(base64.b64decode(self.call("GET", "/screenshot")))

    def text(self, css="body"):
        return self.run("const e = document.querySelector(arguments[0]); return e ? e.innerText : ''", css)

    def until(self, what, test):
        """Waits until test() is true. Return: what it was"""
        end = time.monotonic() + self.seconds
        while True:
            got = test()
            if got:
                return got
            if time.monotonic() > end:
                raise Failed("%s: not within %d s; the page says:\n%s" % (what, self.seconds, self.text()))
            time.sleep(0.05)

    def shows(self, text, css="body"):
        self.until('"%s" in %s' % (text, css), lambda: text in self.text(css))
