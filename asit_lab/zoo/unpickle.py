"""Reads foreign checkpoints (.pt, .pth, .safetensors) without running anything in them.

A .pt file is a zip archive of one pickle (data.pkl) and the raw bytes of every storage (data/0, data/1, ...). A pickle
is a program that may call any importable function. Here it reaches only the functions in `_REBUILD`, which make
tensors, parameters and containers; every other global becomes an inert `Placeholder` that records how it was used.

Why not torch.load: with weights_only=True it refuses files with any other global, such as the argparse settings that
released checkpoints carry; with a restricted pickle_module it still runs TorchScript archives, ignores checksums, and
trusts the storage sizes in the pickle, so that a tensor can read memory outside the file.

Formats: torch.save since 1.6 (zip) and safetensors. The layout of the archive: torch.serialization and torch._utils.
"""

import io
import pickle
import pickletools
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from reprlib import recursive_repr
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError

# The first bytes of what torch.save wrote before 1.6: a protocol 2 pickle of the number 0x1950a86a20f9469cfc6c.
_LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"


class _PlaceholderType(type):
    """The class of placeholder classes. They are immutable: a pickle may try to set attributes on any object it has."""

    def __setattr__(cls, name, value):
        raise AttributeError(f"{cls!r} is read-only")

    def __repr__(cls):
        return f"<placeholder {cls.module}.{cls.name}>"


class Placeholder(metaclass=_PlaceholderType):
    """Stands for an object of a foreign class: what the file says about it, and no behaviour.

    module, name: the global in the file, such as "argparse" and "Namespace".
    args, kwargs: what it was called with.
    state: its attributes, a dict for most classes ({"lr": 0.1} for argparse.Namespace(lr=0.1)); None if it has none.
    sequence, mapping: items appended or added, and items assigned by key.
    """

    module = ""
    name = ""

    def __new__(cls, *args, **kwargs):
        rebuild = _REBUILD.get(f"{cls.module}.{cls.name}")
        if rebuild is not None:
            return rebuild(*args, **kwargs)
        self = super().__new__(cls)
        self.args, self.kwargs = args, kwargs
        self.state, self.sequence, self.mapping = None, [], {}
        return self

    def __init__(self, *args, **kwargs):
        pass

    # The unpickler looks these four up: BUILD, APPEND(S), ADDITEMS, SETITEM(S).

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
        texts = {key: repr(getattr(self, key)) for key in ("args", "kwargs", "state", "sequence", "mapping")}
        nonempty = "".join(f" {key}={text}" for key, text in texts.items() if text not in ("()", "{}", "None", "[]"))
        return f"<placeholder {self.module}.{self.name}{nonempty}>"


# --- The functions that a pickle may call ---------------------------------------------------------------------------


class _StateDict(OrderedDict):
    """An ordered dict whose only attribute from a file is `_metadata`, the versions in Module.state_dict."""

    def __setstate__(self, state):
        if isinstance(state, dict) and "_metadata" in state:
            self._metadata = state["_metadata"]


def _bytes(text: str | bytes = b"", encoding: str = "latin-1") -> bytes:
    """Bytes as old pickle protocols write them, a text in Latin-1. A bare size, which would allocate, is refused."""
    if isinstance(text, str) and encoding in ("latin1", "latin-1"):
        text = text.encode("latin-1")
    if not isinstance(text, bytes):
        raise ValueError(f"bytes made of {text!r:.80}, {encoding!r}")
    return text


def _rebuild_tensor(storage, offset, size, stride, requires_grad=False, _hooks=None, metadata=None) -> Tensor:
    """torch._utils._rebuild_tensor_v2 on a storage read by `_Unpickler.persistent_load`.

    torch itself checks that sizes and strides stay within a storage that cannot grow, except for empty tensors.
    """
    if len(size) != len(stride):
        raise ValueError(f"a tensor with sizes {size} and strides {stride}")
    if not 0 <= offset <= storage.numel():
        raise ValueError(f"a tensor's offset is {offset}, its storage has {storage.numel()} elements")
    tensor = storage.as_strided(size, stride, offset)
    metadata = metadata or {}
    if metadata.get("conj"):
        tensor = tensor.conj()
    if metadata.get("neg"):
        tensor = torch._neg_view(tensor)
    return tensor.requires_grad_() if requires_grad is True else tensor


def _rebuild_tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype, metadata=None) -> Tensor:
    """The same for dtypes without a storage class of their own: uint16, float8, ..."""
    return _rebuild_tensor(storage.view(dtype), offset, size, stride, requires_grad, hooks, metadata)


def _rebuild_parameter(data, requires_grad, _hooks=None, _state=None) -> torch.nn.Parameter:
    if not isinstance(data, Tensor):
        raise ValueError(f"a parameter made of {data!r:.80}")
    return torch.nn.Parameter(data, bool(requires_grad))


