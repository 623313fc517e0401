"""How much memory there is, how much a fused model takes, and lanes that fit in it."""

import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import keras
import pytest

from lib import room
from lib.backbones.build import load_backbone
from lib.lanes import memory
from lib.lanes.memory import MOST_LANES, MemoryEstimate, budget, footprint
from lib.lanes.trunk import read_graph
from lib.params import ROOT
from lib.partition import layer_wise

GIB = 2**30


def test_the_least_of_machine_container_and_gpu_is_free(monkeypatch):
    monkeypatch.setattr(
        memory.psutil,
        "Process",
        lambda: SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=GIB)),
    )
    free = memory.free_bytes.__wrapped__  # as it is asked the first time
    monkeypatch.setattr(memory, "_gpu_free", lambda: iter(()))
    monkeypatch.setattr(memory, "free_memory", lambda: 9 * GIB)
    assert free() == 10 * GIB  # what this process holds is its own
    monkeypatch.setattr(memory, "_gpu_free", lambda: iter((6 * GIB,)))
    assert free() == 6 * GIB


def test_gpus_are_those_that_the_vendors_tool_names(monkeypatch):
    answer = SimpleNamespace(stdout="81000\n[N/A]\n12\n")
    monkeypatch.setattr(room.subprocess, "run", lambda *_, **__: answer)
    assert list(memory._gpu_free()) == [81000 * 2**20, 12 * 2**20]

    asked = []
    monkeypatch.setattr(room.subprocess, "run", lambda c, **_: asked.append(c) or answer)
    hidden = [("1", ["--id=1"]), (None, ["--id=81000,12"]), ("", None), ("-1", None)]
    for visible, words in hidden:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible or "")
        if visible is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
        found = list(memory._gpu_free())
        assert bool(found) == (words is not None)
        assert words is None or [w for w in asked[-1] if w.startswith("--id")] == words
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")

    def missing(*_, **__):
        raise FileNotFoundError("nvidia-smi")

    monkeypatch.setattr(room.subprocess, "run", missing)
    assert list(memory._gpu_free()) == []


@pytest.mark.parametrize(("visible", "found"), [("0,2", ["0", "2"]), ("", []), ("-1", []),
                                                ("1,-1,0", ["1"])])  # fmt: skip
def test_gpus_that_are_hidden_do_not_count(monkeypatch, visible, found):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert room.visible_gpus() == found


def test_a_budget_is_the_users_or_a_share_of_what_is_free(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: 20 * GIB)
    assert budget(3) == 3 * GIB
    assert budget(None) == 8 * GIB
    assert budget(None, deterministic=True) == 4 * GIB  # whatever is free
    assert budget(3, deterministic=True) == 3 * GIB


def chain():
    """16 floats of input, then calls of 32, 64, 64 and 16."""
    layers, image = keras.layers, keras.Input((4, 4, 1))
    x = layers.Conv2D(2, 1, activation="relu", name="a")(image)
    x = layers.ReLU(name="bend")(layers.Conv2D(4, 1, name="b")(x))
    return read_graph(keras.Model(image, layers.Conv2D(1, 1, name="c")(x)))


def plan(graph, blocks, cut=0):
    frontiers = [graph.frontier(i) for i in range(len(graph.calls) + 1)]
    return footprint(graph, blocks, cut, frontiers)


