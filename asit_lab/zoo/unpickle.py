"""Reading foreign checkpoints without running anything that is in them.

A .pt file is a zip archive of one pickle (data.pkl) and the raw bytes of every storage (data/0, data/1, ...). A pickle
is a program that may call any importable function, so it is read in two passes:

1. The pickle machine runs with every global replaced by a `Placeholder` class that only writes down what was done to
   it (arguments, state, appended and assigned items). Nothing is imported and nothing foreign is called.
2. The graph that came out is walked, and the few placeholders that mean data (tensors, parameters, ordered dicts,
   sets, sizes, dtypes) are turned into the real thing by the code below, each tensor checked against the bytes its
   storage has. Every other placeholder stays what it is, readable but inert.

Formats: torch.save since 1.6 (zip) and safetensors. The layout of the archive: torch.serialization and torch._utils.
"""

import io
import pickle
import pickletools
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from reprlib import recursive_repr
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import InputError

# The first bytes of what torch.save wrote before 1.6: a protocol 2 pickle of the number 0x1950a86a20f9469cfc6c.
_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"


# --- Pass 1: a pickle machine in which nothing happens --------------------------------------------------------------


class _PlaceholderType(type):
    """The class of placeholder classes: a global that was named but not called looks like one of these."""

    def __setattr__(cls, name, value):
        raise AttributeError(f"{cls!r} does not change")

    def __repr__(cls):
        return f"<placeholder {cls.module}.{cls.name}>"


class Placeholder(metaclass=_PlaceholderType):
    """Stands for an object of a foreign class: what the file says about it, and no behaviour.

    module, name: the global the file named, such as "argparse" and "Namespace".
    args, kwargs: what it was called with.
    state: its attributes, a dict for most classes ({"lr": 0.1} for argparse.Namespace(lr=0.1)); None if it has none.
    sequence, mapping: items appended or added, and items assigned by key.
    """

    module = ""
    name = ""

    def __new__(cls, *args, **kwargs):
        self = super().__new__(cls)
        self.args, self.kwargs = args, kwargs
        self.state, self.sequence, self.mapping = None, [], {}
        return self

    def __init__(self, *args, **kwargs):
        pass

    # The pickle machine looks these four up: BUILD, APPEND(S), ADDITEMS, SETITEM(S).

    def __setstate__(self, state):
        slots = state[1] if isinstance(state, tuple) and len(state) == 2 else None
        if isinstance(slots, dict) and (state[0] is None or isinstance(state[0], dict)):
            state = {**(state[0] or {}), **slots}
        self.state = state

    def append(self, item):
        self.sequence.append(item)

    def extend(self, items):
        self.sequence.extend(items)

    add = append

    def __setitem__(self, key, value):
        self.mapping[key] = value

    @recursive_repr()
    def __repr__(self):
        said = {key: repr(getattr(self, key)) for key in ("args", "kwargs", "state", "sequence", "mapping")}
        shown = "".join(f" {key}={text}" for key, text in said.items() if text not in ("()", "{}", "None", "[]"))
        return f"<placeholder {self.module}.{self.name}{shown}>"


class _Storage(NamedTuple):
    """A persistent id of the file: the storage `key`, `count` elements of the type the global `kind` names."""

    kind: type
    key: str
    count: int


