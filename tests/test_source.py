"""What the source itself has to keep: layers, sizes, documentation, headers, and nothing left over.

The package is looked at where it was imported from, so that an installed one is tested too: its sources, declarations,
headers and stubs are installed with it.
"""

import ast
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import pytest
from _fault import import_everything

import linux_event

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(linux_event.__file__).resolve().parent
HEADERS = sorted(PACKAGE.glob("include/*.h"))
EXTENSIONS = sorted(PACKAGE.rglob("*.pyx"))
DECLARATIONS = sorted(PACKAGE.rglob("*.pxd"))
PYTHON = sorted(PACKAGE.rglob("*.py"))

# The layers, low to high: a module imports only from the rows above its own.
LAYERS = (
    ("linux",),
    ("liburing",),
    ("core",),
    ("cancellation", "diagnosis", "errors", "events", "features", "statistics", "views"),
    ("arguments", "interrupts", "ring", "threads"),
    ("address", "requests"),
    ("engine",),
    ("embedding",),
    ("loop",),
    ("watcher",),
    ("watchers.happening", "watchers.inotify"),
    ("watchers.above",),
    ("watchers.tree",),
    (
        "watchers.child",
        "watchers.idle",
        "watchers.io",
        "watchers.mount",
        "watchers.path",
        "watchers.signal",
        "watchers.timer",
        "watchers.wakeup",
    ),
    ("watchers",),
    ("operation",),
    ("pool", "promise"),
    ("chain", "slots", "transfer"),
    ("uring",),
    ("raw.request",),
    ("raw.registered",),
    ("raw.control", "raw.data", "raw.paths", "raw.sockets", "raw.waits"),
    ("raw",),
    (
        "operations.files",
        "operations.many",
        "operations.messages",
        "operations.moving",
        "operations.paths",
        "operations.sockets",
    ),
    ("operations.read_file", "operations.write_file"),
    ("operations.copies",),
    ("operations",),
    ("net.answers", "net.masked", "net.order"),
    ("net.dns_cares", "net.dns_threads"),
    ("net.resolver",),
    ("net.resolve",),
    ("net.native",),
    ("net.transport",),
    ("net.binding", "net.receiving"),
    ("net.tls",),
    ("net.stream",),
    ("net.acceptor",),
    ("net.connect", "net.listener", "net.process"),
    ("net.packets", "net.peer"),
    ("net.endpoint",),
    ("net.datagram",),
    ("net",),
    ("",),  # the package itself: names of the layers below
    ("demo_peers", "report"),
    ("demo",),
    ("__main__",),
)
LAYER_OF = {module: rank for rank, row in enumerate(LAYERS) for module in row}

LINES_MAX = 600
CONTRACT_LINES_MAX = 60

# Keywords of every watcher and factory, told once, at Timer.
COMMON_OPTIONS = {"data", "priority", "ref", "start"}


