"""Bad inputs, each with the words that its one line must hold; docs/bad-input.md is made of them.

``python tests/bad_inputs.py`` writes these tables; `test_main.py` tries each of them.
"""

import io
import os
import re
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest.mock import patch

import h5py
import numpy as np
from PIL import Image
from rows import row

from lib.__main__ import main
from lib.ledger import append_row
from lib.params import ROOT, load_params
from lib.photos.dataset import load_data, pack
from lib.report.tables import markdown
from lib.sweep import plans
from lib.upkeep.pages import replaced


def photo(path: Path, colour=(200, 30, 60)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 40), colour).save(path)


def nothing(folder: Path) -> None:
    (folder / "photos").mkdir()


def one_class(folder: Path) -> None:
    for i in range(4):
        photo(folder / "photos" / "daisy" / f"{i}.png")


def two_classes(folder: Path) -> None:
    one_class(folder)
    photo(folder / "photos" / "roses" / "0.png")


def empty_class(folder: Path) -> None:
    two_classes(folder)
    (folder / "photos" / "tulips").mkdir()


def no_image(folder: Path) -> None:
    two_classes(folder)
    (folder / "photos" / "roses" / "1.jpg").write_text("this is no image")


def half_an_image(folder: Path) -> None:
    two_classes(folder)
    path = folder / "photos" / "roses" / "1.jpg"
    Image.effect_noise((200, 200), 90).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[:3000])


def dangling_link(folder: Path) -> None:
    two_classes(folder)
    (folder / "photos" / "roses" / "1.jpg").symlink_to(folder / "moved.jpg")


def loop_of_links(folder: Path) -> None:
    two_classes(folder)
    (folder / "photos" / "tulips").symlink_to(folder / "photos" / "tulips")


def real_numbers(folder: Path) -> None:
    two_classes(folder)
    Image.new("F", (40, 40), 0.5).save(folder / "photos" / "roses" / "1.tif")


def rare_class(folder: Path) -> None:
    for i in range(40):
        photo(folder / "photos" / "daisy" / f"{i}.png")
    two_classes(folder)


def bomb(folder: Path) -> None:
    """A small file that would be a picture of 400 million pixels."""
    two_classes(folder)
    Image.new("1", (20_000, 20_000)).save(folder / "photos" / "roses" / "1.png")


def packed(folder: Path) -> None:
    pack(load_data(load_params("smoke")), folder / "photos.npz")


def packed_half(folder: Path) -> None:
    packed(folder)
    path = folder / "photos.npz"
    path.write_bytes(path.read_bytes()[:30_000])


def other_kind(folder: Path) -> None:
    two_classes(folder)
    (folder / "photos" / "roses" / "notes.docx").write_text("notes")


def other_weights(folder: Path) -> None:
    from lib.backbones.build import load_backbone

    other = load_backbone("VGG16", image_size=32, weights="none", thin=True)
    other.save_weights(folder / "vgg.weights.h5")


def half_weights(folder: Path) -> None:
    other_weights(folder)
    path = folder / "vgg.weights.h5"
    path.write_bytes(path.read_bytes()[:5000])


def no_weights(folder: Path) -> None:
    with h5py.File(folder / "empty.weights.h5", "w"):
        pass


def keras_2_weights(folder: Path) -> None:
    with h5py.File(folder / "old.weights.h5", "w") as file:
        file.attrs["layer_names"] = ["block1_conv1"]


def text_weights(folder: Path) -> None:
    (folder / "text.weights.h5").write_text("weights")


def pickled_weights(folder: Path) -> None:
    (folder / "model.pkl").write_bytes(b"\x80\x04.")


def sequential_model(folder: Path) -> None:
    import keras

    image, convolution = keras.Input((32, 32, 3)), keras.layers.Conv2D(4, 3)
    keras.Sequential([image, convolution]).save(folder / "mine.keras")


def model_with_code(folder: Path) -> None:
    import keras

    image = keras.Input((32, 32, 3))
    model = keras.Model(image, keras.layers.Lambda(lambda x: x)(image))
    model.save(folder / "mine.keras")


def text_model(folder: Path) -> None:
    (folder / "mine.keras").write_text("a model")


def strange_profile(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "mine.yaml").write_text(text)


def other_table(folder: Path) -> None:
    (folder / "old").mkdir()
    (folder / "old" / "baseline_1-VGG16.csv").write_text("a,b\n1,2\n")


