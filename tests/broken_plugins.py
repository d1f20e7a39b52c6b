"""Detectors that are broken in every way that came to mind: kind -> the file of `Broken`, and what is said of it."""

from __future__ import annotations

from conftest import MEAN

IMPORTS = """
import ctypes, os, resource, signal, sys, threading, time, warnings
"""
HEAD = f"{IMPORTS}{MEAN}\nclass Odd(BaseException):\n    pass\n\nclass Broken(Mean):\n"
SEGMENT, DTYPE, MODE = (
    "ctypes.string_at(0)",
    "torch.set_default_dtype(torch.float64)",
    "torch.set_grad_enabled(not torch.is_grad_enabled())",
)


def at_import(line: str) -> str:
    return f"{IMPORTS}import torch\n{line}\n{HEAD[len(IMPORTS) :]}    pass\n"


def in_constructor(line: str) -> str:
    return f"{HEAD}    def __init__(self, power: int = 2):\n        super().__init__(power)\n        {line}\n"


def in_fit(line: str) -> str:
    return f"{HEAD}    def fit(self, normal):\n        super().fit(normal)\n        {line}\n"


def in_score(line: str, found: str = "super().score(x)") -> str:
    return f"{HEAD}    def score(self, x):\n        {line}\n        return {found}\n"


def scored(found: str) -> str:
    return in_score("pass", found)


LEAK = (
    "resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33)); self.hoard = [bytearray(2**28) for _ in range(2**10)]"
)  # fmt: skip
ENDLESS = "(lambda f: f(f))(lambda f: f(f) + 0)"

QUICK = {
    "exits at import": (at_import("os._exit(3)"), "ended its process with exit status 3"),
    "raises in the constructor": (in_constructor("raise RuntimeError('no card')"), "RuntimeError: no card"),
    "exits in fit": (in_fit("sys.exit(0)"), "SystemExit: 0"),
    "segmentation fault": (in_score(SEGMENT), "SIGSEGV"),
    "changes the dtype": (in_score(DTYPE), "changes in score torch's default dtype"),
    "changes the images": (in_score("x.mul_(0.5)"), "changes in score the images"),
}
"""A few, for every run of the tests."""

KINDS = QUICK | {
    "raises at import": (at_import("1 / 0"), "cannot import"),
    "SystemExit at import": (at_import("sys.exit(1)"), "SystemExit: 1"),
    "no syntax": ("def :\n", "cannot import"),
    "needs what is not there": (at_import("import nowhere_to_be_found"), "nowhere_to_be_found"),
    "dtype at import": (at_import(DTYPE), "changes in its module torch's default dtype"),
    "BaseException at import": (at_import("raise BaseException('odd')"), "BaseException: odd"),
    "KeyboardInterrupt at import": (at_import("raise KeyboardInterrupt"), "KeyboardInterrupt"),
    "segmentation fault at import": (at_import(SEGMENT), "SIGSEGV"),
    "killed at import": (at_import("os.kill(os.getpid(), signal.SIGKILL)"), "SIGKILL"),
    "exits in the constructor": (in_constructor("sys.exit('enough')"), "SystemExit: enough"),
    "os._exit in the constructor": (in_constructor("os._exit(0)"), "exit status 0"),
    "segmentation fault in the constructor": (in_constructor(SEGMENT), "SIGSEGV"),
    "dtype in the constructor": (in_constructor(DTYPE), "changes in its constructor torch's default dtype"),
    "mode in the constructor": (in_constructor(MODE), "changes in its constructor torch's gradient mode"),
    "forgets its parameter": (in_constructor("del self.power"), "argument power is not kept: set self.power = power"),
    "raises in fit": (in_fit("1 / 0"), "ZeroDivisionError"),
    "os._exit in fit": (in_fit("os._exit(4)"), "exit status 4"),
    "segmentation fault in fit": (in_fit(SEGMENT), "SIGSEGV"),
    "killed in fit": (in_fit("os.kill(os.getpid(), signal.SIGKILL)"), "out of memory"),
    "leaks": (in_fit(LEAK), "MemoryError"),
    "dtype in fit": (in_fit(DTYPE), "changes in fit torch's default dtype"),
    "mode in fit": (in_fit(MODE), "changes in fit torch's gradient mode"),
    "deterministic mode in fit": (in_fit("torch.use_deterministic_algorithms(True)"), "deterministic mode"),
    "recursion": (in_fit(ENDLESS), "RecursionError"),
    "BaseException in fit": (in_fit("raise Odd('odd')"), "Odd: odd"),
    "learns nan": (in_fit("self.mean.fill_(float('nan'))"), "nan"),
    "raises in score": (in_score("raise KeyError('key')"), "KeyError: 'key'"),
    "SystemExit in score": (in_score("raise SystemExit"), "SystemExit"),
    "os._exit in score": (in_score("os._exit(0)"), "exit status 0"),
    "aborts": (in_score("os.abort()"), "SIGABRT"),
    "KeyboardInterrupt in score": (in_score("raise KeyboardInterrupt"), "KeyboardInterrupt"),
    "BaseException in score": (in_score("raise Odd"), "Odd"),
    "mode in score": (in_score(MODE), "changes in score torch's gradient mode"),
    "nan": (scored("super().score(x) * float('nan')"), "nan"),
    "inf": (scored("super().score(x) * float('inf')"), "must be finite"),
    "constant": (scored("super().score(x) * 0"), "a constant score"),
    "a score per pixel": (scored("x.mean(1)"), "16, 16) torch.float32"),
    "one score for all": (scored("x.mean()"), "got () torch.float32"),
    "no tensor": (scored("[1.0] * len(x)"), "got list"),
    "nothing": (scored("None"), "got NoneType"),
    "whole numbers": (scored("super().score(x).long()"), "torch.int64"),
    "stops its own process": (in_score("os.kill(os.getpid(), signal.SIGTERM)"), "ended its process"),
    "closes every file": (in_score("os.closerange(3, 256)"), ""),
    "warnings are errors": (in_score("warnings.simplefilter('error'); warnings.warn('old')"), "UserWarning: old"),
}