def module_name(path):
    """The name of the module in a file, without that of the package: "loop", "watchers.io", "" for the package."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def relative(path):
    return str(path.relative_to(PACKAGE.parent if path.is_relative_to(PACKAGE) else ROOT))


def sources():
    """Every file of the project that somebody writes and reads."""
    kinds = {".py", ".pyx", ".pxd", ".pyi", ".h", ".c", ".sh"}
    found = [path for path in PACKAGE.rglob("*") if path.suffix in kinds]
    for folder in ("tests", "examples", "benchmarks", "tools"):
        found += [path for path in (ROOT / folder).rglob("*") if path.suffix in kinds]
    # What Cython made is not written by anybody.
    return sorted(path for path in found if not (path.suffix == ".c" and path.with_suffix(".pyx").exists()))


def code_of_c(text):
    """C without comments, string contents and preprocessor lines."""
    text = re.sub(r"/\*.*?\*/|//[^\n]*", " ", text, flags=re.DOTALL)
    text = re.sub(r'"(\\.|[^"\\])*"', '""', text)
    return re.sub(r"^[ \t]*#([^\n]*\\\n)*[^\n]*", "", text, flags=re.MULTILINE)


def statements_of_file_scope(text):
    """The declarations and definitions of a C file, each without what stands in its braces."""
    statements, current, depth = [], "", 0
    for character in code_of_c(text):
        if character == "{":
            depth += 1
            current += "{" if depth == 1 else ""
        elif character == "}":
            depth -= 1
            current += "}" if depth == 0 else ""
            # The body of a function ends it; a struct, an enum and an initializer go on to the semicolon.
            if depth == 0 and re.search(r"\)\s*\{\}$", current):
                statements.append(current.strip())
                current = ""
        elif depth == 0:
            if character == ";":
                statements.append(current.strip())
                current = ""
            else:
                current += character
    assert not current.strip(), current
    return statements


def imported_modules(path):
    """The modules of the package that a file imports or cimports, at its top or anywhere within."""
    name = module_name(path)
    package = name if path.stem == "__init__" else name.rpartition(".")[0]
    for line in path.read_text().splitlines():
        match = re.match(r"\s*(?:from\s+(\S+)\s+c?import\s+(.*)|c?import\s+(.+))", line)
        if not match:
            continue
        if match[1] is None:
            found = [part.split()[0] for part in match[3].split(",")]
        elif match[1].startswith("."):
            up = len(match[1]) - len(match[1].lstrip("."))
            base = [part for part in package.split(".") if part]
            base = base[: len(base) - (up - 1)]
            target = ".".join([*base, *filter(None, [match[1].lstrip(".")])])
            found = names_or_module(f"linux_event.{target}".rstrip("."), match[2])
        else:
            found = names_or_module(match[1], match[2])
        for target in found:
            if target == "linux_event" or target.startswith("linux_event."):
                yield target.removeprefix("linux_event").removeprefix(".")


def names_or_module(module, names):
    """`from module import names`: the modules among the names, else the module itself."""
    short = module.removeprefix("linux_event").removeprefix(".")
    parts = [part.split()[0] for part in names.strip("() ").split(",") if part.strip() and part.strip() != "\\"]
    inner = [f"{module}.{part}" for part in parts if ".".join(filter(None, [short, part])) in LAYER_OF]
    return inner if len(inner) == len(parts) and parts else [*inner, module]


def modules():
    return [
        linux_event,
        *(module for module in import_everything() if not module.__name__.startswith("linux_event.demo")),
    ]


def functions_and_classes():
    """(name, object) of what the modules define under public names, not of what they import."""
    kinds = (type, types.FunctionType, types.BuiltinFunctionType)
    for module in modules():
        for name, value in vars(module).items():
            if not name.startswith("_") and isinstance(value, kinds) and value.__module__ == module.__name__:
                yield f"{module.__name__}.{name}", value


def contract():
    """(name, object) of everything that users are told of: the names of the package and their members."""
    for name in linux_event.__all__:
        value = getattr(linux_event, name)
        if isinstance(value, (type, types.FunctionType)):
            yield name, value
        if isinstance(value, type) and not issubclass(value, (BaseException, tuple, int)):
            for member in dir(value):
                inner = inspect.getattr_static(value, member)
                if not member.startswith("_") and (callable(inner) or inspect.isdatadescriptor(inner)):
                    yield f"{name}.{member}", inner


def test_every_module_stands_in_the_layers():
    modules = {module_name(path) for path in [*EXTENSIONS, *DECLARATIONS, *PYTHON]}
    assert modules == set(LAYER_OF)


@pytest.mark.parametrize("path", [*EXTENSIONS, *DECLARATIONS, *PYTHON], ids=relative)
def test_imports_only_from_lower_layers(path):
    own = module_name(path)
    for target in imported_modules(path):
        # A module reads its own declarations; __main__ and demos are programs.
        if target != own:
            assert target in LAYER_OF, f"{relative(path)} imports {target}, which has no layer"
            assert LAYER_OF[target] < LAYER_OF[own], f"{relative(path)} imports {target}, which is not below it"


def test_imports_are_seen():
    # The test above is worth what its reading of import lines is worth.
    assert {"arguments", "core", "requests"} <= set(imported_modules(PACKAGE / "loop.pyx"))
    assert set(imported_modules(PACKAGE / "watcher.pxd")) == {"core", "engine"}
    assert {"events", "loop", "watchers.io"} <= set(imported_modules(PACKAGE / "__init__.py"))


def test_only_the_ring_links_liburing():
    linked = []
    for path in EXTENSIONS:
        module = importlib.import_module("linux_event." + module_name(path))
        if b"liburing.so" in Path(module.__file__).read_bytes():
            linked.append(module.__name__)
    assert linked == ["linux_event.ring"]


@pytest.mark.parametrize("path", EXTENSIONS, ids=relative)
def test_an_extension_has_a_contract_and_a_stub(path):
    contract = path.with_suffix(".pxd")
    assert contract.exists()
    assert path.with_suffix(".pyi").exists()
    lines = len(contract.read_text().splitlines())
    assert lines <= CONTRACT_LINES_MAX


def test_python_modules_have_stubs_or_annotations():
    for path in PYTHON:
        if path.with_suffix(".pyi").exists() or len(ast.parse(path.read_text()).body) <= 1:
            continue
        # Programs and what only the package itself uses are not for import.
        internal = {"__main__", "demo", "demo_peers", "diagnosis", "interrupts", "report"}
        internal |= {"net.answers", "net.dns_cares", "net.dns_threads", "net.masked", "net.order", "net.resolver"}
        assert module_name(path) in internal, f"{relative(path)} has no stub"


@pytest.mark.parametrize("path", sources(), ids=relative)
def test_a_file_is_short_enough_and_clean(path):
    text = path.read_text()
    lines = text.splitlines()
    count = len(lines)
    assert count <= LINES_MAX
    ends_well = text == "" or (text.endswith("\n") and not text.endswith("\n\n"))
    assert ends_well, "the end of the file is not one newline"
    for number, line in enumerate(lines, 1):
        where = f"{relative(path)}:{number}"
        assert "\t" not in line, f"{where}: a tab"
        assert line == line.rstrip(), f"{where}: spaces at the end"
        if path != Path(__file__).resolve():
            assert not re.search(r"\b(TODO|FIXME|XXX|HACK|WIP)\b", line), f"{where}: left over"
            # A path that exists on one machine only.
            assert not re.search(r"(?<![\w.{}-])/(home|root|work|Users|mnt)/", line), f"{where}: path of a machine"


@pytest.mark.parametrize("path", [*EXTENSIONS, *PYTHON], ids=relative)
def test_no_debugging_is_left(path):
    text = path.read_text()
    assert not re.search(r"\b(breakpoint|set_trace)\s*\(|\bprintf\s*\(", text)
    assert not re.search(r"except(\s+Exception)?:\s*(#[^\n]*)?\n?\s*pass\b", text), "an exception is swallowed"
    if path.stem not in {"__main__", "demo", "demo_peers", "report"}:
        assert not re.search(r"^\s*print\s*\(", text, re.MULTILINE)


@pytest.mark.parametrize("path", EXTENSIONS, ids=relative)
def test_no_function_returns_out_of_an_except_clause(path):
    """There Cython drops a reference to the traceback, which is null where there was no memory for one."""
    clauses = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        indent = len(line) - len(line.lstrip())
        if not line.strip():
            continue
        while clauses and indent <= clauses[-1]:
            clauses.pop()
        assert not (clauses and re.match(r"\s*return\b", line)), (
            f"{relative(path)}:{number}: return in an except clause"
        )
        if re.match(r"\s*except\b.*:\s*(#.*)?$", line):
            clauses.append(indent)


@pytest.mark.parametrize("path", HEADERS, ids=relative)
def test_a_header_is_of_c_alone(path):
    text = path.read_text()
    assert not re.search(r'#\s*include\s*[<"](Python|cpython/)', text)
    assert not re.search(r"\bPy(Object|Err|Mem|_)\w*", code_of_c(text))
    guard = path.name.upper().replace(".", "_")
    assert re.search(rf"^#ifndef {guard}\n#define {guard}$", text, re.MULTILINE), "no include guard"


@pytest.mark.parametrize("path", HEADERS, ids=relative)
def test_a_header_has_no_static_data(path):
    # Each extension includes it, so each would have data of its own.
    for statement in statements_of_file_scope(path.read_text()):
        if statement.startswith("extern "):
            pytest.fail(f"data or functions from elsewhere: {statement}")
        is_type = re.match(r"(typedef\b|struct\s+\w+\s*(\{\})?$|union\s+\w+\s*(\{\})?$|enum\b[^=()]*$)", statement)
        is_assertion = statement.startswith("_Static_assert")
        is_function = re.match(r"static inline\b[^=]*\)\s*\{\}$", statement)
        assert is_type or is_assertion or is_function, f"neither a type nor a static inline function: {statement}"


@pytest.mark.parametrize("path", HEADERS, ids=relative)
def test_the_layout_of_a_shared_struct_is_asserted(path):
    code = code_of_c(path.read_text())
    asserted = " ".join(re.findall(r"_Static_assert\s*\((.*?)\)\s*;", code, flags=re.DOTALL))
    for struct in re.findall(r"^struct\s+(\w+)\s*\{", code, flags=re.MULTILINE):
        assert re.search(rf"\bstruct {struct}\b", asserted), f"no _Static_assert about struct {struct}"


def test_static_data_would_be_seen():
    text = """
    struct a { int x; };
    _Static_assert(sizeof(struct a) == 4, "a");
    static inline int f(int x) { static const int y = 1; return x + y; }
    static const int table[] = { 1, 2 };
    int global;
    """
    statements = statements_of_file_scope(text)
    assert statements[0] == "struct a {}"
    assert statements[2].startswith("static inline int f")
    assert statements[3] == "static const int table[] = {}"
    assert statements[4] == "int global"


def has_docstring(value):
    return bool((getattr(value, "__doc__", None) or "").strip())


def test_every_public_name_is_documented():
    things = [*contract(), *functions_and_classes(), *((module.__name__, module) for module in modules())]
    assert [name for name, value in things if not has_docstring(value)] == []
    names = {name for name, _ in things}
    assert {"Loop.run", "Loop.timer", "IOWatcher.poll", "Idle.priority", "linux_event.ring", "get_include"} <= names


def test_every_argument_is_documented():
    """inspect.signature works on everything that can be called, and the docstring names each argument."""
    unnamed = []
    for name, value in contract():
        if inspect.isdatadescriptor(value):
            continue
        # Exceptions, records and operations are made by the package alone, and the base of watchers by nobody.
        made = (
            linux_event.Operation,
            linux_event.Stream,
            linux_event.Listener,
            linux_event.Datagram,
            linux_event.Process,
        )
        if value in (linux_event.Watcher, *made):
            continue
        if isinstance(value, type) and issubclass(value, (BaseException, tuple, int)):
            continue
        text = inspect.getdoc(value)
        for parameter in inspect.signature(value).parameters.values():
            if parameter.name not in {"self", *COMMON_OPTIONS} and not re.search(rf"\b{parameter.name}\b", text):
                unnamed.append(f"{name}({parameter.name})")
    assert unnamed == []


def test_the_public_names_are_those_of_the_contract():
    assert set(linux_event.__all__) == {
        "BufferPool",
        "Child",
        "Datagram",
        "DestroyedError",
        "Events",
        "IOWatcher",
        "Idle",
        "Listener",
        "Loop",
        "LoopClosedError",
        "MountWatcher",
        "Operation",
        "PathWatcher",
        "Periodic",
        "Process",
        "Ring",
        "Signal",
        "Statistics",
        "Stream",
        "Timer",
        "UringUnavailableError",
        "Wakeup",
        "Watcher",
        "WrongThreadError",
        "__version__",
        "get_include",
    }
    for name in linux_event.__all__:
        assert hasattr(linux_event, name)


def test_importing_the_package_loads_no_other_library():
    # asyncio and friends cost more than everything here together.
    program = "import sys; before = set(sys.modules); import linux_event; print(*set(sys.modules) - before)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    for name in ("asyncio", "subprocess", "socket", "inspect", "typing", "dataclasses", "ctypes", "threading"):
        assert name not in loaded


def test_the_include_folder_is_installed():
    assert Path(linux_event.get_include()).resolve() == PACKAGE / "include"
    assert (PACKAGE / "include" / "le_loop.h").exists()
    assert (PACKAGE / "py.typed").exists()


def test_the_version_is_said_once():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert linux_event.__version__ == project["project"]["version"]


def test_tests_prove_something():
    """No test sleeps to be right, none is switched off, and each says what has to hold."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            where = f"{relative(path)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Assert) and isinstance(node.test, ast.Constant):
                pytest.fail(f"{where}: an assertion that cannot fail")
            if isinstance(node, ast.Attribute) and node.attr in {"xfail", "skip"}:
                value = node.value
                if isinstance(value, ast.Attribute) and value.attr == "mark":
                    pytest.fail(f"{where}: a test is switched off")
