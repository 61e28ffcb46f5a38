import numpy as np
import odd_files
import pytest
from pictures import content

import ucjax
from ucjax.errors import UserError
from ucjax.photos.protect import load_surrogate, noise_for

SETTINGS = {
    "data__short_side": 36,
    "data__crop": 32,
    "clusters__k": 3,
    "noise__epochs": 1,
    "noise__batch_size": 8,
}
VICTIM = {
    "victim__short_side": 36,
    "victim__crop": 32,
    "victim__width": 4,
    "victim__epochs": 2,
    "victim__batch_size": 8,
    "victim__seeds": (0,),
}


def photos(count=12):
    return [np.asarray(odd_files.photo(40 + i, 50, seed=i)) for i in range(count)]


@pytest.fixture(scope="module")
def done():
    return ucjax.protect(photos(), **SETTINGS)


def test_arrays_in_arrays_out(done):
    clean = photos()
    assert [image.shape for image in done.images] == [image.shape for image in clean]
    found = ucjax.verify(done.images, clean)
    assert (found.files, found.failures, found.max_delta_255) == (12, (), 16)
    assert done.protector.noise.shape == (3, 32, 32, 3)
    assert done.clusters.shape == (12,)
    again = ucjax.protect(clean[3:5], published=done.protector)
    for ours, before in zip(again.images, done.images[3:5], strict=True):
        np.testing.assert_array_equal(ours, before)
    np.testing.assert_array_equal(again.clusters, done.clusters[3:5])
    noise_of = noise_for(done.protector, load_surrogate(done.protector))
    square = clean[0][:32, :32]
    assert noise_of(square).cluster in (0, 1, 2)


def test_folders_are_the_command_s(done, tmp_path):
    for number, pixels in enumerate(photos()):
        path = tmp_path / "photos" / f"{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        odd_files.Image.fromarray(pixels).save(path)
    written = ucjax.protect(tmp_path / "photos", tmp_path / "out", published=done.protector)
    assert written.written.count == 12
    assert ucjax.verify(str(tmp_path / "out"), str(tmp_path / "photos")).failures == ()
    before = content(tmp_path / "out")
    ucjax.protect(tmp_path / "photos", tmp_path / "out", published=done.protector)
    assert content(tmp_path / "out") == before


def test_victims_are_trained_on_arrays(done):
    labels = [number % 2 for number in range(12)]
    found = ucjax.evaluate(photos(), done.images, labels=labels, **VICTIM)
    assert found.results.keys() == {"clean", "random", "protected"}
    assert (found.class_names, found.train_count, found.test_count) == (("0", "1"), 10, 2)
    assert found.verdict.shown is None  # one seed


def test_a_broken_budget_is_found(done):
    clean = photos()
    failures = ucjax.verify(done.images, clean, epsilon_255=15).failures
    assert len(failures) == 12
    assert failures[0] == "image 0: changed by 16 levels, over 15"
    other = [*done.images[:-1], done.images[-1][1:]]
    assert "image 11: uint8 (49, 51, 3), its source uint8 (50, 51, 3)" in (
        ucjax.verify(other, clean).failures
    )


def test_mistakes(done):
    clean = photos(3)
    for call, message in [
        (lambda: ucjax.protect("photos"), "needs a folder for the copies"),
        (lambda: ucjax.protect([clean[0] / 255]), "give uint8"),
        (lambda: ucjax.protect(clean, noise__epocs=1), "did you mean 'epochs'"),
        (lambda: ucjax.protect(clean, clusters__k=7), "3 readable photos"),
        (lambda: ucjax.protect([clean[0][:1], clean[1]], published=done.protector), "image 0 can"),
        (lambda: ucjax.verify(clean, clean[:2]), "3 protected images, 2 clean ones"),
        (lambda: ucjax.verify(clean, "photos"), "give two of a kind"),
        (lambda: ucjax.evaluate(clean, clean), "give two folders"),
        (lambda: ucjax.evaluate(clean, clean, labels=[1]), "1 labels: give as many"),
    ]:
        with pytest.raises(UserError, match=message):
            call()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ucjax.nothing
