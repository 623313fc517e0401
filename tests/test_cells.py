"""Which variables count as parameters, on plain dicts and in the kernel of a notebook."""

import json
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from lib.params import ROOT, InputError, from_notebook, load_params

PARAMETERS = (
    "from pathlib import Path\nimport numpy as np\nprofile = 'quick'\nbackbones = ['VGG16']\n"
)
QUICK = load_params("quick").epochs
CHECK = "from lib.params import from_notebook\nparams = from_notebook(globals())"
SHOW = "import dataclasses, json\nprint(json.dumps(dataclasses.asdict(params)))"


@pytest.fixture(scope="module")
def client():
    """A kernel that no other test uses."""
    client = NotebookClient(nbformat.v4.new_notebook(), kernel_name="python3")
    client.nb.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": ""}
    with client.setup_kernel(cwd=str(ROOT)):
        yield client


@pytest.fixture
def run(client):
    """A function that runs cells in a kernel without variables and returns what they printed."""

    def cells(*sources):
        client.nb.cells = [nbformat.v4.new_code_cell(source) for source in sources]
        for i, cell in enumerate(client.nb.cells):
            client.execute_cell(cell, i, store_history=True)
        outputs = client.nb.cells[-1].outputs
        return "".join(output.get("text", "") for output in outputs)

    cells("%reset -f in", "%reset -f")
    return cells


def parameters(run, *sources):
    """The parameters after these cells and a check."""
    return json.loads(run(*sources, CHECK, SHOW))


def refusal(run, *sources):
    """The one line with which the last of these cells refuses its input."""
    with pytest.raises(CellExecutionError) as caught:
        run(*sources)
    assert caught.value.ename == "InputError"
    return caught.value.evalue


def test_a_name_added_to_the_cell_counts_when_it_runs_again(run):
    assert parameters(run, PARAMETERS)["epochs"] == QUICK
    assert parameters(run, PARAMETERS + "epochs = 7")["epochs"] == 7
    assert parameters(run, PARAMETERS)["epochs"] == QUICK  # and no longer once it is gone


def test_another_cell_that_names_a_profile_leaves_the_rest(run):
    parameters(run, PARAMETERS)
    found = parameters(run, "profile = 'smoke'")
    assert (found["profile"], found["backbones"]) == ("smoke", ["VGG16"])


def test_a_misspelt_name_is_refused_whenever_the_cell_runs(run):
    misspelt = PARAMETERS + "lerning_rate = 0.1"
    assert "did you mean learning_rate?" in refusal(run, misspelt, CHECK)
    assert parameters(run, PARAMETERS)["learning_rate"] == 2e-3
    for _ in range(2):
        assert "notebook: lerning_rate: unknown" in refusal(run, misspelt, CHECK)
    assert "lerning_rate" in refusal(run, CHECK)
    assert parameters(run, PARAMETERS)["learning_rate"] == 2e-3


def test_what_papermill_injects_counts_and_is_checked(run):
    injected = '# Parameters\nbackbones = "MobileNet"\nepochs = 3\n'
    found = parameters(run, PARAMETERS, injected)
    assert (found["epochs"], found["backbones"]) == (3, ["MobileNet"])
    found = parameters(run, PARAMETERS, injected.replace("3", "4") + 'profile = "smoke"\n')
    assert (found["epochs"], found["profile"], found["backbones"]) == (4, "smoke", ["MobileNet"])
    assert "epohcs" in refusal(run, PARAMETERS, "# Parameters\nepohcs = 3\n", CHECK)


def test_what_other_cells_make_is_their_own(run):
    wide = PARAMETERS + "alpha = {'MobileNet': 0.5}"
    other = "size, alpha = params.image_size, 0.25\nlerning_rate = [k for k in (1, 2)]\nrows = {1}"
    assert parameters(run, wide)["alpha"] == {"MobileNet": 0.5}
    assert parameters(run, other)["alpha"] == {"MobileNet": 0.5}
    assert parameters(run, "%time data = 3")["data"] == "procedural_flowers"
    with pytest.raises(CellExecutionError):
        run("no python")
    assert parameters(run)["data"] == "procedural_flowers"


