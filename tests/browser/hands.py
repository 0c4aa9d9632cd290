# SPDX-License-Identifier: Apache-2.0
"""An operator's hands and eyes at a page of an agent, for the tests that play one."""
import sys

from webdriver import ENTER, Browser, Failed


def check(truth, what, *more):
    if not truth:
        raise Failed(" ".join([what] + [str(m) for m in more]))


class Hands:
    """What an operator does at either page. Pictures go to the folder, if there is one."""
    def __init__(self, b, folder):
        self.b, self.folder = b, folder

    def shot(self, name):
        if self.folder:
            self.b.shot("%s/%s.png" % (self.folder, name))

    def row(self, kind, word):
        """The text of the first row that has this word."""
        return self.b.run("const r = [...document.querySelectorAll('#' + arguments[0] + ' tbody tr')]"
                          ".find((r) => r.innerText.includes(arguments[1])); return r ? r.innerText : ''", kind, word)

    def act(self, kind, word, act):
        """Puts the focus on a button of that row, and presses Enter."""
        done = self.b.until("button " + act, lambda: self.b.run(
            "const r = [...document.querySelectorAll('#' + arguments[0] + ' tbody tr')]"
            ".find((r) => r.innerText.includes(arguments[1]));"
            "const b = r && r.querySelector('[data-act=' + arguments[2] + ']');"
            "if (b) b.focus(); return Boolean(b)", kind, word, act))
        check(done, "no button")
        self.b.keys(ENTER)
        self.b.until("dialog", lambda: self.b.run("return document.getElementById('ask').open"))

    def closed(self):
        self.b.until("the dialog closes", lambda: not self.b.run("return document.getElementById('ask').open"))

    def sign_in(self, token):
        self.b.until("form", lambda: self.b.run("return !document.getElementById('login').hidden"))
        check(self.b.run("return document.activeElement.id") == "token", "the field has not the focus")
        self.b.keys(*token, ENTER)

    def silence(self):
        """The console has nothing but the refusals that were provoked."""
        bad = [e for e in self.b.log() if e["level"] in ("SEVERE", "WARNING") and e["source"] != "network"]
        check(not bad, "the console says:", bad)


def play(make, *steps):
    """Plays the steps of what make(browser) returns, one after the other. Return: exit code"""
    b = Browser()
    step = "begin"
    try:
        play = make(b)
        for step in steps:
            getattr(play, step)()
    except Failed as e:
        print("%s: %s" % (step, e), file=sys.stderr)
        return 1
    finally:
        b.end()
    return 0
