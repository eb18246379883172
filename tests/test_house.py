"""The house rules that a machine can hold: floors, light imports, and a public surface that is what it says."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mobilenet_hub

PACKAGE = Path(mobilenet_hub.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
HEAVY = {
    "keras",
    "tensorflow",
    "torch",
    "jax",
    "openvino",
    "pyarrow",
    "h5py",
    "onnx",
    "onnxruntime",
    "tqdm",
    "PIL",
    "cykooz_resizer",
    "ai_edge_litert",
    "flatbuffers",
}


def room(module: str) -> str:
    return module.removeprefix("mobilenet_hub").lstrip(".").split(".")[0]


def reading_order() -> list[str]:
    """Return the rooms of the house from the ground up, as CONTRIBUTING.md's table has them."""
    text = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| [^|]+ \| ((?:`[^`]+` ?)+)\|", text, re.MULTILINE)
    return [name.rstrip("/") for row in rows for name in re.findall("`([^`]+)`", row)]


ORDER = reading_order()


def imports(file: Path, *, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if node.module == "mobilenet_hub":
                found.update(f"mobilenet_hub.{alias.name}" for alias in node.names)
    return found


def inner_imports(file: Path) -> set[str]:
    rooms = {room(name) for name in imports(file) if name.startswith("mobilenet_hub.")}
    return rooms - {""} - {"__version__"}


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_go_one_way(file):
    own = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own == "__init__":
        return
    assert own in ORDER, f"{own} stands on no floor of the house: give it a place in CONTRIBUTING.md"
    above = {name for name in inner_imports(file) if name != own and ORDER.index(name) >= ORDER.index(own)}
    assert not above, f"{own} imports from above it: {sorted(above)}"


def test_the_map_shows_what_is_there():
    there = {file.relative_to(PACKAGE).parts[0].removesuffix(".py") for file in FILES} - {"__init__"}
    assert sorted(ORDER) == sorted(there)


def test_nothing_heavy_comes_with_the_package_or_the_help():
    code = (
        "import sys, mobilenet_hub, mobilenet_hub.cli.main as m\n"
        "try: m.main(['--help'])\n"
        "except SystemExit: pass\n"
        f"print(sorted(set(sys.modules) & {HEAVY | {'numpy'}!r}), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_a_local_run_brings_nothing_that_speaks_to_object_stores():
    code = (
        "import sys, mobilenet_hub.cli.bulk_run, mobilenet_hub.inference.classify, mobilenet_hub.bulk.manifest\n"
        "print(*(f'mobilenet_hub.{name}' in sys.modules for name in sys.argv[1:]))"
    )
    names = ["host.object_path", "host.s3", "host.lease", "images.in_store", "images.ranges"]
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"] * len(names)
    assert all((PACKAGE / f"{name.replace('.', '/')}.py").exists() for name in names)


def test_every_public_name_is_there():
    import mobilenet_hub.errors

    of_errors = {name for name, value in vars(mobilenet_hub.errors).items() if isinstance(value, type)}
    assert of_errors <= set(mobilenet_hub.__all__)
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    typed = next(node for node in tree.body if isinstance(node, ast.If))  # if TYPE_CHECKING
    told = {(alias.asname, node.module) for node in typed.body for alias in node.names if alias.asname == alias.name}
    assert told == {(name, f"mobilenet_hub.{owner}") for name, owner in mobilenet_hub._OWNERS.items()}
    assert "__version__" in mobilenet_hub.__all__
    with pytest.raises(AttributeError, match="no_such_name"):
        mobilenet_hub.no_such_name  # noqa: B018
    for name, owner in mobilenet_hub._OWNERS.items():
        file = PACKAGE / Path(*owner.split("."))
        source = file.with_suffix(".py") if file.with_suffix(".py").exists() else file / "__init__.py"
        tree = ast.parse(source.read_text(encoding="utf-8"))
        named = {getattr(node, "name", None) for node in tree.body}
        named |= {
            alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
        }
        named |= {
            t.id for node in tree.body if isinstance(node, ast.Assign) for t in node.targets if isinstance(t, ast.Name)
        }
        assert name in named, f"{owner} does not define {name}"


def test_a_size_and_a_fit_travel_as_one_value():
    """`Preprocessing` holds the two, checked once; apart they stand where a caller gives them, and no further."""
    found = [
        f"{file.relative_to(PACKAGE)}: {node.name}"
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and {"image_size", "fit"} & {a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)}
    ]
    assert len(found) <= 15, "\n".join(found)


def functions(file: Path):
    """Yield (name with its class, its positional parameters, its keyword-only ones) of every function of a file."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for owner in ast.walk(tree):
        for node in ast.iter_child_nodes(owner):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                name = f"{owner.name}.{node.name}" if isinstance(owner, ast.ClassDef) else node.name
                given = [arg.arg for arg in node.args.posonlyargs + node.args.args if arg.arg not in ("self", "cls")]
                yield name, given, [arg.arg for arg in node.args.kwonlyargs]


# Public verbs, whose keyword-only options are what the command line's are: many, and each with its default.
VERBS = {"train", "evaluate", "convert", "export", "dedupe", "check"}
# Another library's signature, which is ours to keep.
GIVEN = {"KerasLayer.__init__"}


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_a_file_has_at_most_400_lines_and_a_function_8_parameters(file):
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 400
    for name, positional, keyword_only in functions(file):
        counted = positional if name in VERBS else positional + keyword_only
        assert len(counted) <= 8 or name in GIVEN, f"{name} takes {len(counted)} parameters: {', '.join(counted)}"


def test_there_are_at_most_24_rooms():
    """Folders of the package and beside it, with the files of the top level, each a room or part of one floor."""
    rooms = {file.relative_to(PACKAGE).parts[0] for file in FILES if len(file.relative_to(PACKAGE).parts) > 1}
    rooms |= {"weights/tensorflow", "top level", "recipes", "benchmarks"}
    assert len(rooms) <= 24, sorted(rooms)
