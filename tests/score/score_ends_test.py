#!/usr/bin/python3
"""What a scoring leaves behind when it does not come to its end.

usage: score_ends_test.py killed|refused SCORE_PY BUILD_DIR    run by ctest (label score)
"""
import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

PATIENCE_S = 120


def processes_of(scratch):
    """{pid: command line} of what was started with this TMPDIR. Redis writes its title over its environment."""
    found = {}
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes()
            if scratch.encode() in line + (entry / "environ").read_bytes():
                found[int(entry.name)] = line.decode(errors="replace").replace("\0", " ")
        except OSError:
            pass  # another user's, or it has just ended
    return found


def wait_until(holds, what):
    end = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > end:
            raise AssertionError(f"not in {PATIENCE_S} s: {what}")
        time.sleep(0.1)


def killed(command, scratch):
    """ctest kills the program and nothing else; its cluster ran on, one more at each time."""
    score = subprocess.Popen(command, env=os.environ | {"TMPDIR": scratch}, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: any("reelkv-qa" in line for line in processes_of(scratch).values()), "the cluster runs")
        score.kill()
        score.wait()
        wait_until(lambda: not processes_of(scratch), "its processes have ended")
    finally:
        score.kill()
        score.wait()
        for pid in processes_of(scratch):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def refused(command, scratch):
    """A cluster that cannot be started leaves no folder."""
    result = subprocess.run([*command, "--model", "/nowhere"], env=os.environ | {"TMPDIR": scratch}, capture_output=True,
                            text=True, check=False)
    assert result.returncode == 1, result.returncode
    assert "/nowhere" in result.stderr, result.stderr
    assert not os.listdir(scratch), os.listdir(scratch)


def main(argv):
    tests = {"killed": killed, "refused": refused}
    if len(argv) != 4 or argv[1] not in tests:
        print(__doc__, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="reelkv-score-test-") as scratch:
        tests[argv[1]]([sys.executable, "-B", argv[2], argv[3], "--videos", "1"], scratch)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
