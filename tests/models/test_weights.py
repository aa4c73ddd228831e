import contextlib
import dataclasses
import hashlib
import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kestrel.models import manifest, weights
from kestrel.models.card import card_from_json, card_to_json
from kestrel.models.manifest import default_name, read_manifest
from kestrel.models.task import ModelError
from kestrel.models.weights import (
    check_keys,
    find_weights,
    load_into,
    load_weights,
    save_weights,
    update_manifest,
)
from kestrel.tests.support import ship_weights as tools
from safetensors.torch import save_file

CARD = tools.card()


def module():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))


def saved(path, net=None):
    net = net or module()
    return save_weights(path, net.state_dict(), CARD, dict(net.named_buffers()))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "own.safetensors"
    saved(path)
    return path


def refused(path, sha256=None):
    with pytest.raises(ModelError) as error:
        load_weights(path, sha256)
    assert "\n" not in error.value.message
    return error.value.message


# --- saving and loading


def test_save_load_gives_the_same_module(tmp_path):
    net, other = module(), module()
    net[1].running_mean.copy_(torch.tensor([1e-6, 1.0, 1e5, -3.3]))
    sha256 = saved(tmp_path / "w.safetensors", net)
    loaded = load_weights(tmp_path / "w.safetensors", sha256)
    load_into(other, loaded)
    assert loaded.card == CARD
    assert loaded.sha256 == hashlib.sha256((tmp_path / "w.safetensors").read_bytes()).hexdigest()
    assert loaded.model_id == f"sar_ships_random@{sha256[:12]}"
    assert loaded.tensors["0.weight"].dtype == torch.float16
    for name, tensor in net.state_dict().items():
        # statistics are exact, parameters as close as half precision is
        expected = tensor if name in dict(net.named_buffers()) else tensor.half().to(tensor.dtype)
        assert torch.equal(other.state_dict()[name], expected), name


def test_save_is_reproducible_and_leaves_no_part(tmp_path):
    net = module()
    assert saved(tmp_path / "a.safetensors", net) == saved(tmp_path / "b.safetensors", net)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]


