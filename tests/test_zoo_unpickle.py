"""Foreign checkpoints: the same tensors as torch.load gives, and nothing in the file is run."""

import argparse
import io
import os
import pickle
import zipfile
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from asit_lab.errors import InputError
from asit_lab.zoo.unpickle import Placeholder, read_checkpoint, tensors

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
    torch.complex64,
    torch.complex128,
    torch.uint16,
    torch.float8_e4m3fn,
]


def saved(tmp_path: Path, content) -> Path:
    path = tmp_path / "checkpoint.pt"
    torch.save(content, path)
    return path


def archive(tmp_path: Path, program: bytes, storages: dict[str, bytes] | None = None, byteorder=b"little") -> Path:
    """A checkpoint around a handwritten pickle."""
    path = tmp_path / "handmade.pt"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", program)
        file.writestr("archive/byteorder", byteorder)
        for key, data in (storages or {}).items():
            file.writestr(f"archive/data/{key}", data)
    return path


def tensor_program(offset: int, size: tuple, stride: tuple, count: int) -> bytes:
    """The pickle of one float32 tensor, with numbers torch.save would never write."""

    class Call:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, (Storage(), offset, size, stride, False, OrderedDict())

    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, found):
            return ("storage", torch.FloatStorage, "0", "cpu", count) if isinstance(found, Storage) else None

    stream = io.BytesIO()
    Pickler(stream, protocol=2).dump(Call())
    return stream.getvalue()


# --- The same as torch.load -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_comes_back(tmp_path, dtype):
    tensor = torch.tensor([0, 1, 2, 3, 1, 0]).to(dtype).view(2, 3)
    path = saved(tmp_path, {"x": tensor, "turned": tensor.t(), "none": tensor[:0]})
    found, expected = read_checkpoint(path), torch.load(path, weights_only=True)
    for name, tensor in expected.items():
        assert found[name].dtype == dtype
        assert found[name].shape == tensor.shape
        assert found[name].stride() == tensor.stride()
        assert found[name].tolist() == tensor.tolist()


def test_views_share_their_storage(tmp_path):
    base = torch.arange(24.0).view(4, 6)
    content = {"base": base, "row": base[2], "steps": base[::2, 1::2], "wide": torch.ones(1).expand(5)}
    found = read_checkpoint(saved(tmp_path, content))
    for name in content:
        assert torch.equal(found[name], content[name])
        assert found[name].stride() == content[name].stride()
        assert found[name].storage_offset() == content[name].storage_offset()
    found["base"][2, 3] = -1.0
    assert found["row"][3] == -1.0
    assert found["steps"][1, 1] == -1.0


def test_parameters_flags_and_conjugates(tmp_path):
    marked = torch.nn.Parameter(torch.ones(2))
    marked.note = "kept by torch as state"
    tensor = torch.ones(2)
    tensor.note = "makes torch write _rebuild_from_type_v2"
    complex_ = torch.tensor([1 + 2j])
    content = {
        "parameter": torch.nn.Parameter(torch.arange(3.0)),
        "frozen": torch.nn.Parameter(torch.arange(3), requires_grad=False),
        "marked": marked,
        "leaf": torch.ones(2, requires_grad=True),
        "noted": tensor,
        "conjugate": complex_.conj(),
        "negative": torch._neg_view(torch.arange(3.0)),
    }
    found = read_checkpoint(saved(tmp_path, content))
    for name in content:
        assert torch.equal(found[name].detach(), content[name].detach()), name
        assert found[name].requires_grad == content[name].requires_grad, name
    assert all(isinstance(found[name], torch.nn.Parameter) for name in ("parameter", "frozen", "marked"))
    assert found["conjugate"].is_conj() and found["negative"].is_neg()


def test_containers_and_plain_values(tmp_path):
    content = {
        "model": OrderedDict([("b", torch.ones(1)), ("a", [torch.zeros(2), (torch.ones(3), "text", None, True, 2.5)])]),
        "dtype": torch.bfloat16,
        "shape": torch.Size([2, 3]),
        "names": {"x", "y"},
        "frozen": frozenset([1, 2]),
        "bytes": b"\x00\xff",
        "array": bytearray(b"\x01\xfe"),
        "complex": 1 - 2j,
        "count": defaultdict(list, {"a": [1]}),
        7: "a key that is no text",
    }
    found = read_checkpoint(saved(tmp_path, content))
    assert list(found) == list(content)
    assert isinstance(found["model"], OrderedDict) and list(found["model"]) == ["b", "a"]
    assert torch.equal(found["model"]["a"][1][0], torch.ones(3))
    assert found["model"]["a"][1][1:] == ("text", None, True, 2.5)
    for name in ("dtype", "shape", "names", "frozen", "bytes", "array", "complex", "count", 7):
        assert found[name] == content[name], name
        if name != "count":
            assert type(found[name]) is type(content[name])


