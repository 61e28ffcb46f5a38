import contextlib
import threading

import jax
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from ucjax.data import feed
from ucjax.data.feed import Feed
from ucjax.data.images import ImageSet
from ucjax.runtime import parallel

SHORT, SIZE = 12, 8
STREAMED = 0  # bytes of budget: nothing fits
INDICES = np.array([3, 0, 5, 1, 4, 2, 5, 5])


@pytest.fixture(scope="module")
def pictures():
    """Upright, wide and square pictures, of odd and even sides: their true pixels `[h, w, 3]`."""
    rng = np.random.default_rng(0)
    sizes = [(12, 12), (19, 12), (12, 20), (13, 12), (12, 27), (12, 13)]
    return [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]


@pytest.fixture(scope="module")
def images(pictures):
    wide = np.array([picture.shape[1] > picture.shape[0] for picture in pictures])
    stored = [p.swapaxes(0, 1) if w else p for p, w in zip(pictures, wide, strict=True)]
    return ImageSet(
        rows=np.concatenate(stored),
        starts=np.cumsum([0, *map(len, stored)], dtype=np.int64),
        wide=wide,
        labels=np.zeros(len(stored), np.int32),
        names=tuple(map(str, range(len(stored)))),
        class_names=("all",),
    )


def locate(crop, picture):
    """Where the crop was cut from: (top, left)."""
    windows = sliding_window_view(picture, crop.shape)[:, :, 0]
    [place] = np.argwhere((windows == crop).all((2, 3, 4)))
    return tuple(place)


@contextlib.contextmanager
def traces():
    """Collects the names of what jax traces meanwhile."""
    events = []

    def listen(event, seconds, **facts):
        if event == "/jax/core/compile/jaxpr_trace_duration":
            events.append(facts.get("fun_name"))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield events
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize("budget", [None, STREAMED])
def test_random_crops_are_uniform_windows_of_the_upright_pictures(images, pictures, mesh, budget):
    source = Feed(images, SIZE, mesh=mesh, budget_bytes=budget)
    batch = np.repeat(np.arange(len(pictures)), 400)
    crops = np.asarray(source.random_crops(batch, 0, 0))
    for index, picture in enumerate(pictures):
        ranges = [side - SIZE + 1 for side in picture.shape[:2]]
        counts = np.zeros(ranges)
        for crop in crops[batch == index]:
            counts[locate(crop, picture)] += 1
        expected = 400 / counts.size
        chi_squared = ((counts - expected) ** 2 / expected).sum()
        freedom = counts.size - 1
        # Within 4 standard deviations of the distribution's mean.
        assert abs(chi_squared - freedom) < 4 * np.sqrt(2 * freedom)


@pytest.mark.parametrize("budget", [None, STREAMED])
def test_center_crops_are_those_of_the_image_set(images, mesh, budget):
    source = Feed(images, SIZE, mesh=mesh, budget_bytes=budget)
    crops = source.center_crops(INDICES)
    np.testing.assert_array_equal(crops, images.center_crops(SIZE, INDICES))
    assert crops.sharding.spec == parallel.SHARDED


def test_bytes_do_not_depend_on_where_rows_live_nor_on_devices(images, mesh, one_device):
    feeds = [Feed(images, SIZE, mesh=m, budget_bytes=b)
             for m in (mesh, one_device) for b in (None, STREAMED)]  # fmt: skip
    assert [source.resident for source in feeds] == [True, False, True, False]
    first, *others = (np.asarray(source.random_crops(INDICES, 7, 11)) for source in feeds)
    assert (first.shape, first.dtype) == ((8, SIZE, SIZE, 3), np.uint8)
    for other in others:
        np.testing.assert_array_equal(other, first)


def test_offsets_depend_on_seed_step_and_position_alone(images, mesh):
    source = Feed(images, SIZE, mesh=mesh)
    batch = np.full(16, 4)
    reference = np.asarray(source.random_crops(batch, 0, 0))
    np.testing.assert_array_equal(source.random_crops(batch[:8], 0, 0), reference[:8])
    assert (np.asarray(source.random_crops(batch, 1, 0)) != reference).any()
    assert (np.asarray(source.random_crops(batch, 0, 1)) != reference).any()
    # Neither do neighbours in the batch share their offsets, nor do (seed, step) and (step, seed).
    assert len(np.unique(reference, axis=0)) > 8
    swapped = (np.asarray(source.random_crops(batch, *pair)) for pair in ((1, 2), (2, 1)))
    assert not np.array_equal(*swapped)