HARMLESS = {
    "prints without end": in_fit("print('word ' * 10**6)"),
    "closes stdout": in_score("sys.stdout and os.close(1); sys.stdout = None"),
    "closes stderr": in_score("sys.stderr.close()"),
    "a thread that never ends": in_fit("threading.Thread(target=time.sleep, args=(10**6,)).start()"),
    "forks, and both go on": in_fit("os.fork()"),
    "a process that never ends": in_fit("os.fork() or time.sleep(10**6)"),
}
"""What others would call broken, and costs nothing here: they have their rows."""

HANGS = {
    "hangs at import": at_import("time.sleep(10**6)"),
    "hangs in fit": in_fit("time.sleep(10**6)"),
    "hangs in score": in_score("while True: pass"),
    "hangs whatever happens": in_score(
        "\n        ".join(("while True:", "    try: time.sleep(10**6)", "    except BaseException: pass"))
    ),
}


ATTACK = f"""{IMPORTS}
import torch
from bench import Attack

class Broken(Attack):
    norms = ("linf",)

    def __init__(self, steps: int = 1):
        self.steps = steps
"""


def called(line: str, found: str = "x") -> str:
    return f"{ATTACK}\n    def __call__(self, score, x, sign, threat, rng):\n        {line}\n        return {found}\n"


ATTACKS = {
    "raises": (called("1 / 0"), "ZeroDivisionError"),
    "exits": (called("sys.exit(0)"), "SystemExit: 0"),
    "os._exit": (called("os._exit(0)"), "ended its process with exit status 0"),
    "segmentation fault": (called(SEGMENT), "SIGSEGV"),
    "changes the dtype": (called(DTYPE), "changes in its call torch's default dtype"),
    "changes the mode": (called(MODE), "changes in its call torch's gradient mode"),
    "nothing": (
        called("pass", "None"),
        "must return images as a tensor (12, 3, 16, 16), or bench.Attacked",
    ),
    "NumPy": (called("pass", "x.numpy()"), "got ndarray"),
    "another shape": (called("pass", "x[:, :1]"), "an image has shape (12, 1, 16, 16)"),
    "fewer images": (called("pass", "x[:1]"), "an image has shape (1, 3, 16, 16)"),
    "nan": (called("pass", "x * float('nan')"), "values that are not finite"),
    "too far": (called("pass", "1 - x"), "more than the budget"),
    "leaves the pixel range": (called("pass", "x + 2"), "leaves the pixel range"),
    "forgets its parameter": (called("pass").replace("self.steps = steps", "pass"), "argument steps is not kept"),
    "another signature": (called("pass").replace("x, sign, threat, rng", "x"), "TypeError"),
}
"""Attacks that are broken, in the same way."""

HARMLESS_ATTACKS = {
    "changes its images": called("x.mul_(0.5)", "x * 2"),
    "turns the signs": called("sign.mul_(-1)"),
    "double precision": called("pass", "x.double()"),
    "keeps the graph": called("x = x.requires_grad_() * 1.0"),
}
"""What an attack may do to what it was given."""
