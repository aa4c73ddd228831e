"""Leaving cities out: nothing of a scored city, nor of its neighbours, is ever learned from."""

import numpy as np
import pytest
from kestrel.models.building_change.cities import FOLDS, as_pairs, choosing, city_of
from kestrel.models.building_change.data import TRAINING, VALIDATION, Site

CITIES = [city for fold in FOLDS for city in fold]


@pytest.fixture(scope="module")
def sites():
    """Sites whose pixels say which city they are of, and where: value = city, label = unique places."""
    found = []
    for number, city in enumerate(CITIES):
        shape = 70 + 3 * number, 64 + 5 * number
        image = np.full((3, *shape), number, np.uint8)
        found.append(Site(f"{city}_01", image, image + 100, np.ones(shape, bool)))
    return found


@pytest.mark.parametrize("fold", range(len(FOLDS)))
def test_oracle_scored_cities_are_left_out(sites, fold):
    chosen = choosing(fold)
    assert not set(FOLDS[fold]) & set(chosen)
    pairs = as_pairs(sites, FOLDS[fold], chosen, side=64)
    seen = {part: {CITIES[int(v)] for v in pairs.only(part).before[:, 0, 0, 0]} for part in (0, 1)}
    assert seen[VALIDATION] == set(chosen)
    assert seen[TRAINING] == set(CITIES) - set(chosen) - set(FOLDS[fold])
    assert (pairs.after[:, 0, 0, 0] - pairs.before[:, 0, 0, 0] == 100).all()


def test_oracle_squares_cover_a_city():
    label = np.arange(70 * 150).reshape(70, 150) % 7 == 0
    place = np.arange(70 * 150).reshape(1, 70, 150).repeat(3, axis=0).astype(np.uint32)
    pairs = as_pairs([Site("mumbai_01", place, place, label)], (), (), side=64)
    assert pairs.label.shape == (6, 64, 64)
    assert set(pairs.before[:, 0].ravel().tolist()) == set(range(70 * 150))
    assert (pairs.label == label.ravel()[pairs.before[:, 0]]).all()


def test_smoke_city_of_a_site():
    assert city_of("saclay_e_01") == "saclay_e"
    assert len(CITIES) == len(set(CITIES)) == 10
