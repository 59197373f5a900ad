"""The kernels, compiled at their first use with the system's compiler and kept in the user's cache folder."""

import ctypes
import functools
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).with_name("kernel")
FLAGS = ("-O3", "-ffp-contract=fast", "-fPIC", "-shared")
LIBRARIES = ("-lm",)
COMPILERS = ("cc", "gcc", "clang")
SECONDS = 60


# A kernel, and what says how many floats it works in, given the sizes of the work.
Working = tuple[Callable[..., None], Callable[..., int]]


@dataclass(frozen=True, slots=True)
class Kernels:
    """The kernels, or why there are none.

    Attributes:
        story: Where they come from, or what is missing and how to help; goes on after a colon or semicolon.
        linear: The function of `kernel/linear.c`, or None.
        attend: The function of `kernel/attend.c`, or None.
        linear_many: That of `kernel/linear_many.c`, or None, as where the library has a better one.
        attend_many: That of `kernel/attend_many.c`, or None, as where the library has a better one.
        activate: The function of `kernel/activate.c`, or None.
        pairs: Whether `linear` multiplies bfloat16 activations as they are; else they are to be widened.
    """

    story: str
    linear: Callable[..., None] | None = None
    attend: Callable[..., None] | None = None
    linear_many: Working | None = None
    attend_many: Working | None = None
    activate: Callable[..., None] | None = None
    pairs: bool = False


class _BuildError(Exception):
    """Why there is no kernel; it never leaves this file."""


@functools.cache
def load_kernels() -> Kernels:
    """Load the kernels, compiled before or now; once a process."""
    try:
        compiler = _compiler()
        target, macros = _target(compiler)
        library = _library(compiler, target, _name(compiler, target, macros))
    except (_BuildError, OSError, RuntimeError, subprocess.TimeoutExpired) as error:  # RuntimeError: no home
        return Kernels(str(error))
    alone = "" if library.is_parallel() else ", on one thread because torch's OpenMP is none that it knows"
    return Kernels(f"kernel compiled by {_version(macros)}{alone}", **_functions(library))


def _functions(library: ctypes.CDLL) -> dict[str, Any]:
    """The kernels that this processor has, with their arguments, as `Kernels` names them."""
    pointer, long, number, real = ctypes.c_void_p, ctypes.c_long, ctypes.c_int, ctypes.c_float

    def function(name: str, *arguments: Any, result: Any = None) -> Any:
        found = getattr(library, name)
        found.argtypes, found.restype = arguments, result
        return found

    functions = {
        "linear": function("linear", *[pointer] * 5, *[long] * 4, number),
        "attend": function("attend", *[pointer] * 6, *[long] * 12, real, *[number] * 2),
        "pairs": bool(library.multiplies_pairs()),
    }
    if library.multiplies_many():
        kernel = function("linear_many", *[pointer] * 5, *[long] * 4, number)
        functions["linear_many"] = kernel, function("linear_many_work", *[long] * 2, number, result=long)
    if library.attends_many():
        kernel = function("attend_many", *[pointer] * 6, *[long] * 5, ctypes.POINTER(long), real, number)
        functions["attend_many"] = kernel, function("attend_many_work", *[long] * 2, result=long)
    if library.activates():
        functions["activate"] = function("activate", *[pointer] * 2, long, *[number] * 2)
    return functions


def cache_folder() -> Path:
    """Return the folder that compiled kernels are kept in."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "saccade" / "kernels"


def _compiler() -> list[str]:
    """The compiler's command: that of the variable CC, or the first one found."""
    if asked := shlex.split(os.environ.get("CC", "")):
        if shutil.which(asked[0]) is None:
            raise _BuildError(f"the compiler {asked[0]!r} that CC names is not there")
        return asked
    found = next(filter(shutil.which, COMPILERS), None)
    if found is None:
        raise _BuildError("no C compiler was found (install gcc or clang for a faster decode)")
    return [found]


def _target(compiler: list[str]) -> tuple[list[str], bytes]:
    """The flags for this processor, and the macros that the compiler then predefines."""
    for target in (["-march=native"], []):
        asked = _run([*compiler, *FLAGS, *target, "-dM", "-E", "-x", "c", os.devnull])
        if asked.returncode == 0:
            return target, asked.stdout
    raise _BuildError(f"{compiler[0]} does not work: {_first_line(asked.stderr)}")


def _name(compiler: list[str], target: list[str], macros: bytes) -> str:
    """A file name that changes with source, flags, compiler and processor.

    The predefined macros tell the compiler's version and all that it knows of the processor.
    """
    files = sorted([*SOURCES.glob("*.c"), *SOURCES.glob("*.h")])
    sources = [part for path in files for part in (path.name.encode(), path.read_bytes())]
    told = (*sources, shlex.join([*compiler, *FLAGS, *target, *LIBRARIES]).encode(), macros)
    return hashlib.sha256(b"\0".join(told)).hexdigest()[:24] + ".so"


def _version(macros: bytes) -> str:
    """The compiler's name and version: gcc's macro holds the number only, clang's the name too."""
    told = re.search(rb'^#define __VERSION__ "(?:Apple )?([^\s"]+(?: \d[^\s"]*)?)', macros, re.MULTILINE)
    version = told[1].decode() if told else "an unknown compiler"
    return f"gcc {version}" if version[0].isdigit() else version


def _library(compiler: list[str], target: list[str], name: str) -> ctypes.CDLL:
    """Load the compiled source; where the cache cannot be written, from a folder that is gone once it is loaded."""
    kept = cache_folder() / name
    if kept.is_file():
        return ctypes.CDLL(str(kept))
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        place = tempfile.TemporaryDirectory(dir=kept.parent)
    except OSError:
        place = tempfile.TemporaryDirectory()
    with place as folder:
        fresh = Path(folder) / name
        sources = map(str, sorted(SOURCES.glob("*.c")))
        built = _run([*compiler, *FLAGS, *target, *sources, "-o", str(fresh), *LIBRARIES])
        if built.returncode != 0:
            raise _BuildError(f"{compiler[0]} cannot compile the kernels: {_first_line(built.stderr)}")
        library = ctypes.CDLL(str(fresh))
        if fresh.parent.parent == kept.parent:
            # Moved as a whole, so that a process that starts beside this one finds all of it or nothing.
            fresh.replace(kept)
        return library


def _run(command: list[str]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)


def _first_line(output: bytes) -> str:
    return next(iter(output.decode(errors="replace").splitlines()), "no message")
