"""Made-up workers: small programs that do what a test of the supervisor needs, in milliseconds.

Guarantees: like a real one each takes its order from standard input, reports on standard output, dies
with the pipe, and can be told by its order what to do: "serve", "fail", "die", "mute", "babble".
"""

import sys

SCRIPT = """
import json, os, signal, sys, time
order = json.loads(sys.stdin.buffer.readline())
def say(**what):
    os.write(1, json.dumps(what).encode() + b"\\n")
def note(word):
    with open(order["notes"], "a") as file:
        file.write(word + "\\n")
signal.signal(signal.SIGTERM, lambda *_: (note("drained"), sys.exit(0)))
signal.signal(signal.SIGHUP, lambda *_: note("reloaded"))
what = order["do"]
count = len(open(order["notes"]).read().split("started")) if os.path.exists(order["notes"]) else 1
note("started")
if what == "fail":
    say(error="The key cannot be read.")
    sys.exit(1)
if what == "mute":
    sys.exit(3)
if what == "babble":
    os.write(1, b"[" * 60_000 + b"\\n")
    sys.exit(5)
if what == "die-later" and count > 1:
    sys.exit(4)
if what == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
say(ready=True)
sys.stdin.buffer.read()
"""

COMMAND = (sys.executable, "-c", SCRIPT)