def test_a_value_that_is_lost_before_it_was_read_is_not_guessed(run):
    parameters(run, PARAMETERS)
    line = refusal(run, PARAMETERS + "top_k = [2]", "top_k = params.top_k", CHECK)
    assert "top_k was set anew by another cell" in line
    assert parameters(run, PARAMETERS + "top_k = [2]")["top_k"] == [2]


def test_a_cell_of_parameters_alone_counts_wherever_it_is(run):
    parameters(run, PARAMETERS)
    assert parameters(run, "epochs = 7\nseed: int = 5\n")["epochs"] == 7
    assert parameters(run, PARAMETERS)["epochs"] == 7  # as in Python: nothing has taken it back
    assert parameters(run, "del epochs")["epochs"] == QUICK


def test_values_that_are_no_literals_count_in_a_kernel(run):
    values = "results = Path('/tmp') / 'rows'\nepochs = np.int64(7)\nlearning_rate = np.float32(.5)"
    found = parameters(run, PARAMETERS + values)
    assert (found["results"], found["epochs"], found["learning_rate"]) == ("/tmp/rows", 7, 0.5)
    assert "top_k: {3, 5} is not allowed" in refusal(run, PARAMETERS + "top_k = {3, 5}", CHECK)


def test_parameters_may_come_from_elsewhere(run, tmp_path):
    (tmp_path / "mine.py").write_text("epochs = 9\nprofile = 'quick'\n")
    assert parameters(run, f"%run {tmp_path / 'mine.py'}")["epochs"] == 9


def test_what_a_kernel_starts_with_is_no_parameter(run):
    own = "get_ipython().push({'batch_sise': 3, 'seed': 12}, interactive=False)"
    assert parameters(run, own, PARAMETERS)["seed"] == 0
    assert parameters(run, PARAMETERS + "seed = 12")["seed"] == 12


def test_parameters_and_check_in_one_cell(run):
    both = f"{PARAMETERS}epochs = 5\n{CHECK}"
    for _ in range(2):
        assert json.loads(run(both, SHOW))["epochs"] == 5


VALUES = [
    ("results", Path("some") / "rows", "some/rows"),
    ("epochs", np.int64(7), 7),
    ("learning_rate", np.float32(0.25), 0.25),
    ("deterministic", np.True_, True),
    ("engine", np.str_("plain"), "plain"),
    ("top_k", [np.int8(2), 4], (2, 4)),
    ("alpha", {np.str_("MobileNet"): np.float64(0.5)}, {"MobileNet": 0.5}),
]


@pytest.mark.parametrize(("name", "value", "wanted"), VALUES)
def test_paths_and_numpy_scalars_are_parameters(name, value, wanted):
    for loaded in (
        from_notebook({"profile": "quick", name: value}),
        load_params("quick", **{name: value}),
    ):
        assert getattr(loaded, name) == wanted
        assert type(getattr(loaded, name)) is type(wanted)


def test_a_path_may_be_the_profile():
    assert from_notebook({"profile": ROOT / "params" / "smoke.yaml"}) == load_params("smoke")


OTHER_VALUES = [
    ("epochs", {7}),
    ("top_k", {3, 5}),
    ("top_k", np.array([3, 5])),
    ("lanes", np.array([3, 5])),
    ("alpha", {3}),
    ("data", b"photos"),
    ("seed", 1j),
    ("epochs", np.timedelta64(3, "D")),
    ("epochs", len),
    ("backbones", {"VGG16"}),
    ("profile", {"quick"}),
]


@pytest.mark.parametrize(("name", "value"), OTHER_VALUES)
def test_values_of_other_types_are_refused(name, value):
    with pytest.raises(InputError, match=f"{name}: "):
        from_notebook({"profile": "quick", name: value})


def test_a_plain_dict_is_checked_whole_each_time():
    namespace = {"profile": "quick", "Path": Path, "np": np}
    assert from_notebook(namespace).epochs == QUICK
    namespace["params"] = from_notebook(namespace | {"epochs": 7})
    assert namespace["params"].epochs == 7
    assert from_notebook(namespace).epochs == QUICK
    for value in (0.1, None, np.float32(3), object()):
        with pytest.raises(InputError, match="lerning_rate"):
            from_notebook(namespace | {"lerning_rate": value})
