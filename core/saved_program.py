"""What a saved `torch.export` program (`.pt2`) holds, read without torch and without running anything of it.

`torch.export.load` is no reader of data. That of torch 2.13 unpickles weights, constants and example inputs which ask
for it, evaluates the expressions of symbolic sizes as Python (`sympy.sympify`), makes Python code of names and guards,
and loads compiled libraries. So a program is read here first. It passes when it holds nothing but what
`torch.export.save` writes of plain tensors and torch's own operators; what else there is gets named, and only who
trusts its maker has torch read it. For child processes: the file may be anything.
"""

from __future__ import annotations

import ast
import json
import os
import pickletools
import re
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from modelwright.core.errors import BadInputError

_JSON_BYTES = 2**28
_PICKLE_BYTES = 2**20
"""Of the outline of some example inputs; their values lie in files of their own."""
_END = struct.Struct("<4s4H2LH")
"""Of an archive (APPNOTE.TXT, 4.3.16): signature, disks, entries, the listing's size and place, length of a comment."""
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_LISTED64 = 0xFFFFFFFF
_SHOWN_CHARACTERS = 80

_FILE = re.compile(
    r"archive_format|archive_version|byteorder|\.data/\w+|\.format_version|\.storage_alignment|extra/[\w.-]+"
    r"|models/model\.json|data/weights/(weight_\d+|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)|data/sample_inputs/model\.pt",
    re.ASCII,
)
_PICKLED_FILE = re.compile(
    r"data\.pkl|data/\d+|byteorder|version|\.data/\w+|\.format_version|\.storage_alignment", re.ASCII
)
_TENSOR_FILE = re.compile(r"(weight|tensor)_\d+", re.ASCII)
_PLAIN_GLOBAL = re.compile(
    r"torch\._utils _rebuild_(tensor_v2|parameter)|torch\._tensor _rebuild_from_type_v2|torch (Tensor|\w+Storage)"
    r"|torch\.storage (Untyped|Typed)Storage"
    r"|torch (Size|device)|torch\.serialization _get_layout|collections OrderedDict",
    re.ASCII,
)
_HIDDEN_GLOBALS = ("STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4")
"""Other ways of a pickle to name what it calls; torch's own files use none of them."""

_OPERATOR = re.compile(
    r"torch\.ops\.aten\.(?!(from_file|save)\.)([a-zA-Z]|_(?!_))\w*\.\w+"  # but for the two that write files
    r"|torch\.ops\.aten\.__i?(and|or|xor|lshift|rshift)__\.\w+"
    r"|torch\.ops\.(prims|quantized|quantized_decomposed|torchvision)\.[a-zA-Z]\w*\.\w+"
    r"|torch\.ops\.higher_order\.(cond|while_loop|scan|associative_scan|map_impl|invoke_subgraph|strict_mode|out_dtype"
    r"|flex_attention|wrap_with_set_grad_enabled|wrap_with_autocast)"
    r"|torch\._C\._set_grad_enabled|torch\.amp\.autocast_mode\._(enter|exit)_autocast|torch\._?sym_\w+"
    r"|_operator\.(add|sub|mul|truediv|floordiv|mod|pow|neg|pos|abs|eq|ne|lt|le|gt|ge|and_|or_|xor|not_|getitem)"
    r"|math\.[a-z][a-z0-9]*",
    re.ASCII,
)
_QUOTED = (
    "as_string", "as_strings", "custom", "from_node", "nn_module_stack", "source_fn_stack", "stack_trace", "torch_fn",
    "torch_version",
)  # fmt: skip
"""Keys of texts that torch keeps, or quotes in the code that it makes."""
_NAME = re.compile(r"[\w.]*", re.ASCII)
_KEY = re.compile(r"[\w.:/-]*", re.ASCII)
_TREE_KEY = re.compile(r"[\w.:/ -]*", re.ASCII)
_TREE_TYPES = ("builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict", None)
_SYMBOL = re.compile(r"[a-z]{1,4}\d{1,6}|oo|int_oo|true|false", re.ASCII)
_FUNCTIONS = (
    "Abs", "Add", "And", "CeilDiv", "CeilToInt", "CleanDiv", "Eq", "Equality", "Float", "FloatPow", "FloatTrueDiv",
    "FloorDiv", "FloorToInt", "Ge", "GreaterThan", "Gt", "Identity", "IntTrueDiv", "Integer",
    "IsNonOverlappingAndDenseIndicator", "LShift", "Le", "LessThan", "Lt", "Max", "Min", "Mod", "ModularIndexing",
    "Mul", "Ne", "Not", "Or", "Piecewise", "Pow", "PowByNatural", "PythonMod", "RShift", "Rational", "RoundDecimal",
    "RoundToInt", "StrictGreaterThan", "StrictLessThan", "Symbol", "ToFloat", "TruncToFloat", "TruncToInt",
    "Unequality", "Where", "ceiling", "floor",
)  # fmt: skip
"""Of sympy and of torch, in expressions of sizes."""
_GUARD_METHODS = ("size", "stride", "storage_offset")
_ARITHMETIC = (
    ast.Expression, ast.Load, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.operator, ast.unaryop, ast.boolop,
    ast.cmpop, ast.keyword,
)  # fmt: skip
_FAULTS = (
    AttributeError, EOFError, KeyError, NotImplementedError, OSError, RecursionError, RuntimeError, SyntaxError,
    TypeError, ValueError, struct.error, zipfile.BadZipFile,
)  # fmt: skip
"""What reading something else than a program raises here."""


