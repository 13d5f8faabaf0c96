#!/usr/bin/env bash
# Makes everything ready: Debian's packages, .venv, the packages of requirements.txt, and the project itself
# (editable, so that nerfstudio finds its method).
#
#   tools/setup.sh app      what `make app` needs
#   tools/setup.sh test     the same, and the browser of the tests
#
# A second run does nothing and takes well under a second. It starts over by itself after an interrupted
# run, a changed requirements.txt, another Python or a moved folder. PYTHON=... picks the interpreter; without it, the first
# that suits of python3, python3.12 and python3.11 is taken.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
purpose="${1:-app}"

fail() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}

# `make -j app test` and two terminals: one set-up at a time. (Without flock there is no lock.)
if command -v flock >/dev/null; then
    exec 9>.setup.lock
    flock 9
fi

# ---- Python ---------------------------------------------------------------------------------------------

# requirements.txt installs on these; numpy 1.26, which nerfstudio asks for, has no build for a newer one.
suits() { "$1" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null; }
wanted="Python 3.11 or 3.12 is needed (Debian 12: apt-get install python3 python3-venv); if it"
wanted+=" is there under another name: make PYTHON=/path/to/python3.11 $purpose"
python="${PYTHON:-}"
if [[ -z "$python" ]]; then
    python=python3
    for candidate in python3 python3.12 python3.11; do
        if command -v "$candidate" >/dev/null && suits "$candidate"; then
            python="$candidate"
            break
        fi
    done
fi
if command -v "$python" >/dev/null && ! suits "$python"; then
    fail "'$python' is Python $("$python" -c 'import platform; print(platform.python_version())'): $wanted"
fi

# ---- what the system must give --------------------------------------------------------------------------

# ldconfig lives in /sbin, which is not on every user's PATH. Read whole: with pipefail, a `grep -q` that
# stops early would make its left side fail.
libraries="$(PATH="$PATH:/usr/sbin:/sbin" ldconfig -p 2>/dev/null || true)"
has_library() { [[ "$libraries" == *"$1"* ]]; }

needed=() # nothing starts without these
useful=() # a part of the project does without these
[[ -z "$libraries" ]] || {
    has_library libGL.so.1 || needed+=(libgl1)                   # opencv-python
    has_library libgthread-2.0.so.0 || needed+=(libglib2.0-0)    # opencv-python
    has_library libusb-1.0.so.0 || useful+=(libusb-1.0-0)        # nerfstudio's open3d
    has_library libEGL.so.1 || useful+=(libegl1)                 # rendering meshes without a screen
}
# Two of nerfstudio's packages come as source only.
command -v gcc >/dev/null && command -v g++ >/dev/null || needed+=(gcc g++)
if command -v "$python" >/dev/null; then
    "$python" -c 'import ensurepip, venv' 2>/dev/null || needed+=(python3-venv)
    "$python" -c 'import os, sys, sysconfig as s
sys.exit(not os.path.exists(os.path.join(s.get_path("include"), "Python.h")))' || needed+=(python3-dev)
elif [[ "$python" == python3 ]]; then
    needed+=(python3 python3-venv python3-dev)
fi
if [[ "$purpose" == test ]]; then
    command -v chromium >/dev/null || command -v chromium-browser >/dev/null ||
        command -v google-chrome >/dev/null || useful+=(chromium)
fi

missing=("${needed[@]}" "${useful[@]}")
if ((${#missing[@]})); then
    root=(false)
    if command -v apt-get >/dev/null; then
        if [[ "$(id -u)" == 0 ]]; then
            root=(env)
        elif sudo -n true 2>/dev/null; then
            root=(sudo -n env)
        fi
    fi
    install=("${root[@]}" DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}")
    if [[ "${root[0]}" != false ]]; then
        echo "setup: installing Debian packages: ${missing[*]}"
        # The list of packages may be absent or old: fetch it only when the first try fails.
        "${install[@]}" >/dev/null 2>&1 || { "${root[@]}" apt-get update -q && "${install[@]}"; } >/dev/null ||
            root=(false)
    fi
    if [[ "${root[0]}" == false ]]; then
        how="as root: apt-get install ${missing[*]}"
        if ((${#needed[@]})); then
            fail "missing from the system: ${missing[*]}. Install them and run this again; on Debian or Ubuntu, $how"
        fi
        echo "setup: missing from the system, and wanted by a part of the project: ${useful[*]} ($how)" >&2
    fi
fi

command -v "$python" >/dev/null || fail "'$python' not found: $wanted"

# ---- .venv ----------------------------------------------------------------------------------------------

# What the finished environment was made from, and what was installed as the project; written last, so that
# a run cut short is not taken for done.
stamp=.venv/.made-from
state="$(sha256sum requirements.txt | cut -d' ' -f1) $("$python" -c 'import sys; print(sys.version)' | tr '\n' ' ')"
project_stamp=.venv/.project-from
project=none
[[ ! -f pyproject.toml ]] || project="$(cat pyproject.toml setup.py | sha256sum | cut -d' ' -f1) $PWD"
holds() { [[ -f "$1" && "$(cat "$1")" == "$2" ]]; }
record() { printf '%s' "$2" >"$1.new" && mv "$1.new" "$1"; }

made=false
if [[ -x .venv/bin/python ]] && holds "$stamp" "$state"; then
    ! holds "$project_stamp" "$project" || exit 0
else
    # An environment of another Python, or one broken half-way, is made anew; a sound one is brought up to date.
    version='import sys; print(sys.version_info[:2])'
    if [[ "$(.venv/bin/python -c "import pip; $version" 2>/dev/null || true)" != "$("$python" -c "$version")" ]]; then
        rm -rf .venv
        echo "setup: creating .venv"
        "$python" -m venv .venv || fail "could not create .venv with '$python -m venv'"
    fi
    rm -f "$stamp" "$project_stamp"
    echo "setup: installing requirements.txt into .venv (some minutes and about 5 GB of disk the first time)"
    # Always `python -m pip`: the console scripts' first lines break in a path with spaces. Compiled is what is imported,
    # when it is: most of the 25,000 files never are, and all together take a minute or two.
    .venv/bin/python -m pip install -q --no-compile --disable-pip-version-check -r requirements.txt ||
        fail "pip could not install requirements.txt (see above); run 'make setup' to try again"
    record "$stamp" "$state"
    made=true
fi

if [[ "$project" != none ]]; then
    $made || echo "setup: installing the project into .venv"
    # torch has brought setuptools, so that nothing is downloaded.
    .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation --no-index -e . ||
        fail "pip could not install the project (see above); run 'make setup' to try again"
fi
record "$project_stamp" "$project"
echo "setup: done"