def altered_row(folder: Path) -> None:
    path = folder / "old" / "baseline_1-VGG16.csv"
    append_row(path, row(method="baseline_1", val_loss=1.25))
    path.write_text(path.read_text().replace(",1.25,", ",1.26,"))


def other_settings(folder: Path) -> None:
    first = row(method="baseline_1", block="baseline_1", layers="", batch_size=99)
    append_row(folder / "old" / "baseline_1-VGG16.csv", first)


def begun_on_jax(folder: Path) -> None:
    """The first block of a search, trained on JAX; the rest is missing."""
    params = load_params("smoke", backbones=["VGG16"], results=str(folder / "old"))
    (plan,) = plans(params)
    block = plan.blocks("block_wise")[0]
    run = plan.run("block_wise", block, params.search_split, params.epochs, 0, "jax")
    first = row(**run.settings, method=run.method, block=block.name, key=run.key)
    first["curve"] = ";".join(["150"] * params.epochs)
    append_row(plan.ledger(run.method), first)


def file_in_the_way(folder: Path) -> None:
    (folder / "old").write_text("a file, no folder")


def drawn(folder: Path, count: int = 6) -> None:
    """So many photos of each of two classes, no two of them alike."""
    rng = np.random.default_rng(0)
    for name in ("daisy", "roses"):
        (folder / "photos" / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / name / f"{i}.png")


def few(folder: Path) -> None:
    drawn(folder, count=3)


def parts(folder: Path) -> None:
    for name in ("train/daisy", "train/roses", "val/daisy", "val/roses"):
        photo(folder / "photos" / name / "0.png")


def broken_class(folder: Path) -> None:
    drawn(folder)
    for path in (folder / "photos" / "roses").iterdir():
        path.write_text("this is no image")


def same_photos(folder: Path) -> None:
    for name in ("daisy", "roses"):
        photo(folder / "photos" / name / "0.png")


def other_columns(folder: Path) -> None:
    drawn(folder)
    (folder / "plants.csv").write_text("photo,plant\n")


def two_groups(folder: Path) -> None:
    drawn(folder)
    table = "file,group\ndaisy/0.png,a\ndaisy/0.png,b\n"
    (folder / "plants.csv").write_text(table)


def others_report(folder: Path) -> None:
    drawn(folder)
    (folder / "out").mkdir()
    (folder / "out" / "report.html").write_text("of somebody")


def file_for_a_folder(folder: Path) -> None:
    drawn(folder)
    (folder / "out").write_text("a file, no folder")


def tuned(folder: Path, names=("daisy", "roses"), inner: str = "flatten") -> None:
    """A model.keras as `make photos` writes it, but for what is asked for."""
    import keras

    from lib.tune.export import RESIZE, save

    top = {"flatten": keras.layers.Flatten(), "code": keras.layers.Lambda(lambda x: x[:, 0, 0])}
    photos = keras.Input((None, None, 3))
    small = top[inner](keras.layers.Resizing(8, 8, name=RESIZE)(photos))
    save(keras.Model(photos, keras.layers.Dense(2)(small)), names, folder / "model.keras")
    drawn(folder)


def tuned_half(folder: Path) -> None:
    tuned(folder)
    path = folder / "model.keras"
    path.write_bytes(path.read_bytes()[:3000])


def tuned_elsewhere(folder: Path) -> None:
    sequential_model(folder)
    (folder / "mine.keras").rename(folder / "model.keras")


def tuned_for_one_class(folder: Path) -> None:
    tuned(folder, ["daisy"])


def tuned_with_code(folder: Path) -> None:
    tuned(folder, inner="code")


def tuned_and_no_photo(folder: Path) -> None:
    tuned(folder)
    (folder / "empty").mkdir()


def other_file(folder: Path) -> None:
    (folder / "scheduler.json").write_text('{"epochs": 3}')


def dead_cluster(folder: Path) -> None:
    (folder / "scheduler.json").write_text('{"address": "tcp://127.0.0.1:9"}')


def tuned_and_no_image(folder: Path) -> None:
    tuned(folder)
    (folder / "broken.jpg").write_text("this is no image")