@pytest.mark.parametrize("budget", [None, STREAMED])
def test_prefetch_yields_the_same_batches_in_order(images, mesh, budget):
    source = Feed(images, SIZE, mesh=mesh, budget_bytes=budget)
    requests = [(np.roll(INDICES, step), 3, step) for step in range(5)]
    batches = list(source.prefetch(iter(requests)))
    for request, batch in zip(requests, batches, strict=True):
        np.testing.assert_array_equal(batch, source.random_crops(*request))
    assert list(source.prefetch([])) == []


def test_prefetch_loads_the_next_batch_while_one_is_used(images, mesh, monkeypatch):
    source = Feed(images, SIZE, mesh=mesh, budget_bytes=STREAMED)
    loaded = [threading.Event() for _ in range(3)]
    load = source.random_crops

    def noted(indices, seed, step):
        crops = load(indices, seed, step)
        loaded[step].set()
        return crops

    monkeypatch.setattr(source, "random_crops", noted)
    before = threading.active_count()
    batches = source.prefetch((INDICES, 0, step) for step in range(3))
    next(batches)
    assert loaded[1].wait(10)
    assert not loaded[2].is_set()  # one ahead, not more
    batches.close()
    assert threading.active_count() == before


def test_prefetch_passes_on_what_goes_wrong(images, mesh):
    batches = Feed(images, SIZE, mesh=mesh, budget_bytes=STREAMED).prefetch(
        [(INDICES, 0, 0), (np.array([0, 1, 2, 99]), 0, 1)]
    )
    next(batches)
    with pytest.raises(IndexError, match="99"):
        next(batches)


@pytest.mark.parametrize("budget", [None, STREAMED])
def test_nothing_is_compiled_after_the_first_batch(images, mesh, budget):
    def use(source, step):
        source.center_crops(np.roll(INDICES, step))
        return source.random_crops(np.roll(INDICES, step), step, step)

    use(Feed(images, SIZE, mesh=mesh, budget_bytes=budget), 0)
    with traces() as control:
        jax.jit(lambda x: x + 1)(1)
    assert control
    with traces() as traced:
        source = Feed(images, SIZE, mesh=mesh, budget_bytes=budget)
        for step in range(1, 4):
            use(source, step)
    assert traced == []


def test_a_streamed_device_costs_its_own_crops_only(images, mesh, monkeypatch):
    cut, counts = feed._cut, []
    monkeypatch.setattr(
        feed,
        "_cut",
        lambda rows, crops, size: counts.append(len(crops.row)) or cut(rows, crops, size),
    )
    Feed(images, SIZE, mesh=mesh, budget_bytes=STREAMED).random_crops(INDICES, 0, 0)
    assert counts == [2, 2, 2, 2]


def test_rows_are_resident_if_they_fit_the_budget(images, mesh):
    size = images.rows.nbytes
    assert Feed(images, SIZE, mesh=mesh, budget_bytes=size).resident
    assert not Feed(images, SIZE, mesh=mesh, budget_bytes=size - 1).resident


def test_a_device_s_own_memory_limit_is_the_default_budget(images, mesh, monkeypatch):
    class Device:
        def memory_stats(self):
            return {"bytes_limit": 4000}

    class Mesh:
        local_devices = (Device(), Device())

    assert feed._quarter_of_memory(Mesh()) == 1000
    # Four CPU devices share the host: together they may take a quarter of it.
    whole = feed._quarter_of_memory(parallel.make_mesh(jax.devices()[:1]))
    assert abs(4 * feed._quarter_of_memory(mesh) - whole) < 4


@pytest.mark.parametrize("budget", [None, STREAMED])
def test_batches_must_divide_by_the_devices(images, mesh, budget):
    source = Feed(images, SIZE, mesh=mesh, budget_bytes=budget)
    for crops in (source.center_crops, lambda indices: source.random_crops(indices, 0, 0)):
        with pytest.raises(ValueError, match="6 images cannot be shared equally by 4 devices"):
            crops(INDICES[:6])


def test_crops_must_fit_the_short_side(images, mesh):
    with pytest.raises(ValueError, match=r"\(=13\) is larger than the short side \(=12\)"):
        Feed(images, 13, mesh=mesh)
    whole = Feed(images, SHORT, mesh=mesh).random_crops(np.zeros(4, int), 0, 0)
    np.testing.assert_array_equal(whole[0], images.image(0))