def test_a_plan_against_hand_computed_numbers():
    graph = chain()
    a, c = ("a",), ("c",)
    # Tuned: its input. Above it: what bends, by its output; linear layers keep nothing.
    assert plan(graph, [c]).kept == 64
    assert plan(graph, [a]).kept == 16 + 32 + 64
    assert plan(graph, [("b",)]).kept == 32 + 64
    # The input that two lanes share is there once, what they have made of it twice.
    assert plan(graph, [a, a]).kept == 16 + 2 * (32 + 64)
    assert plan(graph, [c, c]).kept == 64
    # At the widest call, `bend`, its input and its output.
    assert plan(graph, [a]).widest == 64 + 64
    assert plan(graph, [a, a]).widest == 2 * (64 + 64)
    assert plan(graph, [a, c]).widest == 2 * (64 + 64)  # the trunk is still read by the second
    assert plan(graph, [c]).widest == 64 + 64
    assert plan(graph, [c], cut=3).widest == 64 + 16
    # Own calls, those of the stack, and those that all share.
    assert plan(graph, [a]).executed == 1 + 3
    assert plan(graph, [c]).executed == 3 + 1
    assert plan(graph, [a, c]).executed == 2 + 2 + 2 + 2
    assert plan(graph, [("a", "c")]).executed == 4


def test_folded_kernels_are_there_once_a_use():
    layers, image = keras.layers, keras.Input((4, 4, 1))
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(2, 1, name="conv")(image))
    graph = read_graph(keras.Model(image, layers.Conv2D(1, 1, name="c")(x)))
    assert plan(graph, [("c",)]).folded == 2
    assert plan(graph, [("norm",)]).folded == 0  # the lane's own is not folded
    assert plan(graph, [("norm",), ("c",)]).folded == 2


@pytest.fixture(scope="module")
def mobile():
    backbone = load_backbone("MobileNet", image_size=224, weights="none", thin=True)
    return read_graph(backbone), [block.layers for block in layer_wise(backbone)]


def estimate(graph, budget_bytes, images=(36, 110)):
    return MemoryEstimate(graph, 4, *images, 10_000, budget_bytes)


def sizes(ends, n):
    edges = [0, *ends, n]
    return [b - a for a, b in zip(edges, edges[1:], strict=False)]


def test_groups_fit_and_deep_ones_hold_more_lanes(mobile):
    graph, blocks = mobile
    alone = max(estimate(graph, GIB).needed([block]) for block in blocks)
    within = estimate(graph, alone * 1.05)
    ends = within.ends(blocks)
    edges = [0, *ends, len(blocks)]
    groups = [blocks[a:b] for a, b in zip(edges, edges[1:], strict=False)]
    assert len(groups) > 2 and sum(groups, []) == blocks
    assert all(within.needed(group) <= within.budget for group in groups)
    assert len(groups[-1]) > len(groups[0])
    # As few as there can be: each with the next lane would be too large, or groups are even.
    most = max(map(len, groups))
    assert len(within._greedy(blocks, MOST_LANES)) == len(ends)
    assert len(within._greedy(blocks, most - 1)) > len(ends)


@pytest.mark.parametrize("where, most", [("CPU", 2**27), ("NVIDIA H100", 2**31)])
def test_an_evaluation_takes_as_many_photos_as_its_lanes_and_the_room_leave(
    mobile, monkeypatch, where, most
):
    graph, blocks = mobile
    monkeypatch.setattr(memory, "device", lambda: where)
    monkeypatch.setattr(memory, "EVAL_BATCH", 10**9)
    small, large = estimate(graph, 1.3 * GIB), estimate(graph, 1e6 * GIB)
    for lanes, cut in ((blocks[:16], 0), (blocks[-16:], 0), (blocks, 0), ([()], 0), ([()], 20)):
        widest = plan(graph, lanes, cut).widest
        assert large.eval_batch(lanes, cut) == most // widest
        floats = small.eval_batch(lanes, cut) * widest
        assert 4 * memory.EVAL_WIDTH * floats <= small.room / 5 < 4 * memory.EVAL_WIDTH * most
    assert estimate(graph, 0).eval_batch(blocks, 0) == 1
    # Lanes that differ above the cut share what is below: they leave room for more photos.
    assert large.eval_batch(blocks[-16:], 0) > 2 * large.eval_batch(blocks[:16], 0)