def find_code(path: Path) -> list[str]:
    """Returns what in a saved program may run code when torch reads it, in words; nothing where it is plain data.

    Raises:
        BadInputError: It is damaged, or in a form of earlier versions of torch, which torch alone can read.
    """
    try:
        with path.open("rb") as file:
            _require_one_listing(file)
            with zipfile.ZipFile(file) as archive:
                return sorted(set(_inspect(archive)))
    except _FAULTS as error:
        raise BadInputError(
            f"{path} cannot be read as a saved torch.export program of plain data: {_show(error)}",
            hint="if you made it, save it again with the torch that is here: torch.export.save(program, path)",
        ) from error


def _require_one_listing(file: IO[bytes]) -> None:
    """Refuses an archive in which readers may find different listings.

    Python looks for the listing before the end record, others where that says: it has to lie there, right before it,
    and nothing may follow.
    """
    end = file.seek(0, os.SEEK_END) - _END.size
    signature, *_, size, place, comment = _unpack(_END, file, end)
    whole = signature == b"PK\x05\x06" and not comment
    signature, _, place64, _ = _unpack(_LOCATOR64, file, end - _LOCATOR64.size)
    if signature == b"PK\x06\x07":  # torch writes the large form always
        end -= _LOCATOR64.size + _END64.size
        signature, *_, size64, listing64 = _unpack(_END64, file, end)
        same = size in (size64, _LISTED64) and place in (listing64, _LISTED64)
        whole = whole and same and signature == b"PK\x06\x06" and place64 == end
        size, place = size64, listing64
    if not whole or place + size != end:
        raise zipfile.BadZipFile("it does not end as torch's archives do")
    file.seek(0)


def _unpack(record: struct.Struct, file: IO[bytes], place: int) -> tuple[Any, ...]:
    file.seek(place)
    return record.unpack(file.read(record.size))


def _inspect(archive: zipfile.ZipFile) -> Iterator[str]:
    members = _list_members(archive)
    yield from (f"the file {_show(name)}" for name in members if not _FILE.fullmatch(name))
    for name in ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json"):
        yield from _inspect_tensors(_read_json(archive, members[name]))
    yield from _inspect_program(_read_json(archive, members["models/model.json"]))
    examples = members["data/sample_inputs/model.pt"]
    if examples.file_size:
        with archive.open(examples) as file:
            _require_one_listing(file)
            with zipfile.ZipFile(file) as inner:
                yield from _inspect_pickle(inner)


def _list_members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Returns the files in the archive's one folder, by name; refuses names that readers take for different files."""
    members: dict[str, zipfile.ZipInfo] = {}
    folders, seen = set(), set()
    for member in archive.infolist():
        folder, _, name = member.filename.partition("/")
        if member.orig_filename != member.filename or not name or name.casefold() in seen:
            raise zipfile.BadZipFile(f"{_show(member.orig_filename)} is there twice or has no plain name")
        members[name] = member
        seen.add(name.casefold())
        folders.add(folder)
    if len(folders) != 1:
        raise zipfile.BadZipFile(f"it has {len(folders)} folders")
    return members


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, limit: int) -> bytes:
    with archive.open(member) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"{_show(member.filename)} is larger than {limit / 1e6:.0f} MB")
    return content