class _Machine(pickle.Unpickler):
    def __init__(self, data: bytes):
        super().__init__(io.BytesIO(data), encoding="latin-1")  # never fails on the byte strings of Python 2
        self._globals: dict[tuple[str, str], type] = {}

    def find_class(self, module: str, name: str) -> type:
        if (module, name) not in self._globals:
            made = _PlaceholderType("Placeholder", (Placeholder,), {"module": module, "name": name})
            self._globals[module, name] = made
        return self._globals[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage" and isinstance(pid[1], type)):
            raise pickle.UnpicklingError(f"persistent id {pid!r:.80} is not a storage")
        return _Storage(pid[1], str(pid[2]), _whole(pid[4], "number of elements"))


def _check_opcodes(data: bytes) -> None:
    """What the pickle machine would do before asking `find_class`, or allocate because a number in the file says so."""
    for opcode, argument, _ in pickletools.genops(data):  # raises ValueError when an argument is cut off
        if opcode.name.startswith("EXT"):  # objects registered in this process, without their name
            raise pickle.UnpicklingError("it uses the extension registry")
        if opcode.name.endswith("PUT") and int(argument) > len(data):
            raise pickle.UnpicklingError(f"memo entry {argument} in a pickle of {len(data)} bytes")


# --- Pass 2: placeholders that mean data ----------------------------------------------------------------------------


_STORAGE_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
    "UntypedStorage": torch.uint8,
}
_DTYPES = {str(value).removeprefix("torch."): value for value in vars(torch).values() if isinstance(value, torch.dtype)}


