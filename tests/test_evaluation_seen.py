"""Photos that a module was trained on are known wherever they lie, also after export, import and renaming."""

import hashlib
import json
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_training_frozen import base, paint, photos  # noqa: F401 (fixtures)

from mobilenet_hub.errors import InputError
from mobilenet_hub.evaluation.evaluate import evaluate
from mobilenet_hub.evaluation.seen import KEY, as_text, seen_by
from mobilenet_hub.module import ModuleConfig
from mobilenet_hub.training.train import train
from mobilenet_hub.weights.convert import convert


@given(st.lists(st.binary(max_size=8), unique=True, max_size=30), st.lists(st.binary(min_size=9), max_size=30))
def test_digests_survive_their_text(tmp_path_factory, trained_on, others):
    digests = [hashlib.sha1(content).hexdigest() for content in trained_on]
    config = ModuleConfig("mobilenet_v1", 0.25, (32, 32), trained_on={KEY: as_text(digests)})
    is_seen = seen_by(tmp_path_factory.getbasetemp(), config)
    assert is_seen is not None
    assert all(map(is_seen, digests))
    assert not any(is_seen(hashlib.sha1(content).hexdigest()) for content in others)
    assert as_text(reversed(digests)) == as_text(digests)


def test_unseen_means_unseen_after_export_import_and_renaming(photos, base, tmp_path):  # noqa: F811
    trained = train(photos, tmp_path / "trained", module=base)
    expected = evaluate(trained.path, photos, unseen=True)
    assert expected.metrics.images == trained.metrics["test"].images
    assert expected.accuracy == trained.accuracy
    elsewhere = tmp_path / "renamed photos"
    for number, photo in enumerate(sorted(photos.rglob("*.*"))):
        (elsewhere / photo.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, elsewhere / photo.parent.name / f"photo {number}{photo.suffix}")
    convert(trained.path, tmp_path / "imported")
    assert not (tmp_path / "imported" / "photos.csv").exists()
    found = evaluate(tmp_path / "imported", elsewhere, unseen=True)
    assert (found.metrics.images, found.accuracy) == (expected.metrics.images, expected.accuracy)
    assert "trained the module" in evaluate(tmp_path / "imported", elsewhere).warnings[-1]


def test_unseen_is_refused_where_nobody_knows(photos, base, tmp_path):  # noqa: F811
    trained = train(photos, tmp_path / "trained", module=base).path
    (trained / "photos.csv").unlink()
    config = json.loads((trained / "module.json").read_text("utf-8"))
    del config["trained_on"][KEY]
    (trained / "module.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(InputError, match="does not say which photos"):
        evaluate(trained, photos, unseen=True)
    assert "does not say which photos" in evaluate(trained, photos).warnings[-1]