_REBUILD: dict[str, Callable] = {
    "builtins.set": set,
    "builtins.frozenset": frozenset,
    "builtins.complex": complex,
    "builtins.bytes": _bytes,
    "builtins.bytearray": lambda *args: bytearray(_bytes(*args)),
    "_codecs.encode": _bytes,
    "collections.OrderedDict": _StateDict,
    "collections.defaultdict": lambda _factory=None, *items: dict(*items),
    "torch.Size": torch.Size,
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v3": _rebuild_tensor_v3,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
    # A tensor with attributes, or of a subclass: the plain tensor.
    "torch._tensor._rebuild_from_type_v2": lambda rebuild, _type, args, _state: rebuild(*args),
}
_DTYPES = {str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)}
_STORAGES = {  # all but those of quantised tensors, whose elements have no values without a scale
    f"torch.{name}": kind._dtype
    for name, kind in vars(torch).items()
    if isinstance(getattr(kind, "_dtype", None), torch.dtype) and not name.startswith("Q")
}
_STORAGES["torch.storage.UntypedStorage"] = torch.uint8


class _Unpickler(pickle.Unpickler):
    """Looks every global up here, never by import, and reads storages out of the archive."""

    def __init__(self, data: bytes, archive: zipfile.ZipFile, root: str):
        super().__init__(io.BytesIO(data), encoding="latin-1")  # never fails on the byte strings of Python 2
        self._archive, self._root = archive, root
        self._globals: dict[tuple[str, str], Any] = {}
        self._storages: dict[str, Tensor] = {}  # key -> uint8 [bytes]; views of one storage share it

    def find_class(self, module: str, name: str) -> Any:
        module = "builtins" if module == "__builtin__" else module  # Python 2's name
        if f"{module}.{name}" in _DTYPES:
            return _DTYPES[f"{module}.{name}"]
        if (module, name) not in self._globals:
            placeholder = _PlaceholderType("Placeholder", (Placeholder,), {"module": module, "name": name})
            self._globals[module, name] = placeholder
        return self._globals[module, name]

    def persistent_load(self, pid: Any) -> Tensor:
        """A storage as a flat tensor of its dtype, after checking that the archive holds every byte of it."""
        if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage"):
            raise pickle.UnpicklingError(f"persistent id {pid!r:.80} is not a storage")
        _, kind, key, _, count, *_ = pid
        dtype = _STORAGES.get(f"{kind.module}.{kind.name}")
        if dtype is None:
            raise ValueError(f"storage {key} has the type {kind.module}.{kind.name}")
        raw = self._read(str(key))
        if not 0 <= count * dtype.itemsize <= raw.numel():
            raise ValueError(f"storage {key} has {raw.numel()} bytes, too few for {count} elements of {dtype}")
        return raw[: count * dtype.itemsize].view(dtype)

    def _read(self, key: str) -> Tensor:
        if key not in self._storages:
            try:
                data = bytearray(self._archive.read(f"{self._root}data/{key}"))  # its own memory, aligned and writable
            except KeyError:
                raise ValueError(f"storage {key} is missing from the archive") from None
            # A tensor over a buffer: torch refuses to grow its storage, whatever shape a file requests.
            self._storages[key] = torch.frombuffer(data or bytearray(1), dtype=torch.uint8)[: len(data)]
        return self._storages[key]


def _check_opcodes(data: bytes) -> None:
    """Refuse what the unpickler would do without `find_class`, or allocate because a number in the file says so."""
    for opcode, argument, _ in pickletools.genops(data):  # raises ValueError when an argument is cut off
        if opcode.name.startswith("EXT"):  # objects registered in this process, without their name
            raise pickle.UnpicklingError("it uses the extension registry")
        if opcode.name.endswith("PUT") and int(argument) > len(data):
            raise pickle.UnpicklingError(f"memo entry {argument} in a pickle of {len(data)} bytes")


# --- What is called from outside ------------------------------------------------------------------------------------


def read_checkpoint(path: str | Path) -> Any:
    """What a .pt, .pth or .safetensors file holds; nothing in the file is executed.

    Returns tensors on the CPU in the containers they were saved in (dict, OrderedDict, list, tuple, set), plain
    values, and a `Placeholder` for everything else; a flat {name: tensor} dict for safetensors. Tensors that shared a
    storage share it again. The format follows from the content, not from the file's name.

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
    except Exception as error:  # a hostile or damaged pickle can raise anything
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
    return _Unpickler(data, archive, root).load()


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


def tensors(content: Any, prefix: str = "") -> dict[str, Tensor]:
    """Every tensor in a nested object under its dotted name: {"model": {"w": t}, "more": [t]} -> model.w, more.0.

    A pickled `nn.Module` (a placeholder) contributes its parameters and buffers under the names of its state dict;
    the state of other placeholders is not searched. Containers that hold themselves are followed once.
    """
    flat: dict[str, Tensor] = {}
    _collect(content, prefix, flat, set())
    return flat


def _collect(value: Any, name: str, flat: dict[str, Tensor], ancestors: set[int]) -> None:
    if isinstance(value, Tensor):
        flat[name] = value
        return
    if id(value) in ancestors:
        return
    children: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        children = list(value.items())
    elif isinstance(value, (list, tuple)):
        children = list(enumerate(value))
    elif isinstance(value, Placeholder) and isinstance(value.state, dict) and "_modules" in value.state:
        parts = [value.state.get(part) for part in ("_parameters", "_buffers", "_modules")]
        children = [child for part in parts if isinstance(part, dict) for child in part.items()]
    for key, child in children:
        _collect(child, f"{name}.{key}" if name else str(key), flat, ancestors | {id(value)})