def _whole(value: Any, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{what} is {value!r:.80}, expected a whole number from 0")
    return value


class _Resolver:
    """Turns what the machine left into plain containers, tensors and the remaining placeholders."""

    def __init__(self, archive: zipfile.ZipFile, root: str):
        self._archive, self._root = archive, root
        self._bytes: dict[str, Tensor] = {}  # key -> uint8 [bytes]; views of one storage share it
        self._done: dict[int, tuple[Any, Any]] = {}  # id -> (object, result); holding the object keeps its id taken

    def __call__(self, found: Any) -> Any:
        if isinstance(found, (str, bytes, bytearray, int, float, complex, type(None))):
            return found
        if isinstance(found, type):
            return _DTYPES.get(found.name, found) if found.module == "torch" else found
        if id(found) not in self._done:
            result = self._resolve(found)
            self._done.setdefault(id(found), (found, result))
        return self._done[id(found)][1]

    def _resolve(self, found: Any) -> Any:
        if isinstance(found, _Storage):
            return self._elements(found)
        if isinstance(found, Placeholder):
            return self._placeholder(found)
        if isinstance(found, dict):
            return self._fill(found, {}, found)
        if isinstance(found, list):
            result: list = []
            self._done[id(found)] = (found, result)  # before its items: one of them may be the list itself
            result.extend(map(self, found))
            return result
        if isinstance(found, (tuple, set, frozenset)):
            return type(found)(map(self, found))
        raise ValueError(f"an object of type {type(found).__name__} where none belongs")

    def _fill(self, found: Any, result: dict, *sources: dict) -> dict:
        self._done[id(found)] = (found, result)
        for source in sources:
            result.update((self(key), self(value)) for key, value in source.items())
        return result

    def _placeholder(self, found: Placeholder) -> Any:
        """The one list of globals that mean data; `args` below are those of the functions in torch._utils."""
        args = found.args
        match f"{found.module}.{found.name}":
            case "collections.OrderedDict":
                result = self._fill(found, OrderedDict(), dict(*args), found.mapping)
                if isinstance(found.state, dict) and "_metadata" in found.state:  # versions, from Module.state_dict
                    result._metadata = self(found.state["_metadata"])
                return result
            case "collections.defaultdict":
                return self._fill(found, {}, dict(*args[1:]), found.mapping)
            case "builtins.set" | "__builtin__.set":
                return set(map(self, [*(args[0] if args else ()), *found.sequence]))
            case "builtins.frozenset" | "__builtin__.frozenset":
                return frozenset(map(self, args[0] if args else ()))
            case "builtins.bytearray" | "__builtin__.bytearray":
                return self._text(bytearray, *map(self, args))
            case "_codecs.encode":
                return self._text(bytes, *args)
            case "builtins.complex" | "__builtin__.complex":
                return complex(*map(float, args))
            case "torch.Size":
                return torch.Size(_whole(size, "a size") for size in args[0])
            case "torch._utils._rebuild_tensor":
                return self._tensor(*args)
            case "torch._utils._rebuild_tensor_v2":
                storage, offset, size, stride, requires_grad, _hooks, *metadata = args
                return self._tensor(storage, offset, size, stride, requires_grad, *metadata)
            case "torch._utils._rebuild_tensor_v3":  # dtypes without a typed storage: uint16, float8, ...
                storage, offset, size, stride, requires_grad, _hooks, dtype, *metadata = args
                return self._tensor(storage, offset, size, stride, requires_grad, *(metadata or [None]), dtype)
            case "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state":
                data = self(args[0])
                if not isinstance(data, Tensor):
                    raise ValueError(f"a parameter made of {data!r:.80}")
                return torch.nn.Parameter(data, bool(args[1]))
            case "torch._tensor._rebuild_from_type_v2":  # a tensor with attributes, or of a subclass: the tensor
                rebuild, _type, inner, _state = args
                return self(rebuild(*inner))  # `rebuild` is a placeholder class; calling it notes its arguments
        self._done[id(found)] = (found, found)
        for attribute in ("args", "kwargs", "state", "sequence", "mapping"):
            setattr(found, attribute, self(getattr(found, attribute)))
        return found

    @staticmethod
    def _text(kind: type, text: str | bytes = b"", encoding: str = "latin-1") -> bytes | bytearray:
        if isinstance(text, str) and encoding.replace("-", "").replace("_", "") == "latin1":
            text = text.encode("latin-1")
        if not isinstance(text, bytes):
            raise ValueError(f"bytes made of {text!r:.80}, {encoding!r}")
        return kind(text)

    def _tensor(self, storage, offset, size, stride, requires_grad=False, metadata=None, dtype=None) -> Tensor:
        """The view of a storage, after checking that the storage has every element of it."""
        if not isinstance(storage, _Storage):
            raise ValueError(f"a tensor made of {storage!r:.80}, expected a storage")
        elements = self._elements(storage, self(dtype))
        offset = _whole(offset, "a tensor's offset")
        size = [_whole(value, "a tensor's size") for value in size]
        stride = [_whole(value, "a tensor's stride") for value in stride]
        if len(size) != len(stride):
            raise ValueError(f"a tensor with sizes {size} and strides {stride}")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if 0 not in size and last >= elements.numel() or offset > elements.numel():
            raise ValueError(
                f"a tensor of size {size}, stride {stride}, offset {offset} reaches outside its storage "
                f"{storage.key} of {elements.numel()} elements"
            )
        tensor = elements.as_strided(size, stride, offset)
        metadata = self(metadata) or {}
        if metadata.get("conj"):
            tensor = tensor.conj()
        if metadata.get("neg"):
            tensor = torch._neg_view(tensor)
        return tensor.requires_grad_() if requires_grad is True else tensor

    def _elements(self, storage: _Storage, dtype: torch.dtype | None = None) -> Tensor:
        """A storage as a flat tensor; all views of a key share memory."""
        own = _STORAGE_DTYPES.get(storage.kind.name) if storage.kind.module.startswith("torch") else None
        if own is None:
            raise ValueError(f"storage {storage.key} has the type {storage.kind.module}.{storage.kind.name}")
        dtype = own if dtype is None else dtype
        raw = self._read(storage.key)
        if raw.numel() < storage.count * own.itemsize:
            raise ValueError(
                f"storage {storage.key} has {raw.numel()} bytes, {storage.count} elements of {own} need "
                f"{storage.count * own.itemsize}"
            )
        used = storage.count * own.itemsize // dtype.itemsize * dtype.itemsize
        return raw[:used].view(dtype)

    def _read(self, key: str) -> Tensor:
        if key not in self._bytes:
            try:
                entry = self._archive.getinfo(f"{self._root}data/{key}")
            except KeyError:
                raise ValueError(f"storage {key} is missing from the archive") from None
            data = bytearray(self._archive.read(entry))  # its own memory, aligned and writable
            self._bytes[key] = torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
        return self._bytes[key]


# --- What is called from outside ------------------------------------------------------------------------------------


def read_checkpoint(path: str | Path) -> Any:
    """What a .pt, .pth or .safetensors file holds; nothing in the file is executed.

    Returns tensors on the CPU in the containers they were saved in (dict, OrderedDict, list, tuple, set), plain
    values, and a `Placeholder` for everything else; a flat {name: tensor} dict for safetensors. Tensors that shared a
    storage share it again. The format is told from the content, not from the name.

    Raises InputError naming the file and what is wrong with it: missing, not a checkpoint, from torch before 1.6,
    truncated, or a tensor that reaches outside its storage.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: {'a folder, expected a checkpoint file' if path.is_dir() else 'no such file'}")
    with path.open("rb") as file:
        head = file.read(512)
    if head[8:9] == b"{":
        return _read_safetensors(path)
    if head[:2] != b"PK":
        raise InputError(f"{path}: {_what_is(head, path)}")
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_archive(archive)
    except zipfile.BadZipFile as error:
        raise InputError(f"{path}: truncated or damaged checkpoint ({error}); fetch it again") from error
    except Exception as error:  # a hostile or damaged pickle can make the machine raise anything
        raise InputError(f"{path}: not a readable checkpoint: {error or type(error).__name__}") from error


def _read_archive(archive: zipfile.ZipFile) -> Any:
    names = archive.namelist()
    pickles = [name for name in names if name == "data.pkl" or name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise ValueError(f"a zip archive with {len(pickles)} data.pkl, a torch checkpoint has one")
    root = pickles[0].removesuffix("data.pkl")
    order = archive.read(f"{root}byteorder").decode("latin-1") if f"{root}byteorder" in names else "little"
    if order != sys.byteorder:
        raise ValueError(f"its byte order is {order!r:.20}, this machine's is {sys.byteorder!r}; save it again here")
    data = archive.read(pickles[0])
    _check_opcodes(data)
    return _Resolver(archive, root)(_Machine(data).load())


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, ValueError, KeyError) as error:
        raise InputError(f"{path}: not a readable safetensors file: {error}") from error


def _what_is(head: bytes, path: Path) -> str:
    """What a file that is neither zip nor safetensors probably is, from its first 512 bytes, and what to do."""
    expected = "expected a torch checkpoint (zip) or safetensors"
    if not head:
        return f"empty file, {expected}"
    if head.startswith(_LEGACY_MAGIC) or head[257:262] == b"ustar":
        return (
            "written by torch before 1.6 or with _use_new_zipfile_serialization=False; "
            "where you trust it, save it again with torch.save(torch.load(...))"
        )
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the checkpoint itself; run `git lfs pull`"
    if head.lstrip()[:1] == b"<":
        return f"an HTML or XML page (a failed download?), {expected}"
    if head[:1] == b"\x80":
        return f"a plain pickle, {expected}"
    if path.suffix == ".safetensors":
        return "not a safetensors file (its header is damaged)"
    return f"unknown format, {expected}"


def tensors(found: Any, prefix: str = "") -> dict[str, Tensor]:
    """Every tensor in a nested object under its dotted name: {"model": {"w": t}, "more": [t]} -> model.w, more.0.

    A pickled `nn.Module` (a placeholder) contributes its parameters and buffers under the names of its state dict;
    the state of other placeholders is not searched. Containers that hold themselves are followed once.
    """
    flat: dict[str, Tensor] = {}
    _collect(found, prefix, flat, set())
    return flat


def _collect(found: Any, name: str, flat: dict[str, Tensor], above: set[int]) -> None:
    if isinstance(found, Tensor):
        flat[name] = found
        return
    if id(found) in above:
        return
    children: list[tuple[Any, Any]] = []
    if isinstance(found, dict):
        children = list(found.items())
    elif isinstance(found, (list, tuple)):
        children = list(enumerate(found))
    elif isinstance(found, Placeholder) and isinstance(found.state, dict) and "_modules" in found.state:
        parts = [found.state.get(part) for part in ("_parameters", "_buffers", "_modules")]
        children = [child for part in parts if isinstance(part, dict) for child in part.items()]
    for key, child in children:
        _collect(child, f"{name}.{key}" if name else str(key), flat, above | {id(found)})