def test_save_failure_keeps_the_old_file(file, monkeypatch):
    before = file.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(manifest.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        saved(file, module())
    assert file.read_bytes() == before
    assert [p.name for p in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize(("value", "message"), [(float("nan"), "NaN"), (1e6, "too large for half precision")])
def test_save_refuses_what_could_not_be_loaded(tmp_path, value, message):
    net = module()
    with torch.no_grad():
        net[0].weight[0, 0, 0, 0] = value
    with pytest.raises(ModelError, match=message):
        saved(tmp_path / "w.safetensors", net)
    assert list(tmp_path.iterdir()) == []


def test_save_copies_views_and_shared_tensors(tmp_path):
    base = torch.arange(12.0)
    save_weights(tmp_path / "w.safetensors", {"a": base[:6].view(2, 3).T, "b": base}, CARD)
    tensors = load_weights(tmp_path / "w.safetensors", None).tensors
    assert torch.equal(tensors["a"].float(), base[:6].view(2, 3).T)
    assert torch.equal(tensors["b"].float(), base)


# --- what is refused


def test_exception_missing_and_not_a_file(tmp_path):
    assert "Weights not found" in refused(tmp_path / "none.safetensors")
    assert "is not a file" in refused(tmp_path)


def test_exception_wrong_hash_is_told_before_parsing(tmp_path, file, monkeypatch):
    monkeypatch.setattr(weights, "_parse", lambda *_: pytest.fail("parsed"))
    assert "sha256" in refused(file, "0" * 64)


def test_exception_pickles_are_not_opened(tmp_path):
    proof = tmp_path / "proof"
    assert "a Python pickle" in refused(tools.pickle_bomb(tmp_path / "p.safetensors", proof))
    assert "a zip archive" in refused(tools.zip_bomb(tmp_path / "z.safetensors", proof))
    assert not proof.exists()


def test_exception_header(tmp_path, file):
    raw = file.read_bytes()
    bad = tmp_path / "bad.safetensors"
    assert "declares a header of 200 MB" in refused(tools.huge_header(bad))
    for content in (b"", b"\x05", raw[:8], b"GIF89a" * 20):
        bad.write_bytes(content)
        assert "not a safetensors file" in refused(bad)
    for content in (raw[:50], b"\xff\x00\x00\x00\x00\x00\x00\x00{}"):
        bad.write_bytes(content)
        assert "cut off" in refused(bad)
    bad.write_bytes((6).to_bytes(8, "little") + b'{"a":x')
    assert "damaged header" in refused(bad)
    nested = b'{"a":' * 30_000
    bad.write_bytes(len(nested).to_bytes(8, "little") + nested)
    assert "damaged header" in refused(bad)
    twice = b'{"a":{},"a":{}}'
    bad.write_bytes(len(twice).to_bytes(8, "little") + twice)
    assert "damaged header" in refused(bad)


def test_exception_layout(tmp_path, file):
    bad = tmp_path / "bad.safetensors"
    assert "as 1048576 x 1048576 I64, but holds less data" in refused(tools.shape_bomb(bad, file))
    header, data = tools.read_parts(file)

    def changed(**fields):
        return tools.write_parts(bad, {**header, "0.weight": {**header["0.weight"], **fields}}, data)

    assert "as 'F8_E4M3'; allowed: F16" in refused(changed(dtype="F8_E4M3"))
    assert "impossible shape" in refused(changed(shape=[-4, 27]))
    assert "impossible shape" in refused(changed(shape=[True, 108]))
    assert "impossible shape" in refused(changed(shape="108"))
    assert "overlap or leave gaps" in refused(changed(data_offsets=[0, 216]))
    assert "in a way that is not safetensors" in refused(changed(more=1))
    assert "describes" in refused(tools.write_parts(bad, header, data + b"more"))
    assert "declares" in refused(tools.write_parts(bad, header, data[:-4]))
    only_card = {"__metadata__": header["__metadata__"]}
    assert "describes 0" in refused(tools.write_parts(bad, only_card, b""))


def test_exception_not_finite(tmp_path):
    path, _, _ = tools.write_ship_weights(tmp_path / "ok.safetensors")
    bad = tools.with_nan(tmp_path / "bad.safetensors", path)
    assert "NaN or infinite values in stem.0.bn.running_mean" in refused(bad)


def test_exception_no_card(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "w.safetensors", {"format": "pt"})
    assert "has no Kestrel card" in refused(tmp_path / "w.safetensors")


def test_exception_keys_and_shapes(file):
    loaded = load_weights(file, None)
    bigger = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8))
    with pytest.raises(ModelError, match=r"0.weight is 4 x 3 x 3 x 3, the network needs 8 x 3 x 3 x 3"):
        load_into(bigger, loaded)
    deeper = torch.nn.Sequential(*module(), torch.nn.Conv2d(4, 1, 1))
    with pytest.raises(ModelError, match=r"lacks 2 tensors \(2.bias, 2.weight\)"):
        load_into(deeper, loaded)
    with pytest.raises(ModelError, match=r"has 7 tensors .* which the network does not know"):
        check_keys({**loaded.tensors}, torch.nn.Identity(), "own.safetensors")


@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.data())
def test_property_damaged_bytes_raise_nothing_but_a_sentence(tmp_path, data):
    path = tmp_path / "fuzz.safetensors"
    saved(path)
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(raw[: data.draw(st.integers(0, len(raw)))]))
    # anything but a ModelError fails the test; a hit in a weight's bits may load
    with contextlib.suppress(ModelError):
        load_weights(path, None)


# --- the card


def test_card_round_trip():
    card = tools.card(extra={"config": {"anchors": [[1.0, 2.0]]}}, figures={"AP50": 0.9})
    assert card_from_json(card_to_json(card)) == card


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("parameters", 1.5),
        ("parameters", True),
        ("classes", []),
        ("classes", ["ship", "ship"]),
        ("classes", "ship"),
        ("bands", 0),
        ("gsd", [20.0, 0.5]),
        ("gsd", [0.5]),
        ("gsd", [0.5, "20"]),
        ("data", ["HRSID"]),
        ("seed", None),
        ("status", "final"),
        ("extra", []),
    ],
)
def test_exception_card_fields(field, value):
    fields = {**json.loads(card_to_json(CARD)), field: value}
    with pytest.raises(ModelError, match=f"card's {field} must be"):
        card_from_json(json.dumps(fields))