def test_a_training_checkpoint_with_namespace_and_optimizer(tmp_path):
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.AdamW(net.parameters())
    net(torch.randn(4, 3)).square().sum().backward()
    optimizer.step()
    args = argparse.Namespace(arch="vit_small", patch_size=16, betas=(0.9, 0.999), out=Path("x"), best=np.float64(0.5))
    content = {"student": net.state_dict(), "optimizer": optimizer.state_dict(), "args": args, "epoch": 3}
    found = read_checkpoint(saved(tmp_path, content))
    assert found["epoch"] == 3
    assert found["student"]._metadata == net.state_dict()._metadata
    assert torch.equal(found["optimizer"]["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])
    assert isinstance(found["args"], Placeholder)
    assert (found["args"].module, found["args"].name) == ("argparse", "Namespace")
    plain = {name: found["args"].state[name] for name in ("arch", "patch_size", "betas")}
    assert plain == {"arch": "vit_small", "patch_size": 16, "betas": (0.9, 0.999)}
    assert isinstance(found["args"].state["out"], Placeholder)
    assert "argparse.Namespace" in repr(found["args"]) and "vit_small" in repr(found["args"])
    flat = tensors(found["student"])
    assert list(flat) == ["0.weight", "0.bias", "1.weight", "1.bias"] + [
        "1.running_mean",
        "1.running_var",
        "1.num_batches_tracked",
    ]


def test_a_pickled_module_gives_its_state_dict(tmp_path):
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    found = read_checkpoint(saved(tmp_path, {"model": net}))
    assert isinstance(found["model"], Placeholder) and found["model"].name == "Sequential"
    flat = tensors(found["model"])
    assert set(flat) == set(net.state_dict())
    assert all(torch.equal(flat[name], tensor) for name, tensor in net.state_dict().items())


def test_tensors_flattens_with_a_prefix_and_survives_a_loop(tmp_path):
    content = {"w": torch.ones(1), "more": [torch.zeros(1), {"deep": torch.ones(2)}], "text": "no tensor"}
    content["self"] = content
    found = read_checkpoint(saved(tmp_path, content))
    assert found["self"] is found
    assert list(tensors(found, "m")) == ["m.w", "m.more.0", "m.more.1.deep"]
    assert list(tensors(torch.ones(1), "only")) == ["only"]


def test_a_bare_storage_is_a_flat_tensor(tmp_path):
    found = read_checkpoint(saved(tmp_path, {"s": torch.arange(4, dtype=torch.uint8).untyped_storage()}))
    assert found["s"].tolist() == [0, 1, 2, 3]


def test_safetensors_by_content_not_by_name(tmp_path):
    content = {"a.b": torch.arange(4).to(torch.bfloat16), "c": torch.ones(2, 2)}
    for name in ("weights.safetensors", "weights.pt"):
        save_file(content, tmp_path / name)
        found = read_checkpoint(tmp_path / name)
        assert set(found) == set(content) and torch.equal(found["a.b"], content["a.b"])


# --- Nothing is run -------------------------------------------------------------------------------------------------


class Shell:
    """Runs a command when unpickled by a machine that calls what it finds."""

    def __init__(self, call, *args):
        self.call, self.args = call, args

    def __reduce__(self):
        return self.call, self.args


class WritesWhenSet:
    def __init__(self, path):
        self.path = path

    def __getstate__(self):
        return {"path": self.path}

    def __setstate__(self, state):
        Path(state["path"]).touch()


class WritesWhenMade(WritesWhenSet):
    def __new__(cls, path):
        if (Path(path).parent / "armed").exists():
            Path(path).touch()
        return super().__new__(cls)

    def __getnewargs__(self):
        return (self.path,)

    def __setstate__(self, state):
        self.path = state["path"]


def hostile(marker: str) -> dict:
    code = f"open({marker!r}, 'w').close()"
    return {
        "os.system": Shell(os.system, f"touch {marker}"),
        "eval": Shell(eval, code.replace(".close()", "")),
        "exec": Shell(exec, code),
        "getattr": Shell(getattr, os, "system"),
        "import": Shell(__import__, "this"),
        "setstate": WritesWhenSet(marker),
        "new": WritesWhenMade(marker),
        "torch.load": Shell(torch.load, marker),
        "inside a tensor": {"deep": [torch.ones(1), (Shell(os.system, f"touch {marker}"),)]},
    }


class _Modules(pickle.Pickler):
    """Writes modules by name, so that getattr(os, "system") can be put into a pickle."""

    def reducer_override(self, found):
        return (__import__, (found.__name__,)) if isinstance(found, type(os)) else NotImplemented


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("name", hostile("m"))
def test_hostile_objects_stay_inert(tmp_path, name, protocol):
    marker = tmp_path / "marker"
    content = hostile(str(marker))[name]
    if name == "inside a tensor":
        content = {"deep": ["no tensor", content["deep"][1]]}
    stream = io.BytesIO()
    _Modules(stream, protocol=protocol).dump(content)
    (tmp_path / "armed").touch()
    found = read_checkpoint(archive(tmp_path, stream.getvalue()))
    assert not marker.exists()
    assert "placeholder" in repr(found)
    assert tensors(found) == {}
    # The payload is live: a pickle machine that calls what it finds does leave the marker.
    if name in ("os.system", "eval", "exec", "setstate", "inside a tensor") or (name == "new" and protocol >= 2):
        pickle.loads(stream.getvalue())
        assert marker.exists()


def test_hostile_objects_through_torch_save(tmp_path):
    marker = tmp_path / "marker"
    content = {"w": torch.ones(2), "x": Shell(os.system, f"touch {marker}"), "y": WritesWhenSet(str(marker))}
    found = read_checkpoint(saved(tmp_path, content))
    assert not marker.exists()
    assert torch.equal(found["w"], torch.ones(2))
    assert found["x"].name == "system" and found["x"].args == (f"touch {marker}",)
    assert found["y"].state == {"path": str(marker)}


def short(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


@pytest.mark.parametrize(
    "module, name", [("os", "path.os.system"), ("builtins", "eval"), ("torch._utils", "os.system"), ("", "os.system")]
)
def test_dotted_names_of_protocol_4(tmp_path, module, name):
    marker = tmp_path / "marker"
    code = f"touch {marker}" if "system" in name else f"open({str(marker)!r}, 'w')"
    program = b"\x80\x04" + short(module) + short(name) + b"\x93" + b"X"
    program += len(code).to_bytes(4, "little") + code.encode() + b"\x85R."
    found = read_checkpoint(archive(tmp_path, program))
    assert not marker.exists()
    assert (found.module, found.name, found.args) == (module, name, (code,))


def test_calling_the_result_of_a_placeholder_is_refused(tmp_path):
    # getattr(os, "system")("touch marker"): the second call has an inert object to call.
    marker = tmp_path / "marker"
    program = b"cbuiltins\ngetattr\n(cos\npath\nS'system'\ntR(S'touch " + str(marker).encode() + b"'\ntR."
    with pytest.raises(InputError, match="handmade.pt.*not callable"):
        read_checkpoint(archive(tmp_path, program))
    assert not marker.exists()


@pytest.mark.parametrize(
    "argument",
    [b"cos\nsystem\n(S'touch MARKER'\ntR", b"cos\nsystem\n", b"N", b"]", b"S'text'\n", b"I-1\n"],
    ids=["call", "function", "none", "list", "text", "number"],
)
@pytest.mark.parametrize("position", range(6))
def test_rebuild_with_hostile_arguments(tmp_path, argument, position):
    marker = tmp_path / "marker"
    storage = b"((S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI4\ntQ"[1:]
    parts = [storage, b"I0\n", b"(I2\nI2\nt", b"(I2\nI1\nt", b"I00\n", b"ccollections\nOrderedDict\n(tR"]
    parts[position] = argument.replace(b"MARKER", str(marker).encode())
    program = b"ctorch._utils\n_rebuild_tensor_v2\n(" + b"".join(parts) + b"tR."
    path = archive(tmp_path, program, {"0": np.arange(4, dtype="<f4").tobytes()})
    if position < 4 and not (argument == b"]" and position in (2, 3)):
        with pytest.raises(InputError, match="handmade.pt: not a readable checkpoint"):
            read_checkpoint(path)
    elif position < 4:  # an empty list of sizes beside two strides
        with pytest.raises(InputError, match="sizes"):
            read_checkpoint(path)
    else:  # requires_grad and hooks are not used to build the tensor
        assert read_checkpoint(path).tolist() == [[0.0, 1.0], [2.0, 3.0]]
    assert not marker.exists()


def test_the_reader_itself_cannot_be_changed_by_a_file(tmp_path):
    # BUILD with (None, {attribute: value}) sets attributes on whatever lies on the stack, here a class.
    for target in (b"ctorch._utils\n_rebuild_tensor_v2\n", b"ccollections\nOrderedDict\n"):
        program = target + b"(N(S'module'\nS'changed'\ndtb."
        with pytest.raises(InputError, match="handmade.pt"):
            read_checkpoint(archive(tmp_path, program))
    assert Placeholder.module == ""
    found = read_checkpoint(saved(tmp_path, OrderedDict(a=torch.ones(1))))
    assert found["a"].item() == 1.0


def test_extension_registry_and_huge_memo_are_refused(tmp_path):
    with pytest.raises(InputError, match="extension registry"):
        read_checkpoint(archive(tmp_path, b"\x80\x02\x82\x01)R."))
    with pytest.raises(InputError, match="memo entry"):
        read_checkpoint(archive(tmp_path, b"\x80\x02Nr\xff\xff\xff\x7f."))


# --- Damaged and wrong files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "offset, size, stride, count",
    [
        (0, (5,), (1,), 4),
        (1, (4,), (1,), 4),
        (0, (2, 2), (3, 1), 4),
        (0, (2,), (2**62,), 4),
        (5, (0,), (1,), 4),
        (-1, (2,), (1,), 4),
        (0, (2,), (-1,), 4),
        (0, (-2,), (1,), 4),
        (0, (2**70,), (1,), 4),
        (0, (2, 2), (1,), 4),
        (0, (4,), (1,), 8),
    ],
)
def test_tensors_outside_their_storage(tmp_path, offset, size, stride, count):
    path = archive(tmp_path, tensor_program(offset, size, stride, count), {"0": b"\x00" * 16})
    with pytest.raises(InputError, match="handmade.pt.*(storage|offset|size|stride)"):
        read_checkpoint(path)


def test_the_largest_tensor_that_fits(tmp_path):
    data = np.arange(4, dtype="<f4").tobytes()
    found = read_checkpoint(archive(tmp_path, tensor_program(1, (2, 2), (1, 1), 4), {"0": data}))
    assert found.tolist() == [[1.0, 2.0], [2.0, 3.0]]


def test_missing_storage_and_other_byte_order(tmp_path):
    with pytest.raises(InputError, match="storage 0 is missing"):
        read_checkpoint(archive(tmp_path, tensor_program(0, (2,), (1,), 4)))
    with pytest.raises(InputError, match="byte order is 'big'"):
        read_checkpoint(archive(tmp_path, b"\x80\x02N.", byteorder=b"big"))


def test_truncated_at_any_place(tmp_path):
    whole = saved(tmp_path, {"w": torch.arange(500.0)}).read_bytes()
    path = tmp_path / "cut.pt"
    for share in (0.001, 0.1, 0.5, 0.9, 0.999):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(InputError, match="cut.pt"):
            read_checkpoint(path)


def test_a_flipped_bit_is_noticed(tmp_path):
    path = saved(tmp_path, {"w": torch.full((500,), 3.0)})
    data = bytearray(path.read_bytes())
    data[data.index(torch.full((500,), 3.0).numpy().tobytes()) + 40] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        read_checkpoint(path)


def test_truncated_safetensors(tmp_path):
    save_file({"a": torch.ones(50)}, tmp_path / "a.safetensors")
    path = tmp_path / "cut.safetensors"
    path.write_bytes((tmp_path / "a.safetensors").read_bytes()[:-10])
    with pytest.raises(InputError, match="cut.safetensors: not a readable safetensors file"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
        (b"<!DOCTYPE html><html></html>", "HTML"),
        (pickle.dumps({"a": 1}), "a plain pickle"),
        (b"RIFF....WAVE", "unknown format"),
    ],
)
def test_files_that_are_no_checkpoints(tmp_path, content, words):
    path = tmp_path / "thing.pth"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"thing.pth.*{words}"):
        read_checkpoint(path)


def test_old_torch_missing_file_folder_and_other_zip(tmp_path):
    torch.save({"w": torch.ones(1)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(InputError, match="old.pt.*torch before 1.6"):
        read_checkpoint(tmp_path / "old.pt")
    with pytest.raises(InputError, match="none.pt: no such file"):
        read_checkpoint(tmp_path / "none.pt")
    with pytest.raises(InputError, match="a folder"):
        read_checkpoint(tmp_path)
    np.savez(tmp_path / "arrays.npz", a=np.ones(2))
    with pytest.raises(InputError, match="arrays.npz.*0 data.pkl"):
        read_checkpoint(tmp_path / "arrays.npz")