def test_an_evaluation_takes_64_photos_at_most_and_needs_no_call_above_the_cut(mobile):
    graph, _ = mobile
    end = len(graph.calls)
    assert estimate(graph, 1e6 * GIB).eval_batch([()], end) == memory.EVAL_BATCH == 64


def test_a_large_budget_makes_one_group_and_a_tiny_one_makes_one_a_lane(mobile):
    graph, blocks = mobile
    assert estimate(graph, 64 * GIB).ends(blocks) == []
    assert sizes(estimate(graph, 0).ends(blocks), len(blocks)) == [1] * len(blocks)
    assert estimate(graph, 64 * GIB).ends(blocks[:1]) == []


def test_more_lanes_than_a_model_takes_are_cut_evenly(mobile):
    graph, blocks = mobile
    many = sorted(blocks * 5, key=lambda b: graph.span(b)[0])  # 270
    assert sizes(estimate(graph, 1e15).ends(many), len(many)) == [135, 135]
    fewer = sizes(estimate(graph, 1e15).ends(many, most=40), len(many))
    assert len(fewer) == 7 and max(fewer) == 39


def test_a_trunk_is_as_deep_as_its_room(mobile):
    graph, blocks = mobile
    last = graph.span(blocks[-1])[0]
    rich, poor = estimate(graph, 64 * GIB), estimate(graph, 0)
    assert rich.cut(blocks[-1:]) == last and poor.cut(blocks[-1:]) == 0
    between = estimate(graph, rich.held + rich.trunk(last) / memory.TRUNK - 1)
    assert 0 <= between.cut(blocks[-1:]) < last
    assert between.trunk(between.cut(blocks[-1:])) <= memory.TRUNK * between.room


def test_all_photos_count_and_jax_holds_those_that_score_twice(mobile, monkeypatch):
    graph, _ = mobile
    e, pixels = estimate(graph, 64 * GIB), 224 * 224 * 3
    assert replace(e, images=1000).held - e.held == (1000 - 36 - 110) * pixels
    assert replace(e, images=10).held == e.held
    own = {cut: e.trunk(cut) for cut in (0, 20)}
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    for cut, bytes_ in own.items():
        crossing = 4 * sum(graph.sizes[t] for t in graph.frontier(cut))
        assert e.trunk(cut) - bytes_ == 110 * crossing


def test_lanes_that_part_late_take_less(mobile):
    graph, blocks = mobile
    e = estimate(graph, 64 * GIB)
    assert e.model(blocks[:8], 0) > 1.1 * e.model(blocks[-8:], 0)
    assert e.model(blocks[-8:], 0) > e.model(blocks[-8:], e.cut(blocks[-8:]))


@pytest.mark.parametrize("given", [None, "true"])
def test_a_gpu_is_shared_unless_the_user_says_otherwise(given):
    """Both names are read by the backend when it starts, so any module of `lib` sets them."""
    names = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    environment = {k: v for k, v in os.environ.items() if k not in names}
    if given:
        environment |= dict.fromkeys(names, given)
    code = f"import lib.params, os; print(*[os.environ[name] for name in {tuple(names)}])"
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert ran.stdout.split() == ([given] * 2 if given else list(names.values())), ran.stderr


def test_a_backend_named_in_keras_own_file_is_seen(tmp_path):
    """Photos are read with TensorFlow, which must then leave the GPU to JAX."""
    (tmp_path / "keras.json").write_text('{"backend": "jax"}')
    environment = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
    code = (
        "import sys, types\n"
        "hidden = []\n"
        "config = types.SimpleNamespace(set_visible_devices=lambda *a: hidden.append(a))\n"
        "import keras\n"
        "sys.modules['tensorflow'] = types.SimpleNamespace(config=config)\n"
        "from lib.photos import dataset\n"
        "dataset._keep_tensorflow_off_the_gpu()\n"
        "print(keras.backend.backend(), hidden)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment | {"KERAS_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert ran.stdout.strip() == "jax [([], 'GPU')]", ran.stderr
