"""The embedding explorer without a browser: points, neighbours and sounds are those of the clips."""

import asyncio
import base64
import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from notebook_case import stock_papermill
from PIL import Image
from scipy.spatial.distance import pdist
from test_figures import check_layout
from widgets_case import assert_flat, assert_widget_and_picture

from asit_lab import load_config
from asit_lab.data import load_manifest
from asit_lab.embedding.projection import align, project
from asit_lab.encoder import Encoder
from asit_lab.errors import InputError
from asit_lab.figures import embedding_map
from asit_lab.inspection.reconstruction_error import clip_errors
from asit_lab.widgets import EmbeddingExplorer, embedding
from asit_lab.widgets.clip_colours import COLUMNS
from asit_lab.widgets.encoder_plane import NEIGHBOURS

NOTEBOOK = Path(__file__).resolve().parent.parent / "notebooks" / "explore_embeddings.ipynb"
RATE = 16000


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    """The project's root, where embeddings are kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ASIT_LAB_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def enc():
    return Encoder.random(load_config("smoke"), 0)


@pytest.fixture(scope="module")
def made(enc):
    return EmbeddingExplorer(enc, "synth:24")


@pytest.fixture
def explorer(made):
    """With its controls where they were at first."""
    made.data.value, made.layer.value, made.pool.value = "synth:24", 2, "mean+std"
    made.map.hovered, made.map.selected = -1, 0
    assert made.message.text == ""
    return made


def heard(sound) -> np.ndarray:
    return soundfile.read(io.BytesIO(bytes(sound.player.value)))[0]


def wave_of(row: int, data: str = "synth:24") -> np.ndarray:
    return load_manifest(data).read(row, RATE)


def test_it_shows_a_picture_at_once_and_leaves_it_with_the_view(explorer):
    bundle = explorer._repr_mimebundle_()
    image = Image.open(io.BytesIO(base64.b64decode(bundle["image/png"])))
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert image.width > 600 and image.height > 800 and np.asarray(image)[..., :3].std() > 10
    assert {"asit-explorer", "asit-embedding"} <= set(explorer._dom_classes)
    assert len(explorer.map.names) == 24


def test_nothing_is_played_before_a_click(enc):
    explorer = EmbeddingExplorer(enc, "synth:12")
    assert not explorer.sound.player.autoplay and explorer.sound.layout.display == "flex"
    np.testing.assert_allclose(heard(explorer.sound), wave_of(explorer.chosen), atol=1e-4)


def test_a_click_is_heard(explorer):
    explorer.map.selected = 7
    np.testing.assert_allclose(heard(explorer.sound), wave_of(7), atol=1e-4)
    assert explorer.sound.player.autoplay and explorer.near_sound.layout.display == "none"
    label = load_manifest("synth:24").table["label"].iloc[7]
    assert explorer.map.names[7] == f"{label}, clip 7, 7" and explorer.map.names[7] in explorer.facts.value


def test_neighbours_are_the_nearest_by_cosine(explorer):
    for clip in (0, 5, 23):
        explorer.map.selected = clip
        vectors = explorer.space.vectors(2, "mean+std")
        cosines = [np.dot(vectors[clip], one) / np.linalg.norm(vectors[clip]) / np.linalg.norm(one) for one in vectors]
        expected = [one for one in np.argsort(cosines)[::-1].tolist() if one != clip][:NEIGHBOURS]
        assert explorer.near.tolist() == expected
        assert explorer.strip.labels[0] == f"similarity {cosines[expected[0]]:.2f}, {explorer.map.names[expected[0]]}"
        labels = explorer.space.labels
        same = sum(labels[one] == labels[clip] for one in expected)
        assert f"{same} of 8 nearest neighbours have its label." in explorer.facts.value


def test_planted_neighbours(explorer, monkeypatch):
    """Clips on a circle, seven steps of 24 a clip: the nearest are known, whatever the plane shows."""
    angles = 2 * np.pi * (7 * np.arange(24) % 24) / 24
    planted = np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.arange(1, 25)[:, None]
    monkeypatch.setattr(explorer.space, "vectors", lambda layer, pool: planted)
    explorer.map.selected = 10
    steps = {(7 * clip - 7 * 10) % 24: clip for clip in range(24)}
    wanted = [{steps[step], steps[24 - step]} for step in (1, 2, 3, 4)]
    assert [set(explorer.near[at : at + 2].tolist()) for at in range(0, 8, 2)] == wanted
    assert explorer.map.near == explorer.near.tolist()


def test_a_neighbour_is_heard_and_can_be_chosen(explorer):
    explorer.map.selected = 3
    before = explorer.png()
    assert explorer.go.disabled and explorer.strip.selected == -1
    explorer.strip.selected = 2
    near = int(explorer.near[2])
    np.testing.assert_allclose(heard(explorer.near_sound), wave_of(near), atol=1e-4)
    assert not explorer.go.disabled and explorer.map.selected == 3
    explorer.go.click()
    assert explorer.map.selected == near and explorer.png() != before
    np.testing.assert_allclose(heard(explorer.sound), wave_of(near), atol=1e-4)
    assert explorer.go.disabled and explorer.strip.selected == -1 and explorer.near_sound.layout.display == "none"


def test_it_opens_on_a_clip_whose_neighbours_have_its_label_and_says_how_many_have(enc):
    explorer = EmbeddingExplorer(enc, "synth:60")
    space, choice = explorer.space, explorer.views[0].choice
    near = [[space.labels[n] for n in space.nearest(clip, NEIGHBOURS, *choice)[0]] for clip in range(60)]
    voted = [Counter(row).most_common(1)[0][0] == label for row, label in zip(near, space.labels, strict=True)]
    same = sum(row[0] == label for row, label in zip(near, space.labels, strict=True))
    assert 0 < sum(voted) < 60 and explorer.chosen == explorer.map.selected == voted.index(True)
    words = f"; the nearest neighbour has a clip's label for {100 * same / 60:.0f} %"
    assert explorer.map.method.endswith(f"mean+std{words}")


def test_of_clips_without_labels_no_share_is_told(enc, tmp_path):
    for name in "abc":
        soundfile.write(tmp_path / f"{name}.wav", np.random.default_rng(ord(name)).normal(0, 0.1, RATE), RATE)
    explorer = EmbeddingExplorer(enc, f"folder:{tmp_path}")
    assert explorer.chosen == 0 and explorer.map.method.endswith("mean+std")


def test_hovering_shows_a_clip_and_leaving_the_chosen_one(explorer):
    chosen = explorer.thumbnail.value
    explorer.map.hovered = 11
    assert explorer.thumbnail.value != chosen and explorer.map.names[11] in explorer.thumbnail.tooltip
    explorer.map.hovered = -1
    assert explorer.thumbnail.value == chosen and explorer.map.selected == 0


@pytest.mark.parametrize(
    ("control", "value"),
    [
        ("layer", 0),
        pytest.param("pool", "class", marks=pytest.mark.slow),
        pytest.param("pool", "mean", marks=pytest.mark.slow),
    ],
)
def test_another_layer_or_pooling_gives_other_points(explorer, control, value):
    explorer.map.selected = 4
    before = explorer.png()
    getattr(explorer, control).value = value
    assert explorer.message.text == "" and explorer.png() != before and explorer.map.selected == 4
    points = explorer.space.points(explorer.layer.value, explorer.pool.value)
    np.testing.assert_allclose(pdist(points_on(explorer.map)), pdist(points), rtol=1e-3)  # turned, perhaps


def test_maps_keep_their_orientation(explorer):
    """A mirrored, turned map is put back; distances stay."""
    points = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    turned = points @ np.array([[0.6, 0.8], [0.8, -0.6]]) + 5
    np.testing.assert_allclose(align(turned, points), points - points.mean(0), atol=1e-5)


def test_methods_of_projection(explorer):
    explorer.method.value = "PCA"
    main = project(explorer.space.vectors(2, "mean+std"), method="PCA")
    np.testing.assert_allclose(pdist(points_on(explorer.map)), pdist(main), rtol=1e-3)
    assert explorer.map.method.startswith("PCA of final output")
    explorer.method.value = "t-SNE"
    with pytest.raises(InputError, match="'LDA' is not one of t-SNE, PCA, UMAP"):
        project(main, method="LDA")


@pytest.mark.parametrize("column", COLUMNS)
def test_points_are_coloured_by(explorer, column):
    explorer.colour.value = column
    plane, values = explorer.map, np.frombuffer(explorer.map.values, "<f4")
    assert explorer.message.text == "" and len(values) == 24
    if column in ("length", "level", "reconstruction"):
        assert plane.range == pytest.approx([values.min(), values.max()]) and plane.categories == []
        wave = wave_of(3)
        wanted = {
            "length": len(wave) / RATE,
            "level": 10 * np.log10(np.mean(wave.astype(float) ** 2)),
            "reconstruction": clip_errors(explorer.encoder, explorer.space.manifest)["ratio"][3],
        }
        assert values[3] == pytest.approx(wanted[column], abs=0.01)
    else:
        assert plane.range == [] and values.max() < len(plane.categories)
        shown = [plane.categories[int(value)] for value in values]
        predicted = explorer.space.predicted(8, 2, "mean+std")
        labels = explorer.space.labels
        right = ["right" if a == b else "wrong" for a, b in zip(predicted, labels, strict=True)]
        if column in ("label", "prediction", "error"):
            assert shown == {"label": labels, "prediction": predicted, "error": right}[column]
    explorer.colour.value = "label"


def test_points_have_no_colours_of_other_clips_while_theirs_are_measured(enc):
    explorer = EmbeddingExplorer(enc, "synth:12")
    explorer.colour.value = "level"

    async def another() -> None:
        explorer.data.value = "synth:20"
        await explorer.work.task  # embedded
        assert explorer.map.categories == ["not measured"] and len(explorer.map.values) == 4 * 20
        await explorer.work.task  # measured

    asyncio.run(another())
    assert np.isfinite(np.frombuffer(explorer.map.values, "<f4")).all()


def test_a_neighbour_that_is_chosen_again_is_played_again(explorer):
    explorer.strip.selected = 1
    told = told_of(explorer.near_sound)
    explorer.strip._handle_custom_msg({"kind": "again"}, [])
    assert told == [True, b"", bytes(explorer.near_sound.player.value)] and len(told[2]) > 1000


def test_the_chosen_clip_that_is_clicked_again_is_played_again_and_no_more(explorer):
    explorer.map.selected = 3
    explorer.strip.selected = 2
    told = told_of(explorer.sound)
    explorer.map._handle_custom_msg({"kind": "again"}, [])
    assert told == [True, b"", bytes(explorer.sound.player.value)] and len(told[2]) > 1000
    assert explorer.strip.selected == 2 and not explorer.go.disabled  # the neighbour stays


def test_a_click_on_the_clip_before_an_upload_is_no_trouble(explorer, tmp_path):
    soundfile.write(tmp_path / "own.wav", wave_of(7), RATE)
    explorer.upload.path = tmp_path / "own.wav"
    explorer.upload.changed += 1
    explorer.map._handle_custom_msg({"kind": "again"}, [])  # was sent while the upload was embedded
    assert explorer.message.text == "" and explorer.query.name == "own.wav" and explorer.chosen == -1


def told_of(sound) -> list:
    """What the page is told of a player from here on: `autoplay` as it is, then the bytes that are sent."""
    told = [sound.player.autoplay]
    sound.player.observe(lambda change: told.append(bytes(change["new"])), names="value")
    return told


def test_a_class_keeps_its_colour_where_classes_are_predicted(explorer):
    explorer.colour.value = "label"
    labels = explorer.map.categories
    explorer.pool.value = "mean"
    explorer.colour.value = "prediction"
    assert explorer.map.categories == labels == sorted(set(explorer.space.labels))
    explorer.colour.value, explorer.pool.value = "label", "mean+std"


def test_ten_classes_have_ten_colours(explorer):
    assert len(explorer.map.categories) == 10 and len(set(explorer.map.palette[:10])) == 10


def test_the_table_of_the_plane_says_what_a_clip_is(explorer):
    table = dict(zip(explorer.map.columns, explorer.map.rows[7], strict=True))
    row = load_manifest("synth:24").table.iloc[7]
    assert (table["clip"], table["label"]) == ("7", row["label"]) and table["path"] == row["path"]
    assert float(table["seconds"]) == pytest.approx(row["seconds"], abs=1e-3)


def points_on(plane) -> np.ndarray:
    return np.frombuffer(plane.points, "<f4").reshape(-1, 2)


def test_a_long_title_ends_before_the_legend(enc, tmp_path):
    (tmp_path / "with_a_name_that_goes_on").mkdir()
    for number in range(4):
        wave = np.random.default_rng(number).normal(0, 0.1, RATE)
        soundfile.write(tmp_path / "with_a_name_that_goes_on" / f"{number}.wav", wave, RATE)
    explorer = EmbeddingExplorer(enc, f"folder:{tmp_path / 'with_a_name_that_goes_on'}")
    assert explorer.message.text == ""
    points, labels, title, method = (
        points_on(explorer.map),
        explorer.space.labels,
        explorer.map.title,
        explorer.map.method,
    )
    assert title.startswith("random init (seed 0); 4 clips of folder:") and title.endswith("…")
    check_layout(embedding_map(points, labels, title, method))


@pytest.mark.slow
def test_another_data_set_and_one_that_is_none(explorer):
    explorer.map.selected = 20
    explorer.data.value = "synth:11"
    assert len(explorer.map.names) == 11 and explorer.map.selected == 0
    np.testing.assert_allclose(heard(explorer.sound), wave_of(explorer.chosen), atol=1e-4)
    before, facts = explorer.png(), explorer.facts.value
    explorer.data.value = "sinth:11"
    assert "did you mean synth" in explorer.message.text
    assert explorer.png() == before and explorer.facts.value == facts
    explorer.map.selected = 5
    assert explorer.message.text == "" and explorer.png() != before


def test_a_large_data_set_is_drawn_from(enc):
    explorer = EmbeddingExplorer(enc, "synth:40", clips=12)
    assert len(explorer.map.names) == 12 and len(explorer.near) == NEIGHBOURS
    row = int(explorer.space.rows[5])
    explorer.map.selected = 5
    np.testing.assert_allclose(heard(explorer.sound), wave_of(row, "synth:40"), atol=1e-4)
    assert f"clip {row}," in explorer.map.names[5]


def test_an_uploaded_sound_has_neighbours(explorer, tmp_path):
    """It is a clip of the data set, so that clip is the nearest."""
    explorer.map.selected = 4
    before = explorer.png()
    soundfile.write(tmp_path / "knock.wav", wave_of(9), RATE)
    explorer.upload.path = tmp_path / "knock.wav"
    explorer.upload.changed += 1
    assert explorer.message.text == "" and explorer.near[0] == 9 and explorer.map.selected == -1
    assert explorer.facts.value.count("knock.wav") == 1 and explorer.png() != before
    np.testing.assert_allclose(heard(explorer.sound), wave_of(9), atol=1e-3)
    assert "Only its first" not in explorer.facts.value
    soundfile.write(tmp_path / "long.wav", np.tile(wave_of(9), 3), RATE)
    explorer.upload.path = tmp_path / "long.wav"
    explorer.upload.changed += 1
    assert "Only its first 10 s of 15 s are embedded." in explorer.facts.value
    explorer.upload.path = tmp_path / "knock.wav"
    explorer.upload.changed += 1
    explorer.map.hovered = 3  # its log-mel for a moment
    explorer.map.hovered = -1
    explorer.layer.value = 0  # neighbours of the same sound
    assert explorer.near[0] == 9 and explorer.query is not None
    explorer.strip.selected = 0
    explorer.go.click()
    assert explorer.map.selected == 9 and explorer.query is None and explorer.near[0] != 9


def test_two_encoders_side_by_side(enc):
    """The same clips; a choice on either plane is one on both, and each has its own neighbours."""
    other = Encoder.random(load_config("smoke", ["model.depth=1"]), 1)
    explorer = EmbeddingExplorer(enc, "synth:24", compare=other)
    first, second = explorer.views
    assert explorer.message.text == "" and first.plane.names == second.plane.names
    second.plane.selected = 5
    assert explorer.chosen == first.plane.selected == 5
    assert second.near.tolist() == second.space.nearest(5, NEIGHBOURS, 1, "mean+std")[0].tolist() != first.near.tolist()
    shared = len(set(first.near.tolist()) & set(second.near.tolist()))
    assert f"{shared} of them are neighbours by random init (seed 1), too." in explorer.facts.value
    explorer.layer.value = 1  # the other has one block, and its output
    assert first.choice == (1, "mean+std") and second.choice == (0, "mean+std")
    second.strip.selected = 1
    explorer.go.click()
    assert explorer.chosen == second.plane.selected != 5
    explorer.colour.value = "prediction"
    assert explorer.message.text == "" and first.plane.values != second.plane.values


def test_few_clips_have_fewer_neighbours(enc):
    explorer = EmbeddingExplorer(enc, "synth:3")
    assert explorer.message.text == "" and sorted(explorer.near.tolist()) == [1, 2]


def test_files_that_cannot_be_read_are_left_out_and_said(enc, tmp_path, monkeypatch):
    for number in range(5):
        folder = tmp_path / "clips" / "ab"[number % 2]
        folder.mkdir(exist_ok=True, parents=True)
        soundfile.write(folder / f"{number} $x$.wav", np.random.default_rng(number).normal(0, 0.1, RATE), RATE)
    manifest = load_manifest(f"folder:{tmp_path / 'clips'}")
    with open(manifest.table["path"].iloc[1], "r+b") as file:
        file.truncate(60)
    explorer = EmbeddingExplorer(enc, "synth:10")
    monkeypatch.setattr(embedding, "load_manifest", lambda spec: manifest)  # listed before it was damaged
    explorer.data.value = manifest.source
    assert len(explorer.map.names) == 4 and explorer.space.rows.tolist() == [0, 2, 3, 4]
    assert (
        "Left out, as they cannot be embedded: 1; the first: " in explorer.facts.value and explorer.message.text == ""
    )


def test_a_file_that_goes_away_is_said_in_words(enc, tmp_path):
    (tmp_path / "a").mkdir()
    for number in range(4):
        soundfile.write(tmp_path / "a" / f"{number}.wav", np.random.default_rng(number).normal(0, 0.1, RATE), RATE)
    explorer = EmbeddingExplorer(enc, f"folder:{tmp_path}")
    (tmp_path / "a" / "2.wav").unlink()
    explorer._log_mel.cache_clear()
    explorer.map.hovered = 2
    assert "2.wav" in explorer.message.text
    explorer.map.hovered = -1
    assert explorer.message.text == ""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"encoder_or_run": "smok"}, "smok: no such run, snapshot or preset"),
        ({"encoder_or_run": "smoke", "data": "sinth"}, "unknown source 'sinth'"),
        ({"encoder_or_run": "smoke", "layer": 3}, "layer: 3 is not one of 2 (0 to 1), or None for the final output"),
        ({"encoder_or_run": "smoke", "pool": "median"}, "pool: 'median' is not one of mean+std, mean, class"),
        ({"encoder_or_run": "smoke", "data": "synth:1"}, "neighbours need two"),
        ({"encoder_or_run": "smoke", "data": 3}, 'such as "folder:PATH" or "synth", got a int'),
    ],
)
def test_a_wrong_argument_is_said_in_words(arguments, words):
    explorer = EmbeddingExplorer(**arguments)
    assert words in explorer.message.text
    assert "image/png" not in explorer._repr_mimebundle_()


def test_it_can_be_mended_after_a_wrong_data_set():
    explorer = EmbeddingExplorer("smoke", "sinth")
    explorer.pool.value = "mean"  # nothing to draw yet, which is said and not raised
    explorer.map.hovered = 1
    explorer.go.click()
    explorer.data.value = "synth:10"
    assert explorer.message.text == "" and explorer.png()


def test_a_class_token_that_is_not_there_yet():
    late = Encoder.random(load_config("smoke", ["model.class_token_at=1"]), 0)
    explorer = EmbeddingExplorer(late, "synth:12", layer=0, pool="mean")
    before = explorer.png()
    explorer.pool.value = "class"
    assert "layer 0 has no class token, which joins at block 1" in explorer.message.text and explorer.png() == before
    explorer.map.selected = 3  # still in the space that is drawn
    assert explorer.message.text == "" and explorer.png() != before
    explorer.layer.value = 1
    assert explorer.message.text == ""


@pytest.mark.slow
def test_memory_and_output_stay_flat_in_200_moves(explorer):
    def move(n):
        explorer.map.selected = n % 24
        explorer.map.hovered = (5 * n + 1) % 24
        if n % 20 == 0:
            explorer.layer.value = n // 20 % 3

    assert_flat(explorer, move, moves=200)


@pytest.mark.notebook
def test_the_notebook_runs_under_stock_papermill(tmp_path):
    done = stock_papermill(NOTEBOOK, tmp_path, "data", "synth:20")
    assert done.returncode == 0, done.stderr[-6000:]
    assert_widget_and_picture(tmp_path / "out.ipynb")