# Name, what is prepared in a folder, settings ({} is the folder), words of the one line.
OF_CHECK = [
    ("unknown profile", nothing, "profile=quik", "quik quick"),
    ("profile that is no file", nothing, "profile={}/none.yaml", "none.yaml"),
    ("profile that climbs out", nothing, "profile=../../quick", "../../quick"),
    ("unknown key", nothing, "profile=smoke epohcs=3", "epohcs epochs"),
    ("unknown key in a file", strange_profile("lerning_rate: 0.1"), "profile={}/mine.yaml",
     "mine.yaml lerning_rate learning_rate"),
    ("key given twice", strange_profile("epochs: 3\nepochs: 4"), "profile={}/mine.yaml",
     "mine.yaml epochs twice"),
    ("file that is no YAML", strange_profile("a: [1"), "profile={}/mine.yaml", "mine.yaml YAML"),
    ("file that is a list", strange_profile("- epochs"), "profile={}/mine.yaml",
     "mine.yaml key: value"),
    ("YAML that makes objects", strange_profile("epochs: !!python/object/apply:os.getpid []"),
     "profile={}/mine.yaml", "mine.yaml YAML"),
    ("not a setting", nothing, "profile=smoke epochs", "epochs KEY=VALUE"),
    ("misspelt backbone", nothing, "profile=smoke backbones=MobilNet", "MobilNet MobileNet"),
    ("backbone that is a path", nothing, "profile=smoke backbones=../VGG16", "../VGG16 VGG16"),
    ("misspelt network of Keras", nothing, "profile=cpu backbones=EficientNetB0",
     "EficientNetB0 EfficientNetB0 keras.applications"),
    ("part of Keras that is no network", nothing, "profile=cpu backbones=imagenet_utils",
     "imagenet_utils keras.applications .keras"),
    ("thin twin that is not there", nothing, "profile=smoke backbones=EfficientNetB0",
     "thin EfficientNetB0 false"),
    ("images too small for a network", nothing, "profile=smoke thin=false backbones=Xception",
     "image_size 32 Xception 71"),
    ("weights file for a network that takes none", nothing,
     "profile=smoke thin=false backbones=EfficientNetB0 weights={}/x.h5",
     "weights EfficientNetB0 imagenet none"),
    ("model file that is not there", nothing,
     "profile=smoke thin=false backbones={}/gone.keras", "gone.keras saved"),
    ("model file that is text", text_model,
     "profile=smoke thin=false backbones={}/mine.keras", "mine.keras zip"),
    ("model that is not functional", sequential_model,
     "profile=smoke thin=false backbones={}/mine.keras", "mine.keras Sequential functional"),
    ("model that would execute code", model_with_code,
     "profile=smoke thin=false backbones={}/mine.keras", "mine.keras Lambda code"),
    ("model file named as a network of Keras", nothing,
     "profile=smoke thin=false backbones={}/Xception.keras", "Xception.keras name"),
    ("backbone twice", nothing, "profile=smoke backbones=[VGG16,VGG16]", "backbones repeats"),
    ("number as text", strange_profile("learning_rate: 5e-5"), "profile={}/mine.yaml",
     "mine.yaml learning_rate 5e-5 5.0e-5"),
    ("rate of zero", nothing, "profile=smoke learning_rate=0", "learning_rate 0 above"),
    ("rate that is no number", nothing, "profile=smoke learning_rate=.nan", "learning_rate nan"),
    ("negative epochs", nothing, "profile=smoke epochs=-1", "epochs -1 1"),
    ("fraction of an epoch", nothing, "profile=smoke epochs=1.5", "epochs 1.5"),
    ("yes for a number", nothing, "profile=smoke repeats=true", "repeats True whole"),
    ("batch of none", nothing, "profile=smoke batch_size=0", "batch_size 0"),
    ("all units dropped", nothing, "profile=smoke dropout=1", "dropout 1 below"),
    ("image of 16 pixels", nothing, "profile=smoke image_size=16", "image_size 16 32"),
    ("unknown scaling", nothing, "profile=smoke input_scaling=raw", "input_scaling unit native"),
    ("unknown engine", nothing, "profile=smoke engine=fast", "engine plain fused"),
    ("no lanes", nothing, "profile=smoke lanes=0", "lanes 0 auto"),
    ("seed below zero", nothing, "profile=smoke seed=-1", "seed -1"),
    ("selecting on a loss", nothing, "profile=smoke select_on=val_loss", "select_on val_accuracy"),
    ("width of a VGG16", nothing, 'profile=smoke alpha={"VGG16":0.5}', "alpha VGG16"),
    ("more ranked layers than there are", nothing, "profile=smoke backbones=VGG16 top_k=[14]",
     "top_k 14 13"),
    ("window longer than the network", nothing, "profile=smoke backbones=VGG16 window=50",
     "window 50 18"),
    ("more random layers than there are", nothing, "profile=smoke backbones=VGG16 random_layers=14",
     "random_layers 14 13"),
    ("slice that is none", nothing, "profile=smoke search_split=train[:10", "search_split train["),
    ("slice beyond the photos", nothing, "profile=smoke search_split=train[:5000]", "5000 100"),
    ("class missing in a slice", nothing, "profile=smoke search_split=train[:2%]", "search_split"),
    ("slices that overlap", nothing, "profile=smoke eval_split=train[60%:]", "eval_split"),
    ("photo folder that is not there", nothing, "profile=smoke data={}/gone", "gone"),
    ("empty photo folder", nothing, "profile=smoke data={}/photos", "photos"),
    ("one class", one_class, "profile=smoke data={}/photos", "photos 1 class 2"),
    ("class without photos", empty_class, "profile=smoke data={}/photos", "tulips empty"),
    ("no image", no_image, "profile=smoke data={}/photos", "1.jpg no image"),
    ("half an image", half_an_image, "profile=smoke data={}/photos", "1.jpg truncated"),
    ("image bomb", bomb, "profile=smoke data={}/photos", "1.png 400000000"),
    ("photo of real numbers", real_numbers, "profile=smoke data={}/photos", "1.tif 32 bits"),
    ("link to nothing", dangling_link, "profile=smoke data={}/photos", "1.jpg moved.jpg not there"),
    ("link to itself", loop_of_links, "profile=smoke data={}/photos", "tulips back"),
    ("home of nobody", nothing, "profile=smoke data=~nobody-here/photos", "~nobody-here"),
    ("rare class missing in a slice", rare_class, "profile=smoke data={}/photos",
     "roses train[:85%]"),
    ("file of another kind", other_kind, "profile=smoke data={}/photos", "notes.docx"),
    ("packed photos cut short", packed_half, "profile=smoke data={}/photos.npz",
     "photos.npz make bundle"),
    ("packed photos of another size", packed, "profile=smoke data={}/photos.npz image_size=48",
     "image_size 48 photos.npz 32"),
    ("data folder without tf_flowers", nothing, "profile=cpu data_dir={}/photos",
     "tf_flowers photos"),
    ("more images than there is memory for", nothing,
     "profile=smoke n_images=100000 image_size=1024", "n_images 100000 GiB"),
    ("weights that are not there", nothing, "profile=smoke backbones=VGG16 weights={}/gone.h5",
     "gone.h5"),
    ("weights of another network", other_weights,
     "profile=smoke backbones=MobileNet weights={}/vgg.weights.h5", "vgg.weights.h5 MobileNet"),
    ("weights cut short", half_weights,
     "profile=smoke backbones=VGG16 weights={}/vgg.weights.h5", "vgg.weights.h5 VGG16"),
    ("weights file without weights", no_weights,
     "profile=smoke backbones=MobileNet weights={}/empty.weights.h5", "empty.weights.h5"),
    ("weights of Keras 2 named as of Keras 3", keras_2_weights,
     "profile=smoke backbones=VGG16 weights={}/old.weights.h5", "rename old.h5"),
    ("weights that are text", text_weights,
     "profile=smoke backbones=VGG16 weights={}/text.weights.h5", "text.weights.h5 VGG16"),
    ("weights in a pickle", pickled_weights, "profile=smoke backbones=VGG16 weights={}/model.pkl",
     "model.pkl .h5"),
    ("folder without the weights", nothing, "profile=smoke backbones=VGG16 weights={}/photos",
     "VGG16 photos thin_vgg16.weights.h5"),
    ("ImageNet for thin twins", nothing, "profile=smoke weights=imagenet", "imagenet thin"),
    ("embedded weights at full width", nothing, "profile=smoke thin=false weights=embedded",
     "embedded thin"),
    ("rows that are another table", other_table,
     "profile=smoke backbones=VGG16 results={}/old", "baseline_1-VGG16.csv header"),
    ("row with an altered digit", altered_row,
     "profile=smoke backbones=VGG16 results={}/old", "baseline_1-VGG16.csv line 2 altered"),
    ("rows of other settings", other_settings,
     "profile=smoke backbones=VGG16 results={}/old", "baseline_1-VGG16.csv batch_size 99"),
    ("search begun on another backend", begun_on_jax,
     "profile=smoke backbones=VGG16 results={}/old", "VGG16.csv lacks jax KERAS_BACKEND"),
    ("rows where a file is", file_in_the_way, "profile=smoke results={}/old/rows",
     "results_dir old"),
]  # fmt: skip


