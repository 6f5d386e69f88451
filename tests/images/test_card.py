"""The card survives JSON and refuses everything else that a stranger may send."""

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threepc.errors import InputError
from threepc.images.card import LARGEST_SIDE, MOST_CLASSES, ModelCard, Preprocessing, Sliding

CARD = ModelCard(
    "net",
    Preprocessing((224, 224), (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), True, "short_edge", 256, "bicubic", "pillow"),
    classes=("cat", "dog"),
    segmentation=True,
    align_corners=True,
    palette=((0, 1, 2), (3, 4, 255)),
)


def test_json_round_trip():
    assert ModelCard.from_json(CARD.to_json()) == CARD


@given(
    size=st.tuples(st.integers(1, 500), st.integers(1, 500)),
    mean=st.floats(-1e3, 1e3),
    std=st.floats(1e-3, 1e3),
    resize=st.sampled_from(["exact", "stretch", "fit"]),
    name=st.text(max_size=20).filter(str.isprintable),
)
def test_json_round_trip_of_any_card(size, mean, std, resize, name):
    card = ModelCard(name, Preprocessing(size, (mean,), (std,), resize=resize))
    assert ModelCard.from_json(card.to_json()) == card
    assert card.preprocessing.shape == (1, *size)


@pytest.mark.parametrize(
    "key, value",
    [
        ("size", [224]),
        ("size", [0, 224]),
        ("size", [224, 10**6]),
        ("size", [224.0, 224]),
        ("size", "22"),
        ("mean", [1.0, 2.0]),
        ("mean", [1.0, 2.0, None]),
        ("mean", [1.0, 2.0, 10**400]),
        ("mean", {"0": 1.0}),
        ("std", [1.0, 1.0, 0.0]),
        ("std", [1.0]),
        ("std", [1.0, 1.0, 1e-320]),
        ("to_rgb", 1),
        ("resize", "crop"),
        ("resize", []),
        ("short_edge", 223),
        ("short_edge", LARGEST_SIDE + 1),
        ("short_edge", True),
        ("interpolation", "area"),
        ("interpolation", []),
        ("backend", "torch"),
        ("backend", []),
        ("backend", {}),
        ("stretched", [256, 256]),
        ("stretched", [256]),
        ("stretched", "ab"),
        ("stretched", [True, 256]),
        ("crop_padding", 32),
        ("crop_padding", -1),
        ("crop_padding", 3.0),
        ("mean", 5),
        ("multiple", 32),
        ("multiple", 0),
        ("multiple", True),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_key(key, value):
    data = json.loads(CARD.to_json())
    data["preprocessing"][key] = value
    with pytest.raises(InputError, match=f"model card: {key} must be"):
        ModelCard.from_json(json.dumps(data))


@pytest.mark.parametrize(
    "key, value",
    [
        ("name", 3),
        ("name", "n" * 1001),
        ("name", "a\x1b[2Jb"),
        ("name", "a\nb"),
        ("name", "a\u202eb"),
        ("name", "a\ud800b"),
        ("classes", "ab"),
        ("classes", [""] * (MOST_CLASSES + 1)),
        ("classes", [1]),
        ("classes", ["cat", "d\x1b]0;og\x07"]),
        ("classes", {"0": "cat"}),
        ("segmentation", 0),
        ("align_corners", None),
        ("palette", [[0, 0, 256]]),
        ("palette", [[0, 0]]),
        ("palette", [[0, 0, 0.5]]),
        ("palette", [[0, 0, True]]),
        ("palette", [7]),
    ],
)
def test_a_wrong_value_of_the_card_itself_is_refused(key, value):
    data = json.loads(CARD.to_json()) | {key: value}
    with pytest.raises(InputError, match=f"model card: {key} must be"):
        ModelCard.from_json(json.dumps(data))


@pytest.mark.parametrize(
    "text, reason",
    [
        ("", "not JSON: Expecting value"),
        ("[" * 100_000, "not JSON: nested too deeply"),
        ('{"mean": NaN}', "not JSON: NaN is no number"),
        (CARD.to_json().replace('"name":', '"name":"x","name":'), "not JSON: the key 'name' occurs twice"),
        *((text, "must be a JSON object with exactly the keys") for text in ("[]", "{}", "null", '{"name": "x"}')),
    ],
)
def test_anything_but_such_an_object_is_refused(text, reason):
    with pytest.raises(InputError, match=f"^model card: {reason}"):
        ModelCard.from_json(text)


@pytest.mark.parametrize("limit", [0, -1.0, "3", True, [3], 10**400])
def test_a_wrong_input_limit_is_refused_by_name(limit):
    with pytest.raises(InputError, match=r"^model card: input_limit must be a positive number or null$"):
        ModelCard.from_json(json.dumps(json.loads(CARD.to_json()) | {"input_limit": limit}))


def test_a_card_from_before_there_was_a_limit_has_none_and_the_text_that_it_had():
    assert "input_limit" not in json.loads(CARD.to_json()) and ModelCard.from_json(CARD.to_json()).input_limit is None
    limited = dataclasses.replace(CARD, input_limit=2.75)
    assert json.loads(limited.to_json())["input_limit"] == 2.75
    assert ModelCard.from_json(limited.to_json()) == limited


@pytest.mark.parametrize(
    "field, value, reason",
    [
        ("expected_error", -0.1, "a number of at least 0, or null"),
        ("expected_error", "1", "a number of at least 0, or null"),
        ("expected_images", "a\nb", "a printable text of at most"),
        ("expected_images", 3, "a printable text of at most"),
    ],
)
def test_a_wrong_expectation_is_refused_by_name(field, value, reason):
    with pytest.raises(InputError, match=f"^model card: {field} must be {reason}"):
        ModelCard.from_json(json.dumps(json.loads(CARD.to_json()) | {field: value}))


def test_the_error_to_expect_travels_and_a_card_of_an_older_server_has_none():
    assert not {"expected_error", "expected_images"} & json.loads(CARD.to_json()).keys()
    assert ModelCard.from_json(CARD.to_json()).expected_error is None
    told = dataclasses.replace(CARD, expected_error=0.0014, expected_images="3 artificial images")
    assert ModelCard.from_json(told.to_json()) == told


def test_the_largest_input_that_pixels_become():
    assert Preprocessing((4, 4), (100.0, 50.0, 0.0), (50.0, 25.0, 51.0)).largest_input == 205 / 25
    assert Preprocessing((4, 4), (300.0,), (2.0,)).largest_input == 150.0


def test_what_came_later_is_not_in_the_text_of_a_card_that_does_not_use_it():
    assert not any(key in CARD.to_json() for key in ("multi_label", "stretched", "crop_padding", "multiple"))
    for card in (
        ModelCard("a", Preprocessing((8, 8), resize="centre", crop_padding=3), multi_label=True),
        ModelCard("b", Preprocessing((8, 8), resize="stretch", stretched=(9, 12))),
        ModelCard("c", Preprocessing((8, 16), resize="fit", multiple=4)),
    ):
        assert ModelCard.from_json(card.to_json()) == card
    with pytest.raises(InputError, match=r"^model card: multi_label must be true or false$"):
        ModelCard("a", Preprocessing((8, 8)), multi_label=1)


@pytest.mark.parametrize(
    "fields, key",
    [
        ({"resize": "stretch", "stretched": (8, 7)}, "stretched"),
        ({"resize": "stretch", "stretched": (8, 10**6)}, "stretched"),
        ({"resize": "stretch", "stretched": (9, 9, 9)}, "stretched"),
        ({"resize": "fit", "multiple": 3}, "multiple"),
        ({"resize": "fit", "short_edge": 9}, "short_edge"),
        ({"resize": "centre", "crop_padding": 10**6}, "crop_padding"),
    ],
)
def test_what_belongs_to_one_way_to_resize_is_checked_in_it(fields, key):
    with pytest.raises(InputError, match=f"^model card: {key} must be"):
        Preprocessing((8, 8), **fields)


def test_numbers_that_are_not_finite_are_refused():
    with pytest.raises(InputError, match=r"^model card: not JSON: NaN is no number$"):
        ModelCard.from_json(CARD.to_json().replace("1.0,2.0,3.0", "NaN,2.0,3.0"))
    with pytest.raises(InputError, match=r"^model card: mean must be one or three finite numbers$"):
        Preprocessing((4, 4), (math.nan, 2.0, 3.0), (1.0, 1.0, 1.0))


def test_another_size_keeps_the_share_that_is_cut_out():
    assert CARD.preprocessing.with_size((97, 131)).short_edge == 150
    assert CARD.preprocessing.with_size((97, 131)).shape == (3, 97, 131)
    assert Preprocessing((40, 40), resize="centre", crop_padding=8).with_size((20, 20)).crop_padding == 4
    assert Preprocessing((40, 20), resize="stretch", stretched=(50, 30)).with_size((20, 41)).stretched == (25, 62)
    exact = Preprocessing((32, 32))
    assert exact.with_size((48, 40)) == dataclasses.replace(exact, size=(48, 40))


def test_class_names_where_known():
    assert CARD.class_name(1) == "dog"
    assert CARD.class_name(2) == "class 2"


SLIDING = ModelCard("slides", Preprocessing((64, 96), resize="fit"), segmentation=True, sliding=Sliding((200, 100), (42, 64)))


def test_windows_of_a_card_survive_json_and_go_where_another_size_is_taken():
    assert "sliding" not in json.loads(CARD.to_json())
    assert ModelCard.from_json(SLIDING.to_json()) == SLIDING
    assert SLIDING.with_size((100, 200)) == ModelCard("slides", Preprocessing((100, 200), resize="fit"), segmentation=True)


@pytest.mark.parametrize(
    "changes, key",
    [
        ({"sliding": [200, 100]}, "sliding: must be a JSON object"),
        ({"sliding": {"scale": [200, 100]}}, "sliding: must be a JSON object"),
        ({"sliding": {"scale": [200, 100], "stride": [42, 64], "more": 1}}, "sliding: must be a JSON object"),
        ({"sliding": {"scale": [200], "stride": [42, 64]}}, "sliding: scale must be two integers"),
        ({"sliding": {"scale": [200, 1 << 15], "stride": [42, 64]}}, "sliding: scale must be two integers"),
        ({"sliding": {"scale": [200, True], "stride": [42, 64]}}, "sliding: scale must be two integers"),
        ({"sliding": {"scale": "ab", "stride": [42, 64]}}, "sliding: scale must be two integers"),
        ({"sliding": {"scale": 5, "stride": [42, 64]}}, "sliding: scale must be two integers"),
        ({"sliding": {"scale": [200, 100], "stride": [0, 64]}}, "sliding: stride must be two integers"),
        ({"sliding": {"scale": [200, 100], "stride": [42.0, 64]}}, "sliding: stride must be two integers"),
        ({"sliding": {"scale": [200, 100], "stride": [65, 64]}}, "sliding: stride must be at most the sides of size"),
        ({"sliding": {"scale": [16384, 100], "stride": [1, 64]}}, "sliding must be such that an image has at most 4096 windows"),
        ({"sliding": {"scale": [16384, 16384], "stride": [64, 96]}}, "sliding must be such that an image has at most 4096 windows"),
        ({"sliding": {"scale": [16384, 4096], "stride": [64, 96]}}, "sliding must be such that .* with 33554432 pixels together"),
        ({"segmentation": False}, "sliding must be null unless segmentation"),
    ],
)
def test_hostile_windows_are_refused_before_anything_is_made(changes, key):
    with pytest.raises(InputError, match=f"^model card: {key}"):
        ModelCard.from_json(json.dumps(json.loads(SLIDING.to_json()) | changes))


@pytest.mark.parametrize(
    "window, scale, count, fits",
    [
        ((1, 1), (64, 64), 64 * 64, True),
        ((1, 1), (65, 64), 65 * 64, False),
        ((1024, 1024), (16384, 2048), 32, True),
        ((1024, 1024), (16384, 2049), 48, False),
        ((512, 2048), (16384, 4096), 64, False),
        ((100, 300), (1000, 300), 12, True),  # 10 upright
    ],
)
def test_windows_are_few_enough_and_have_few_enough_pixels_together(window, scale, count, fits):
    """Each limit by itself, and of an image that lies on its side too."""
    for size in (scale, scale[::-1]):
        sliding = Sliding(size, window)
        assert sliding.most(window) == count
        if fits:
            sliding.check(Preprocessing(window, resize="fit"))
        else:
            with pytest.raises(InputError, match=r"^model card: sliding must be such that an image has at most 4096 windows"):
                sliding.check(Preprocessing(window, resize="fit"))


def test_parts_of_a_card_are_what_they_are_called():
    for part, value in (("preprocessing", {"size": [8, 8]}), ("sliding", {"scale": [8, 8], "stride": [8, 8]})):
        with pytest.raises(InputError, match=f"^model card: {part} must be an object"):
            dataclasses.replace(CARD, **{part: value})


def test_windows_slide_over_images_that_are_fitted():
    for preprocessing in (Preprocessing((64, 96)), Preprocessing((64, 96), resize="fit", multiple=32)):
        with pytest.raises(InputError, match=r"^model card: sliding must be null unless resize is fit"):
            dataclasses.replace(SLIDING, preprocessing=preprocessing)
