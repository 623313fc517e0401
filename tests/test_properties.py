"""What holds for any input: partitions, parameters and the ledger's reader (hypothesis)."""

import warnings
from types import SimpleNamespace

import keras
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rows import row

from lib import partition
from lib.ledger import TornRowWarning, append_row, read_ledger
from lib.params import InputError, Params, load_params

quickly = settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


# ---------------------------------------------------------------------------------- partitions


@st.composite
def backbones(draw):
    """Layers in a row, each with or without weights, behind an input layer."""
    has_weights = draw(st.lists(st.booleans(), min_size=3, max_size=60))
    layers = [
        SimpleNamespace(name=f"layer_{i}", weights=[0] * has) for i, has in enumerate(has_weights)
    ]
    return SimpleNamespace(layers=[keras.layers.InputLayer((8,)), *layers])


@pytest.fixture(scope="module", autouse=True)
def made_up_layers():
    """These layers are no layers of Keras: what has weights is what says so."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partition, "has_weights", lambda layer: bool(layer.weights))
        yield


def flat(blocks):
    return [name for block in blocks for name in block.layers]


@quickly
@given(backbones())
def test_every_layer_with_weights_is_in_one_layer_and_one_block(backbone):
    names = partition.weighted_layers(backbone)
    assert names == [layer.name for layer in backbone.layers if layer.weights]
    assert flat(partition.layer_wise(backbone)) == names
    assert flat(partition.block_wise(backbone)) == names
    assert flat(partition.baseline_2(backbone)) == names
    assert flat(partition.baseline_1(backbone)) == []


@quickly
@given(backbones())
def test_a_block_is_consecutive_and_as_long_as_can_be(backbone):
    places = {layer.name: i for i, layer in enumerate(backbone.layers)}
    for block in partition.block_wise(backbone):
        first, last = places[block.layers[0]], places[block.layers[-1]]
        assert last - first == len(block.layers) - 1
        outside = [backbone.layers[first - 1], *backbone.layers[last + 1 : last + 2]]
        assert not any(layer.weights for layer in outside)


@quickly
@given(backbones(), st.integers(1, 80))
def test_windows_cover_every_layer_with_weights(backbone, length):
    n = len(backbone.layers) - 1
    if length > n:
        with pytest.raises(InputError, match=f"window: {length} is not allowed; 1 to {n}"):
            partition.sliding_window(backbone, length)
        return
    windows = partition.sliding_window(backbone, length)
    assert len(windows) == n - length + 1
    assert set(flat(windows)) == set(partition.weighted_layers(backbone))
    assert all(len(window.layers) <= length for window in windows)


@quickly
@given(backbones(), st.data())
def test_ranked_and_random_layers_are_distinct_and_in_order(backbone, data):
    names = partition.weighted_layers(backbone)
    if not names:
        return
    k = data.draw(st.integers(1, len(names)))
    scores = {name: data.draw(st.integers(0, 5)) / 5 for name in names}
    (ranked,) = partition.top_ranked(backbone, scores, k)
    (drawn,) = partition.random_layers(backbone, k, data.draw(st.integers(0, 2**31)))
    for block in (ranked, drawn):
        assert list(block.layers) == [name for name in names if name in block.layers]
        assert len(block.layers) == k
    left_out = [scores[name] for name in names if name not in ranked.layers]
    assert min(scores[name] for name in ranked.layers) >= max(left_out, default=0)


# ---------------------------------------------------------------------------------- parameters

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=3)
    ),
    max_leaves=6,
)
names = st.sampled_from(sorted(Params.__dataclass_fields__)) | st.text(max_size=12)


@quickly
@given(st.dictionaries(names, anything, max_size=4))
def test_any_values_give_parameters_or_one_line(values):
    values.pop("profile", None)
    try:
        params = load_params("smoke", **values)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert isinstance(params, Params)


@quickly
@given(st.text(max_size=200))
def test_any_yaml_gives_parameters_or_one_line(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    try:
        load_params(str(path))
    except InputError as error:
        assert "\n" not in str(error) and "mine" in str(error)


# ---------------------------------------------------------------------------------- the ledger


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A ledger of three rows as bytes."""
    path = tmp_path_factory.mktemp("ledger") / "block_wise-VGG16.csv"
    for repeat in range(3):
        append_row(path, row(repeat=repeat, block="blöck, one"))
    return path.read_bytes()


def read(path, content):
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TornRowWarning)
        return read_ledger(path)


def test_a_ledger_cut_at_any_byte_keeps_its_whole_rows_and_takes_a_new_one(tmp_path, whole):
    path = tmp_path / "block_wise-VGG16.csv"
    for cut in range(0, len(whole) + 1, 7):
        kept = max(0, whole[:cut].count(b"\n") - 1)
        assert len(read(path, whole[:cut])) == kept
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TornRowWarning)
            append_row(path, row(repeat=7))
        assert read_ledger(path)["repeat"].tolist() == [*range(kept), 7]


@quickly
@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused_in_one_line(tmp_path, content):
    try:
        assert isinstance(read(tmp_path / "any.csv", content), pd.DataFrame)
    except InputError as error:
        assert "any.csv" in str(error) and "\n" not in str(error)


@quickly
@given(st.data())
def test_any_bytes_after_a_sound_header_are_read_or_refused_in_one_line(tmp_path, whole, data):
    header, *lines = whole.splitlines(keepends=True)
    noise = data.draw(st.binary(max_size=200))
    place = data.draw(st.integers(0, len(lines[0])))
    changed = header + lines[0][:place] + noise + lines[0][place:] + lines[1]
    try:
        assert isinstance(read(tmp_path / "any.csv", changed), pd.DataFrame)
    except InputError as error:
        assert "any.csv" in str(error) and "\n" not in str(error)


@quickly
@given(st.data())
def test_no_digit_can_be_altered_unnoticed(tmp_path, whole, data):
    start = whole.index(b"\n")
    places = [i for i in range(start, len(whole)) if chr(whole[i]).isdigit()]
    place = data.draw(st.sampled_from(places))
    digit = data.draw(st.sampled_from([d for d in b"0123456789" if d != whole[place]]))
    with pytest.raises(InputError, match="any.csv, line"):
        read(tmp_path / "any.csv", whole[:place] + bytes([digit]) + whole[place + 1 :])
