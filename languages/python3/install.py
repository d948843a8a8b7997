"""Installs what a manifest names: INSTALLER MANIFEST LAYER.

A manifest is a requirements.txt, a pyproject.toml or a uv.lock; its text says which.
"""

import os
import re
import shutil
import subprocess
import sys

PROJECT = "/tmp/project"
TOOLS = "/tmp/tools"
PIP = [sys.executable, "-I", "-m", "pip", "--disable-pip-version-check", "--no-input", "install"]
QUIET = ["--no-cache-dir", "--no-warn-script-location", "--root-user-action=ignore"]


def fail(text):
    sys.exit(text)


def write(name, text):
    os.makedirs(PROJECT, exist_ok=True)
    path = os.path.join(PROJECT, name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def run(command, **more):
    try:
        return subprocess.run(command, check=True, **more)
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode if error.returncode > 0 else 1)


def find_uv():
    """Where the machine has none it is installed for this once."""
    found = shutil.which("uv")
    if not found:
        run([*PIP, *QUIET, "--quiet", "--target", TOOLS, "uv"])
        found = os.path.join(TOOLS, "bin", "uv")
    return found


def locked(text):
    """What a uv.lock names, as requirements with their digests."""
    roots = [
        part
        for part in text.split("[[package]]")[1:]
        if re.search(r'^source = \{ (virtual|editable|directory) = "\." \}', part, re.MULTILINE)
    ]
    named = roots and re.search(r'^name = "([^"]+)"', roots[0], re.MULTILINE)
    if not named:
        fail("this uv.lock has no package of its own directory: lock a project that has a pyproject.toml")
    # What it says of the project is in the lock, too.
    write("pyproject.toml", '[project]\nname = "%s"\nversion = "0"\n' % named.group(1))
    write("uv.lock", text)
    command = [find_uv(), "export", "--frozen", "--no-dev", "--no-emit-project", "--no-header", "--no-cache"]
    print("from uv.lock", flush=True)
    environment = {**os.environ, "UV_PYTHON_DOWNLOADS": "never", "UV_PYTHON": sys.executable}
    exported = run([*command, "--quiet"], cwd=PROJECT, env=environment, stdout=subprocess.PIPE)
    return write("requirements.txt", exported.stdout.decode())


def declared(text):
    """What a pyproject.toml names, as requirements."""
    try:
        import tomllib
    except ImportError:
        from pip._vendor import tomli as tomllib
    try:
        project = tomllib.loads(text).get("project", {})
    except tomllib.TOMLDecodeError as error:
        fail("pyproject.toml cannot be read: %s" % error)
    if "dependencies" not in project:
        fail("pyproject.toml has no list of dependencies in [project]: others than that are not read")
    print("from pyproject.toml", flush=True)
    return write("requirements.txt", "\n".join(project["dependencies"]) + "\n")


def requirements(installer, manifest):
    with open(manifest, encoding="utf-8") as file:
        text = file.read()
    if re.search(r"^\[\[package\]\]", text, re.MULTILINE):
        return locked(text)
    if re.search(r"^\[(project|build-system|tool\.[\w.-]+|dependency-groups)\]", text, re.MULTILINE):
        # It heeds the indexes and sources that are named there, too.
        return write("pyproject.toml", text) if installer == "uv" else declared(text)
    return manifest


def main():
    installer, manifest, layer = sys.argv[1:]
    wanted = requirements(installer, manifest)
    if installer == "uv":
        into = ["--python", sys.executable, "--target", layer, "--no-cache"]
        run([find_uv(), "pip", "install", *into, "--requirement", wanted])
    else:
        run([*PIP, *QUIET, "--target", layer, "--requirement", wanted])


main()
