"""lib.params: what is accepted, what is refused, and that each refusal is one helpful line."""

import dataclasses
import math
import shutil
from pathlib import Path

import pytest
from committed import SHIPPED

from lib import params
from lib.backbones.build import find_weights
from lib.params import BACKBONE_NAMES, ROOT, InputError, Params, from_notebook, load_params
from lib.photos.dataset import load_data


def refusal(action, *args, **kwargs):
    """Return the one line with which an action refuses its input."""
    with pytest.raises(InputError) as caught:
        action(*args, **kwargs)
    line = str(caught.value)
    assert "\n" not in line
    return line


@pytest.fixture
def yaml_file(tmp_path):
    """A function that writes a YAML file and returns its path as text."""

    def write(text, name="mine.yaml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def own_root(tmp_path, monkeypatch):
    """A project with three profiles."""
    (tmp_path / "params").mkdir()
    for name in ("cpu", "quick", "smoke"):
        shutil.copy(ROOT / "params" / f"{name}.yaml", tmp_path / "params")
    monkeypatch.setattr(params, "ROOT", tmp_path)
    return tmp_path


def test_the_shipped_profiles_are_known_and_load():
    assert {"cpu", "cpu_native", "paper", "quick", "smoke"} <= set(SHIPPED)
    assert set(SHIPPED) <= set(params.profiles())
    for name in SHIPPED:
        assert load_params(name).profile == name


def test_files_in_params_are_profiles_and_nothing_else_is(own_root):
    (own_root / "params" / "mine.yaml").write_text("epochs: 3\n")
    (own_root / "params" / "folder.yaml").mkdir()
    (own_root / "params" / "gone.yaml").symlink_to("nowhere")
    (own_root / "params" / "notes.txt").write_text("epochs: 3\n")
    assert params.profiles() == ["cpu", "mine", "quick", "smoke"]
    assert load_params("mine").epochs == 3
    for name in ("folder", "params/folder.yaml", "gone", "params", "params/", "params/mine"):
        assert f"{name!r} is not a profile" in refusal(load_params, name)


def test_the_paper_profile_is_the_papers_set_up():
    paper = load_params("paper")
    assert (paper.data, paper.image_size, paper.input_scaling) == ("tf_flowers", 224, "unit")
    assert (paper.weights, paper.thin, paper.alpha) == ("imagenet", False, {})
    assert paper.backbones == BACKBONE_NAMES
    assert (paper.batch_size, paper.epochs, paper.final_epochs) == (4, 50, None)
    assert (paper.learning_rate, paper.dropout, paper.repeats) == (5e-5, 0.5, 4)
    assert (paper.window, paper.top_k, paper.random_layers) == (3, (3, 5), 3)
    slices = (paper.search_split, paper.final_split, paper.eval_split)
    assert slices == ("train[:10%]", "train[:70%]", "train[70%:]")


def test_cpu_native_is_cpu_but_for_the_inputs():
    cpu, native = (dataclasses.asdict(load_params(name)) for name in ("cpu", "cpu_native"))
    assert {key for key in cpu if cpu[key] != native[key]} == {"profile", "input_scaling"}


@pytest.mark.parametrize("name", ["cpu", "cpu_native", "quick", "smoke"])
def test_a_profile_names_only_what_differs_from_the_defaults(name):
    defaults = dataclasses.asdict(Params("defaults"))
    written = params._read_yaml(ROOT / "params" / f"{name}.yaml")
    same = {key for key, value in written.items() if params._tidied(key, value) == defaults[key]}
    assert same <= {"data", "n_images", "weights"}  # spelt out on purpose: what the profile is


def test_a_yaml_file_by_path_is_a_profile_named_after_it(yaml_file):
    loaded = load_params(yaml_file("epochs: 3\nlearning_rate: 1\ntop_k: [2]\n"))
    assert (loaded.profile, loaded.epochs, loaded.top_k) == ("mine", 3, (2,))
    assert isinstance(loaded.learning_rate, float)
    assert loaded.batch_size == Params("defaults").batch_size


def test_an_empty_file_holds_the_defaults(yaml_file):
    assert load_params(yaml_file("")) == Params("mine")


def test_overrides_win_over_the_file(yaml_file):
    path = yaml_file("epochs: 3\nseed: 4\n")
    loaded = load_params(path, epochs=7)
    assert (loaded.epochs, loaded.seed) == (7, 4)


@pytest.mark.parametrize("name", ["quik", "../params/quick", "params/quick", "absent.yaml", "", 3])
def test_an_unknown_profile_lists_the_known_ones(own_root, name):
    line = refusal(load_params, name)
    assert repr(name) in line
    assert "allowed: cpu, quick, smoke, or the path" in line


def test_a_misspelt_profile_is_suggested():
    assert "did you mean quick?" in refusal(load_params, "quik")


def test_an_unknown_key_names_file_and_key_and_suggests(yaml_file):
    path = yaml_file("epoch: 3\n")
    line = refusal(load_params, path)
    assert path in line and "epoch:" in line and "did you mean epochs?" in line


def test_an_unknown_override_is_refused():
    assert "override: epoch:" in refusal(load_params, "quick", epoch=3)


def test_a_misspelt_backbone_suggests_the_nearest(yaml_file):
    line = refusal(load_params, yaml_file("backbones: [VGG16, mobilenetv2]\n"))
    assert "'mobilenetv2'" in line and "did you mean MobileNetV2?" in line
    assert ", ".join(BACKBONE_NAMES) in line


@pytest.mark.parametrize(
    ("text", "write"),
    [("5e-5", "5.0e-5"), ("1.0e5", "1.0e+5"), ("'0.1'", "0.1"), ("1E-4", "1.0e-4")],
)
def test_a_number_that_yaml_reads_as_text_says_how_to_write_it(yaml_file, text, write):
    line = refusal(load_params, yaml_file(f"learning_rate: {text}\n"))
    assert f"write {write}," in line and "learning_rate" in line and "mine.yaml" in line


BAD_VALUES = [
    ("epochs", -3),
    ("epochs", 0),
    ("epochs", 2.0),
    ("epochs", True),
    ("epochs", None),
    ("final_epochs", 0),
    ("learning_rate", 0),
    ("learning_rate", 1.5),
    ("learning_rate", math.nan),
    ("learning_rate", math.inf),
    ("plateau_factor", 1.0),
    ("plateau_patience", -1),
    ("dropout", 1.0),
    ("image_size", 31),
    ("image_size", 1025),
    ("n_images", 49),
    ("n_images", 100_001),
    ("batch_size", 0),
    ("seed", -1),
    ("thin", "true"),
    ("thin", 1),
    ("input_scaling", "Unit"),
    ("select_on", "accuracy"),
    ("engine", "fast"),
    ("lanes", 0),
    ("lanes", 513),
    ("lanes", "many"),
    ("lanes", True),
    ("memory_gib", 0.0),
    ("window", 0),
    ("top_k", 3),
    ("top_k", []),
    ("top_k", [3, 3]),
    ("top_k", [0]),
    ("backbones", "MobileNet"),
    ("backbones", []),
    ("backbones", ["VGG16", "VGG16"]),
    ("backbones", ["convnext"]),  # in keras.applications, and no network
    ("backbones", ["my.h5"]),
    ("alpha", 0.25),
    ("alpha", {"VGG16": 0.5}),
    ("alpha", {"MobileNet": 0}),
    ("alpha", {"MobileNet": "0.25"}),
    ("data", "tf_flower"),
    ("data", ""),
    ("weights", "imagnet"),
    ("weights", None),
    ("data_dir", 3),
    ("search_split", "train[:10%"),
    ("search_split", "test[:10%]"),
    ("search_split", "train[:]"),
    ("search_split", "train[5]"),
    ("search_split", "train[:1.5]"),
]


@pytest.mark.parametrize(("key", "value"), BAD_VALUES)
def test_a_bad_value_is_refused_with_place_key_value_and_what_is_allowed(key, value):
    line = refusal(load_params, "paper", **{key: value})
    assert line.startswith(f"override: {key}: ")
    assert repr(value) in line
    assert f"allowed: {params._RULES[key].allowed}" in line


GOOD_VALUES = [
    ("lanes", "auto"),
    ("lanes", 512),
    ("final_epochs", 1),
    ("dropout", 0),
    ("plateau_patience", 0),
    ("data", "./photos"),
    ("data", "lib"),  # a bare word that exists in the project's root
    ("weights", "some/where.weights.h5"),
    ("alpha", {"MobileNet": 1, "MobileNetV2": 0.35, "MobileNetV3Small": 0.75}),
    ("search_split", "train"),
    ("search_split", "train[-200:]"),
    ("search_split", "train[:12.5%]"),
]


@pytest.mark.parametrize(("key", "value"), GOOD_VALUES)
def test_values_at_the_edge_are_accepted(key, value):
    assert getattr(load_params("paper", **{key: value}), key) == value


def test_every_field_has_a_rule_and_its_default_passes():
    for field in dataclasses.fields(Params):
        assert params._RULES[field.name].allowed
    Params("defaults")


def test_the_check_also_holds_for_direct_construction_and_replace():
    assert "epochs" in refusal(Params, "mine", epochs=-1)
    assert "epochs" in refusal(dataclasses.replace, Params("mine"), epochs=-1)
    assert "profile" in refusal(Params, "../mine")


def test_params_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Params("mine").epochs = 3


def test_embedded_weights_need_thin_twins():
    assert "thin: true" in refusal(load_params, "paper", weights="embedded")
    assert "thin" in refusal(load_params, "quick", weights="imagenet")
    assert load_params("paper", weights="embedded", thin=True).thin


def test_a_key_given_twice_is_refused(yaml_file):
    line = refusal(load_params, yaml_file("epochs: 3\nseed: 1\nepochs: 4\n"))
    assert "mine.yaml" in line and "epochs is set twice" in line


NO_PROFILES = [
    "epochs: [3\n",
    "- 1\n- 2\n",
    "word\n",
    "profile: other\n",
    "epochs:\t3\n",  # tabs
    "\tepochs: 3\n",
    "epochs: 3\n\tseed: 4\n",
    "epochs: 3\n  seed: 4\n",
    "epochs\n",
    "? [epochs]\n: 3\n",  # a key that is a list
    "3: 4\n",
    "epochs: 3\n---\nepochs: 4\n",  # two documents
    "epochs: !!set {3, 4}\n",
    "data: 2024-01-01\n",
    'results: "a\\0b"\n',
    'results: "\\ud800"\n',
    "alpha: &x {MobileNet: *x}\n",  # holds itself
    "epochs: " + "[" * 5000,  # deeper than Python goes
    "epochs: \x01\n",
]


@pytest.mark.parametrize("text", NO_PROFILES)
def test_a_file_that_is_no_profile_is_refused_by_name(yaml_file, text):
    assert "mine.yaml" in refusal(load_params, yaml_file(text))


def test_a_file_that_is_no_text_is_refused_by_name(tmp_path):
    (tmp_path / "mine.yaml").write_bytes(b"\xff\xfe\x00")
    assert "mine.yaml" in refusal(load_params, str(tmp_path / "mine.yaml"))


def test_a_file_that_cannot_be_read_is_refused_by_name(yaml_file, monkeypatch):
    path = yaml_file("epochs: 3\n")

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", denied)
    assert f"{path}: cannot be read: Permission denied" in refusal(load_params, path)


def test_a_file_whose_name_is_no_profiles_is_refused(yaml_file):
    assert "'my own' is not allowed" in refusal(load_params, yaml_file("", "my own.yaml"))
    assert "profile" in refusal(load_params, yaml_file("", ".yaml"))


def test_nobodys_home_is_refused_and_ones_own_is_found(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_params("quick", results="~/rows").results_dir == tmp_path / "rows"
    line = refusal(lambda: load_params("quick", results="~nobody-of-this-name/rows").results_dir)
    assert "~nobody-of-this-name/rows" in line


def test_yaml_cannot_make_objects(yaml_file):
    line = refusal(load_params, yaml_file("epochs: !!python/object/apply:os.getcwd []\n"))
    assert "mine.yaml" in line


def test_a_notebooks_literals_are_its_parameters():
    namespace = {
        "__name__": "__main__",
        "_private": 3,
        "In": ["a cell"],
        "Out": {},
        "exit": print,
        "math": math,
        "Params": Params,
        "profile": "quick",
        "backbones": ["MobileNet"],
        "epochs": 2,
        "results": "results/quick",
        "data_dir": None,
    }
    loaded = from_notebook(namespace)
    assert loaded.backbones == ("MobileNet",)
    assert (loaded.epochs, loaded.profile) == (2, "quick")
    assert loaded.results_dir == ROOT / "results" / "quick"


def test_none_in_a_notebook_leaves_the_profiles_value():
    assert from_notebook({"profile": "quick", "backbones": None, "epochs": None}) == load_params(
        "quick"
    )


def test_a_notebook_refuses_what_papermill_only_warns_about():
    line = refusal(from_notebook, {"profile": "quick", "epoch": 3})
    assert "notebook: epoch:" in line and "did you mean epochs?" in line
    assert "backbones" in refusal(from_notebook, {"profile": "quick", "backbone": "VGG16"})


def test_a_notebook_needs_a_profile_and_takes_backbones_as_papermill_gives_them():
    assert "profile" in refusal(from_notebook, {"epochs": 3})
    given = from_notebook({"profile": "quick", "backbones": "VGG16 MobileNet"})
    assert given.backbones == ("VGG16", "MobileNet")
    line = refusal(from_notebook, {"profile": "quick", "backbones": "VGG61"})
    assert "did you mean VGG19 or VGG16?" in line


def test_folders_follow_the_profile(monkeypatch, tmp_path):
    monkeypatch.delenv("BLOCKWISE_CACHE", raising=False)
    quick = load_params("quick")
    assert quick.results_dir == ROOT / "results" / "quick"
    assert quick.figures_dir == ROOT / "figures" / "quick"
    assert quick.cache_dir == ROOT / "build" / "cache"
    moved = load_params("quick", results=str(tmp_path))
    assert (moved.results_dir, moved.figures_dir) == (tmp_path, tmp_path / "figures")
    moved = load_params("quick", results="rows", figures="drawn")
    assert (moved.results_dir, moved.figures_dir) == (ROOT / "rows", ROOT / "drawn")
    monkeypatch.setenv("BLOCKWISE_CACHE", str(tmp_path))
    assert quick.cache_dir == tmp_path


@pytest.mark.parametrize("key", ["results", "figures", "cache", "data", "weights"])
def test_the_home_of_nobody_is_refused_in_one_line(monkeypatch, key):
    monkeypatch.setenv("BLOCKWISE_CACHE", "~nobody-of-that-name/x")
    values = {} if key == "cache" else {key: "~nobody-of-that-name/x"}
    read = {
        "results": lambda p: p.results_dir,
        "figures": lambda p: p.figures_dir,
        "cache": lambda p: p.cache_dir,
        "data": load_data,
        "weights": lambda p: find_weights(p.weights, "VGG16"),
    }[key]
    line = refusal(lambda: read(load_params("quick", **values)))
    assert "'~nobody-of-that-name/x'" in line and "allowed: ~ for your own" in line


@pytest.mark.parametrize("key", ["data", "weights", "profile"])
def test_a_name_too_long_for_a_file_is_refused_in_one_line(key):
    name = "a" * 300
    given = {"profile": f"{name}.yaml"} if key == "profile" else {"profile": "quick", key: name}
    assert name in refusal(lambda: load_params(**given))


def test_a_path_that_is_no_text_is_refused(yaml_file):
    line = refusal(lambda: load_params(yaml_file('results: "\\ud800/x"')).results_dir)
    assert "results: '\\ud800/x' is not allowed" in line


def test_a_profile_that_may_not_be_read_is_refused_by_name(yaml_file, monkeypatch):
    def shut(path, **options):
        raise PermissionError(13, "Permission denied", str(path))

    path = yaml_file("epochs: 3")
    monkeypatch.setattr(params.Path, "read_text", shut)
    assert "Permission denied" in refusal(load_params, path)


def test_alpha_of_is_one_where_there_is_none():
    cpu = load_params("cpu")
    assert (cpu.alpha_of("MobileNet"), cpu.alpha_of("VGG16")) == (0.25, 1.0)