# The same, with the command.
THIN = "thin=true weights=none backbone=VGG16 image_size=32"
OF_PHOTOS = [
    ("no DIR", nothing, "photos dir=", "DIR missing"),
    ("DIR that is not there", nothing, "photos dir={}/gone", "dir gone sub-folder"),
    ("DIR without photos", nothing, "photos dir={}/photos", "photos no class at least 2 .png"),
    ("DIR with one class", one_class, "photos dir={}/photos", "photos 1 class; at least 2"),
    ("DIR with parts of a data set for classes", parts, "photos dir={}/photos",
     "train and val no classes photos/train"),
    ("the same photo in two classes", same_photos, "photos dir={}/photos",
     "daisy/0.png roses too"),
    ("too few photos", few, "photos dir={}/photos", "daisy has 3 roses at least 5"),
    ("a class that cannot be read", broken_class, f"photos dir={{}}/photos {THIN}",
     "1 class roses/0.png no image"),
    ("unknown strategy", nothing, "photos dir=x strategy=shortlst", "strategy shortlst halving"),
    ("unknown kind of candidates", nothing, "photos dir=x candidates=layer",
     "candidates layers blocks"),
    ("unknown setting", nothing, "photos dir=x epohcs=3", "epohcs epochs"),
    ("setting of a profile", nothing, "photos dir=x top_k=[3]", "top_k unknown strategy"),
    ("share beyond its range", nothing, "photos dir=x test=0.7", "test 0.7 0.4"),
    ("layers without their strategy", nothing, "photos dir=x layers=conv*",
     "layers strategy=fixed"),
    ("strategy without its layers", nothing, "photos dir=x strategy=fixed", "fixed layers share"),
    ("layers that are none", drawn,
     f"photos dir={{}}/photos strategy=fixed layers=conv9 {THIN}", "layers conv9 block1_conv1"),
    ("model file for a network", nothing, "photos dir=x backbone=mine.keras",
     "backbone mine.keras keras.applications"),
    ("photos too small for the network", nothing,
     "photos dir=x backbone=Xception image_size=64", "image_size 64 Xception 71"),
    ("weights that have seen no photos", nothing, "photos dir=x weights=none",
     "weights none imagenet"),
    ("ImageNet weights without a connection", drawn,
     "photos dir={}/photos backbone=VGG16",
     "VGG16 downloaded weights=<folder> vgg16_notop.weights.h5 ~/.keras/models"),
    ("weights folder without the network's", drawn,
     "photos dir={}/photos backbone=VGG16 weights={}/photos image_size=32",
     "weights VGG16 photos vgg16_notop.weights.h5"),
    ("weights file for a network without", nothing,
     "photos dir=x backbone=EfficientNetB0 weights={}/x.h5", "weights EfficientNetB0 imagenet"),
    ("pattern of groups that is none", drawn, f"photos dir={{}}/photos groups=( {THIN}",
     "groups ( regular expression"),
    ("groups in other columns", other_columns,
     f"photos dir={{}}/photos groups={{}}/plants.csv {THIN}", "plants.csv photo file group"),
    ("two groups of one photo", two_groups,
     f"photos dir={{}}/photos groups={{}}/plants.csv {THIN}", "plants.csv daisy/0.png a b"),
    ("OUT that holds files of others", others_report, f"photos dir={{}}/photos {THIN}",
     "out report.html new or empty"),
    ("OUT where a file is", file_for_a_folder, f"photos dir={{}}/photos {THIN}", "out folder"),
    ("no MODEL", nothing, "predict dir={}/photos", "MODEL missing model.keras"),
    ("no DIR to predict", nothing, "predict model={}/model.keras", "DIR missing my/photos"),
    ("unknown word of predict", nothing, "predict model={}/model.keras dir={} size=3",
     "size model dir out"),
    ("MODEL that is not there", drawn, "predict model={}/model.keras dir={}/photos",
     "model.keras No such file"),
    ("MODEL cut short", tuned_half, "predict model={}/model.keras dir={}/photos",
     "model.keras zip"),
    ("MODEL that make photos did not write", tuned_elsewhere,
     "predict model={}/model.keras dir={}/photos", "model.keras names make photos"),
    ("MODEL with too few names", tuned_for_one_class,
     "predict model={}/model.keras dir={}/photos", "model.keras 1 names 2"),
    ("MODEL that would execute code", tuned_with_code,
     "predict model={}/model.keras dir={}/photos", "model.keras Lambda"),
    ("OUT that is a photo", tuned,
     "predict model={}/model.keras dir={}/photos out={}/photos/daisy/0.png", "out daisy/0.png new"),
    ("no photo to predict", tuned_and_no_photo, "predict model={}/model.keras dir={}/empty",
     "empty no photo .png"),
    ("photo that is none", tuned_and_no_image, "predict model={}/model.keras dir={}/broken.jpg",
     "dir broken.jpg no image"),
]  # fmt: skip
TRAIN = "train profile=smoke backbones=VGG16"
OF_POOL = [
    ("WORKERS that is no number", nothing, "pool --workers=two -- true", "WORKERS two 0 99"),
    ("WORKERS with SCHEDULER", nothing, "pool --workers=2 --scheduler=tcp://x:1 -- true",
     "WORKERS 2 SCHEDULER tcp://x:1 one of the two"),
    ("SCHEDULER where nothing answers", nothing, f"SCHEDULER=tcp://127.0.0.1:9 {TRAIN}",
     "SCHEDULER tcp://127.0.0.1:9 tcp://<host>:<port>"),
    ("SCHEDULER that is not there", nothing, f"SCHEDULER={{}}/scheduler.json {TRAIN}",
     "SCHEDULER scheduler.json no scheduler file"),
    ("SCHEDULER that is no scheduler file", other_file, f"SCHEDULER={{}}/scheduler.json {TRAIN}",
     "SCHEDULER scheduler.json no scheduler file"),
    ("SCHEDULER of a dead cluster", dead_cluster, f"SCHEDULER={{}}/scheduler.json {TRAIN}",
     "SCHEDULER nothing answers tcp://127.0.0.1:9"),
]  # fmt: skip
BAD = [*OF_CHECK, *OF_PHOTOS, *OF_POOL]
NO_CONNECTION = {"https_proxy": "http://127.0.0.1:9", "no_proxy": ""}  # where nobody listens


