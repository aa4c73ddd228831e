"""A small ship detector with random weights as a file, and ways to spoil such a file."""

import json
from pathlib import Path

import torch
from kestrel.models.sar_ships.network import SarShipNet
from kestrel.models.task import Card
from kestrel.models.weights import save_weights


def card(**changes):
    """A card as the first ship weights carry it."""
    fields = {
        "name": "sar_ships_random",
        "version": "0",
        "paper": "01",
        "preset": "paper",
        "parameters": 1,
        "classes": ("ship",),
        "bands": 1,
        "gsd": (0.5, 20.0),
        "scaling": "auto",
        "tile": 640,
        "data": ({"source": "none", "count": 0, "real": False},),
        "seed": 0,
        "command": "tests",
        "figures": {},
        "limits": "random numbers",
        "status": "preliminary",
    }
    return Card(**{**fields, **changes})


def write_ship_weights(path, **config):
    """Save a random network (a thin one unless told otherwise) and return (path, sha256, network)."""
    torch.manual_seed(0)
    net = SarShipNet(**{"width": 0.125, "depth": 0.33, **config})
    torch.nn.Module.eval(net)
    parameters = sum(p.numel() for p in net.parameters())
    sha256 = save_weights(
        path,
        net.state_dict(),
        card(parameters=parameters, extra={"config": net.config}),
        dict(net.named_buffers()),
    )
    return Path(path), sha256, net


def read_parts(path):
    """Return (header as a dict, data bytes) of a safetensors file, read by hand."""
    raw = Path(path).read_bytes()
    length = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def write_parts(path, header, data):
    """Write a file of that header and data, right or wrong."""
    text = json.dumps(header).encode()
    Path(path).write_bytes(len(text).to_bytes(8, "little") + text + data)
    return Path(path)


def pickle_bomb(path, proof):
    """Write a pickle that would create the file ``proof`` when loaded, under any name."""
    import pickle

    class Bomb:
        def __reduce__(self):
            return (open, (str(proof), "w"))

    Path(path).write_bytes(pickle.dumps(Bomb()))
    return Path(path)


def zip_bomb(path, proof):
    """Write the same inside a zip, as torch.save lays it out, under any name."""
    import pickle
    import zipfile

    class Bomb:
        def __reduce__(self):
            return (open, (str(proof), "w"))

    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": Bomb()}))
    return Path(path)


def huge_header(path):
    """Write a sparse file whose header claims 200 MB, with 200 MB behind it."""
    with Path(path).open("wb") as file:
        file.write((200_000_000).to_bytes(8, "little") + b"{")
        file.truncate(200_000_008)
    return Path(path)


def shape_bomb(path, source):
    """Write ``source`` again with one tensor declared as 2^20 x 2^20."""
    header, data = read_parts(source)
    key = next(k for k in header if k != "__metadata__")
    header[key]["shape"] = [2**20, 2**20]
    return write_parts(path, header, data)


def renamed_key(path, source):
    """Write ``source`` again with one tensor under a name that no network knows."""
    header, data = read_parts(source)
    header["stem.extra"] = header.pop("stem.0.conv.weight")
    return write_parts(path, header, data)


def with_nan(path, source):
    """Write ``source`` again with a NaN (float32) in a running mean."""
    header, data = read_parts(source)
    start = header["stem.0.bn.running_mean"]["data_offsets"][0]
    return write_parts(path, header, data[:start] + b"\x00\x00\xc0\x7f" + data[start + 4 :])