def _read_json(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Any:
    return json.loads(_read(archive, member, _JSON_BYTES), object_pairs_hook=_require_each_once)


def _require_each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key is there twice")
    return values


def _inspect_tensors(config: Any) -> Iterator[str]:
    for name, tensor in config["config"].items():
        if tensor["use_pickle"] is not False or not _TENSOR_FILE.fullmatch(tensor["path_name"]):
            yield f"the pickled tensor or object {_show(name)}"


def _inspect_pickle(archive: zipfile.ZipFile) -> Iterator[str]:
    members = _list_members(archive)
    yield from (
        f"the file {_show(name)} in the example inputs" for name in members if not _PICKLED_FILE.fullmatch(name)
    )
    for opcode, argument, _ in pickletools.genops(_read(archive, members["data.pkl"], _PICKLE_BYTES)):
        is_plain = opcode.name == "GLOBAL" and _PLAIN_GLOBAL.fullmatch(str(argument))
        if opcode.name in ("GLOBAL", *_HIDDEN_GLOBALS) and not is_plain:
            yield f"example inputs that are pickled with {_show(argument or opcode.name)}"


def _inspect_program(program: Any) -> Iterator[str]:
    """Looks at every text of the program, by the key that it stands under."""
    waiting: list[tuple[str, Any]] = [("", program)]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, dict):
            yield from (f"the key {_show(name)}" for name in value if not _KEY.fullmatch(name))
            waiting.extend(value.items())
        elif isinstance(value, list):
            waiting.extend((key, item) for item in value)
        elif isinstance(value, str) and not _is_plain(key, value):
            yield f"{key} {_show(value)}"


def _is_plain(key: str, text: str) -> bool:
    if key in ("target", "as_operator"):
        return bool(_OPERATOR.fullmatch(text))
    if key in ("expr_str", "guards_code"):
        # One line and no comment: sympy joins lines before it evaluates them.
        one_line = text.isprintable() and not set("#\\") & set(text)
        return one_line and (_is_expression(text) if key == "expr_str" else _is_guard(text))
    if key in ("in_spec", "out_spec"):
        tree = json.loads(text, object_pairs_hook=_require_each_once)[1] if text else None
        # Names of inputs become parameters of the code that torch makes.
        return tree is None or _is_tree(tree, _NAME if key == "in_spec" else _TREE_KEY)
    return key in _QUOTED or bool(_NAME.fullmatch(text))


def _is_expression(text: str) -> bool:
    """Whether a text is arithmetic on symbols: `Mul(Integer(2), Symbol('s0', positive=True))` or `2*s0`.

    The name of a symbol is the one text in it: other functions would evaluate theirs.
    """
    tree = ast.parse(text, mode="eval")
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    named = {id(node.args[0]) for node in calls if _is_name(node.func, "Symbol") and len(node.args) == 1}

    def fits(node: ast.AST) -> bool:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return id(node) in named and bool(_SYMBOL.fullmatch(node.value))
        if isinstance(node, ast.Name) and _SYMBOL.fullmatch(node.id):
            return True
        return _is_arithmetic(node)

    return all(map(fits, ast.walk(tree)))


def _is_guard(text: str) -> bool:
    """Whether a text compares sizes of inputs: `L['x'].size()[1] == 7`."""

    def fits(node: ast.AST) -> bool:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return bool(_NAME.fullmatch(node.value))
        if isinstance(node, ast.Attribute):
            return node.attr in _GUARD_METHODS
        return isinstance(node, ast.Subscript) or _is_name(node, "L") or _is_arithmetic(node)

    return all(map(fits, ast.walk(ast.parse(text, mode="eval"))))


def _is_arithmetic(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name | ast.Attribute)  # which are looked at for themselves
    if isinstance(node, ast.Constant):
        return node.value is None or isinstance(node.value, bool | int | float)
    return isinstance(node, _ARITHMETIC) or (isinstance(node, ast.Name) and node.id in _FUNCTIONS)


def _is_name(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _is_tree(tree: Any, names: re.Pattern[str]) -> bool:
    """Whether inputs or outputs are nested in Python's own containers only."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        keys = json.loads(node["context"]) if node["context"] else None
        plain = keys is None or all(isinstance(key, int) or names.fullmatch(key) for key in keys)
        if node["type"] not in _TREE_TYPES or not plain:
            return False
        waiting.extend(node["children_spec"])
    return True


def _show(value: object) -> str:
    text = str(value)
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}..."