def command_of(settings: str, folder: Path) -> list[str]:
    """The words of a bad input: a command and its settings, with results inside the folder."""
    command, *words = settings.split()
    if command in ("predict", "pool"):
        return [command, *words]
    if command == "photos":
        return [command, *words, f"out={folder / 'out'}"]
    if "results=" not in settings:
        words.append(f"results={folder / 'rows'}")
    if command == "train":
        return [command, *words]
    return ["check", command, *words]


def refusal(prepare: Callable[[Path], None], settings: str, folder: Path) -> tuple[int, str, bool]:
    """Exit status and error output of a command on a bad input; whether it left results behind.

    The plan of `make photos` is none: it is written before the photos are read.
    """
    prepare(folder)
    plan = {folder / "out", folder / "out" / "plan.json"}
    before = {*folder.rglob("*")} | plan
    environment = {"BLOCKWISE_CACHE": str(folder.parent / f"{folder.name}-cache")}
    settings = settings.replace("{}", str(folder))
    if settings.startswith("SCHEDULER="):
        scheduler, settings = settings.split(maxsplit=1)
        environment["SCHEDULER"] = scheduler.removeprefix("SCHEDULER=")
    error = io.StringIO()
    with (
        patch.dict(os.environ, environment | NO_CONNECTION),
        patch("lib.pool.client.PATIENCE", 1),
        redirect_stderr(error),
        redirect_stdout(io.StringIO()),
    ):
        code = main(command_of(settings, folder))
    return code, error.getvalue().strip(), not before >= {*folder.rglob("*")}


def table(some: list[tuple]) -> str:
    """Bad inputs and the one line of each, as a Markdown table."""
    lines = []
    for name, prepare, settings, _ in some:
        with tempfile.TemporaryDirectory() as folder:
            inner = Path(folder) / "here"
            inner.mkdir()
            _, line, _ = refusal(prepare, settings, inner)
            line = line.removeprefix("error: ").replace(str(inner), "…").replace(str(ROOT), "…")
            line = re.sub(r"the [\d.]+ (\w+) that are free", r"the … \1 that are free", line)
        lines.append([name, f"`{line.replace('|', '/')}`"])
    return markdown(["", ""], lines, f"{len(some)} bad inputs, each tried by `make test`.")


if __name__ == "__main__":
    os.environ["KERAS_HOME"] = tempfile.mkdtemp()  # no weights are there already
    page = ROOT / "docs" / "bad-input.md"
    text = page.read_text(encoding="utf-8")
    for section, some in {"bad": OF_CHECK, "photos": OF_PHOTOS, "pool": OF_POOL}.items():
        text = replaced(text, section, table(some))
    page.write_text(text, encoding="utf-8")
