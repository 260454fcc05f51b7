#!/usr/bin/python3
"""Scripts of tools/ with stand-ins for the programs they call: from where they run, and what they leave behind.

usage: tools_test.py fresh|demo TREE    run by ctest (label tools)
"""
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

PATIENCE_S = 30


def stand_in(folder, name, text):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def wait_until(holds, what):
    end = time.monotonic() + PATIENCE_S
    while not holds():
        if time.monotonic() > end:
            raise AssertionError(f"not in {PATIENCE_S} s: {what}")
        time.sleep(0.02)


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def fresh(tree, scratch):
    """Started inside tools/ it found itself no more, and left the root it had made."""
    stubs = scratch / "bin"
    stand_in(stubs, "id", "echo 0")
    stand_in(stubs, "unshare", 'shift 3; exec "$@"')
    stand_in(stubs, "mktemp", f"mkdir {scratch}/root; echo {scratch}/root")
    stand_in(stubs, "debootstrap", f"touch {scratch}/called; exit 1")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FRESH_")}
    environment["PATH"] = f"{stubs}:{environment['PATH']}"
    result = subprocess.run(["./fresh"], cwd=tree / "tools", env=environment, capture_output=True, text=True, check=False)
    assert (scratch / "called").exists(), f"debootstrap was never called: {result.stderr}"
    assert result.returncode == 1, result.stderr
    assert not (scratch / "root").exists(), "the root is still there"


def demo(tree, scratch):
    """Two Ctrl-C, the second while the cluster is being stopped: no folder and no process is left."""
    stubs, temporary = scratch / "build/bin", scratch / "tmp"
    temporary.mkdir()
    stand_in(stubs, "truthcam", f"echo >{scratch}/truthcam-$$; exec sleep 300")
    stand_in(stubs, "reelkv", f"echo >{scratch}/down; sleep 1")
    script = subprocess.Popen([tree / "tools/demo", scratch / "build"], env=os.environ | {"TMPDIR": str(temporary)},
                              start_new_session=True, stdout=subprocess.DEVNULL,
                              preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    try:
        wait_until(lambda: len(list(scratch.glob("truthcam-*"))) == 2, "both cameras are being made")
        cameras = [int(path.name.rpartition("-")[2]) for path in scratch.glob("truthcam-*")]
        os.killpg(script.pid, signal.SIGINT)
        wait_until((scratch / "down").exists, "the cluster is being stopped")
        os.killpg(script.pid, signal.SIGINT)
        code = script.wait(PATIENCE_S)
        assert code == 130, f"ended with {code}"
        assert not list(temporary.iterdir()), f"left {list(temporary.iterdir())}"
        assert not any(map(is_alive, cameras)), "a truthcam runs on"
    finally:
        try:
            os.killpg(script.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        script.wait()


def main(argv):
    tests = {"fresh": fresh, "demo": demo}
    if len(argv) != 3 or argv[1] not in tests:
        print(__doc__, file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="reelkv-tools-") as scratch:
        tests[argv[1]](pathlib.Path(argv[2]).resolve(), pathlib.Path(scratch))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