def test_exception_card_names():
    fields = json.loads(card_to_json(CARD))
    with pytest.raises(ModelError, match="unknown fields: 'colour'"):
        card_from_json(json.dumps({**fields, "colour": 1}))
    del fields["limits"]
    with pytest.raises(ModelError, match="lacks the fields limits"):
        card_from_json(json.dumps(fields))
    for text in ("", "[]", "{", "[" * 30_000):
        with pytest.raises(ModelError, match="The card"):
            card_from_json(text)


def test_exception_card_figures_must_be_numbers_json_knows():
    with pytest.raises(ModelError, match="cannot be written as JSON"):
        card_to_json(dataclasses.replace(CARD, figures={"AP50": float("nan")}))


# --- the manifest and the parameter WEIGHTS


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A weights folder of our own with two files, and an empty KESTREL_HOME."""
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setattr(manifest, "FOLDER", folder)
    monkeypatch.setenv("KESTREL_HOME", str(tmp_path / "home"))
    for name in ("toy", "toy_s"):
        saved(folder / f"{name}.safetensors")
        update_manifest(folder / f"{name}.safetensors", name)
    return folder


def test_find_default_name_and_path(shipped, file):
    entries = read_manifest()
    expected = (shipped / "toy.safetensors", entries["toy"]["sha256"])
    assert find_weights("", "toy") == expected
    assert find_weights(" toy ", "toy") == expected
    assert find_weights("toy_s", "toy")[0] == shipped / "toy_s.safetensors"
    assert find_weights(str(file), "toy") == (file, None)
    # a shipped file chosen by its path is still held to its hash
    assert find_weights(str(shipped / "toy.safetensors"), "toy") == expected


def test_find_in_the_users_folder(shipped, tmp_path):
    own = tmp_path / "home" / "weights"
    own.mkdir(parents=True)
    saved(own / "mine.safetensors")
    assert find_weights("mine", "toy") == (own / "mine.safetensors", None)
    (shipped / "toy_s.safetensors").rename(own / "toy_s.safetensors")
    assert find_weights("toy_s", "toy")[0] == own / "toy_s.safetensors"


def test_exception_find(shipped):
    for typed, message in [
        ("checkpoint.pt", "neither a .safetensors file nor a known name"),
        ("toy_xl", "neither a .safetensors file nor a known name"),
    ]:
        with pytest.raises(ModelError, match=message):
            find_weights(typed, "toy")
    with pytest.raises(ModelError, match="No weights are shipped for other"):
        find_weights("", "other")
    (shipped / "toy.safetensors").unlink()
    with pytest.raises(ModelError, match="'toy' are not installed"):
        find_weights("", "toy")


@pytest.mark.parametrize(
    ("states", "name"),
    [
        ({"toy": "released"}, "toy"),
        ({"toy": "preliminary"}, "toy"),
        ({"toy": "released", "toy_a": "released"}, "toy"),
        ({"toy": "preliminary", "toy_b": "released"}, "toy_b"),
        ({"toy_a": "preliminary", "toy_b": "released"}, "toy_b"),
        ({"toyota": "released", "toy": "preliminary"}, "toy"),
        ({"toy_b": "preliminary"}, "toy_b"),
        ({}, "toy"),
    ],
)
def test_feature_preliminary_is_default_only_without_a_released_one(states, name):
    assert default_name("toy", {key: {"status": status} for key, status in states.items()}) == name


def test_feature_manifest_says_what_the_file_is(shipped):
    entry = read_manifest()["toy"]
    path = shipped / "toy.safetensors"
    assert entry["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert entry["size"] == path.stat().st_size
    assert entry["status"] == "preliminary"
    assert entry["card"]["limits"] == CARD.limits


def test_exception_manifest(shipped):
    path = shipped / "manifest.json"
    entries = read_manifest(path)
    for field, value in [("file", "../evil.safetensors"), ("sha256", "abc"), ("status", "?"), ("size", "1")]:
        path.write_text(json.dumps({"toy": {**entries["toy"], field: value}}))
        with pytest.raises(ModelError, match="damaged entry 'toy'"):
            read_manifest(path)
    path.write_text("[")
    with pytest.raises(ModelError, match="cannot be read"):
        read_manifest(path)


def test_feature_home_is_where_the_contract_says(monkeypatch):
    monkeypatch.setenv("KESTREL_HOME", "/somewhere")
    assert str(manifest.home()) == "/somewhere"
    monkeypatch.delenv("KESTREL_HOME")
    assert manifest.home().name == "kestrel"
