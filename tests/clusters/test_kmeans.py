import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import KMeans

from ucjax.clusters import kmeans, lloyd, seeding
from ucjax.errors import UserError


def blobs(n=203, d=19, k=5, *, spread=0.6, seed=0):
    """Overlapping blobs: n is no multiple of the devices, d of nothing."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(k, d))
    return (means[rng.integers(k, size=n)] + spread * rng.normal(size=(n, d))).astype(np.float32)


def inertia(x, clusters):
    """The definition, in float64."""
    return np.square(x.astype(np.float64) - clusters.centers[clusters.assignment]).sum()


def test_tiny_case_by_hand(mesh):
    x = np.array([[0, 0], [0, 2], [10, 0], [10, 1], [10, 2]], np.float32)
    found = kmeans.fit(x, 2, seed=0, mesh=mesh)
    assert found.assignment.tolist() == [1, 1, 0, 0, 0]  # largest first
    np.testing.assert_allclose(found.centers, [[10, 1], [0, 1]], atol=1e-6)
    assert found.inertia == pytest.approx(1 + 1 + 1 + 0 + 1)
    assert found.centers.dtype == np.float32
    assert found.assignment.dtype == np.int32


def test_one_iteration_by_hand(one_device):
    x = np.array([[0.0], [1.0], [2.0], [10.0]], np.float32)
    found = kmeans.fit(
        x, 2, seed=0, mesh=one_device, centers=np.array([[0.0], [1.0]]), max_iterations=1
    )
    # {0} and {1, 2, 10}: centres 0 and 13/3; then 2 is nearer to 0.
    np.testing.assert_allclose(found.centers, [[0], [13 / 3]], rtol=1e-6)
    assert found.assignment.tolist() == [0, 0, 0, 1]
    assert found.iterations == 1


@pytest.mark.parametrize("offset", [0, 1000])
def test_agrees_with_scikit_learn_from_the_same_seeds(mesh, offset):
    x = blobs() + np.float32(offset)
    oracle = KMeans(5, init=x[:5], n_init=1).fit(x)
    found = kmeans.fit(x, 5, seed=0, mesh=mesh, centers=x[:5])
    assert found.iterations == oracle.n_iter_ > 3
    assert found.inertia == pytest.approx(oracle.inertia_, rel=1e-5)
    np.testing.assert_array_equal(found.assignment, oracle.labels_)
    np.testing.assert_allclose(found.centers, oracle.cluster_centers_, atol=1e-6 * (10 + offset))


def test_empty_clusters_are_filled_as_in_scikit_learn(mesh):
    x = blobs()
    seeds = x[:5].copy()
    seeds[1:3] = 1e3  # nobody's nearest
    oracle = KMeans(5, init=seeds, n_init=1).fit(x)
    found = kmeans.fit(x, 5, seed=0, mesh=mesh, centers=seeds)
    assert np.bincount(found.assignment).min() > 0
    assert found.inertia == pytest.approx(oracle.inertia_, rel=1e-5)
    np.testing.assert_array_equal(found.assignment, oracle.labels_)


def test_seeding_is_as_good_as_scikit_learns(mesh):
    x = blobs(spread=0.2)
    oracle = KMeans(5, n_init=10, random_state=0).fit(x)
    assert kmeans.fit(x, 5, seed=0, mesh=mesh).inertia <= 1.001 * oracle.inertia_


def test_seeds_are_distinct_rows_and_differ_between_restarts(mesh):
    x = blobs()
    rows = lloyd.place(x, np.zeros(19, np.float32), mesh)
    first, second = (
        np.asarray(seeding.seeds(rows, np.uint32(3), np.uint32(i), k=40)) for i in range(2)
    )
    for seeds in (first, second):
        chosen = (seeds[:, None, :] == x[None, :, :]).all(axis=2)
        assert (chosen.sum(axis=1) == 1).all()
        assert len(set(chosen.argmax(axis=1))) == 40
    assert (first != second).any()


def test_seeds_are_drawn_in_proportion_to_the_squared_distance():
    keys = jax.random.split(jax.random.key(0), 7000)
    squares = np.array([0, 1, 4, 9], np.float32)
    draws = jax.vmap(lambda key: seeding.draw_rows(key, squares, 1))(keys)
    counts = np.bincount(np.asarray(draws)[:, 0], minlength=4)
    np.testing.assert_allclose(counts / 7000, np.array([0, 1, 4, 9]) / 14, atol=0.02)


def test_does_not_depend_on_the_number_of_devices(mesh, one_device):
    x = blobs(spread=0.3)
    one = kmeans.fit(x, 5, seed=1, mesh=one_device, n_init=3)
    four = kmeans.fit(x, 5, seed=1, mesh=mesh, n_init=3)
    np.testing.assert_array_equal(one.assignment, four.assignment)
    np.testing.assert_allclose(one.centers, four.centers, atol=1e-5)
    assert one.inertia == pytest.approx(four.inertia, rel=1e-6)
    assert one.iterations == four.iterations


def test_same_seed_same_bits(mesh):
    x = blobs()
    first, second = (kmeans.fit(x, 5, seed=7, mesh=mesh, n_init=2) for _ in range(2))
    assert first.centers.tobytes() == second.centers.tobytes()
    assert first.inertia == second.inertia


def test_inertia_never_rises_and_is_what_it_says(mesh):
    x = blobs(spread=1.5)
    runs = [
        kmeans.fit(x, 5, seed=0, mesh=mesh, centers=x[:5], max_iterations=i, tolerance=0)
        for i in range(12)
    ]
    values = [run.inertia for run in runs]
    assert (np.diff(values) <= 1e-6 * values[0]).all()
    assert values[0] > 1.05 * values[-1]
    for run in runs:
        assert run.inertia == pytest.approx(inertia(x, run), rel=1e-5)


def test_a_fixed_point_has_centers_that_are_means_and_nearest(mesh):
    x = blobs()
    found = kmeans.fit(x, 5, seed=0, mesh=mesh, tolerance=0)
    for i, center in enumerate(found.centers):
        np.testing.assert_allclose(center, x[found.assignment == i].mean(axis=0), atol=1e-5)
    distances = np.square(x[:, None, :] - found.centers[None, :, :]).sum(axis=2)
    np.testing.assert_array_equal(found.assignment, distances.argmin(axis=1))


def test_permuting_the_images_permutes_the_assignment(mesh):
    x = blobs()
    order = np.random.default_rng(1).permutation(len(x))
    plain = kmeans.fit(x, 5, seed=0, mesh=mesh, centers=x[:5])
    permuted = kmeans.fit(x[order], 5, seed=0, mesh=mesh, centers=x[:5])
    np.testing.assert_array_equal(permuted.assignment, plain.assignment[order])
    assert permuted.inertia == pytest.approx(plain.inertia, rel=1e-6)


def test_one_cluster_is_the_mean(mesh):
    x = blobs()
    found = kmeans.fit(x, 1, seed=0, mesh=mesh)
    np.testing.assert_allclose(found.centers[0], x.mean(axis=0), atol=1e-6)
    assert not found.assignment.any()


def test_as_many_clusters_as_images(mesh):
    x = blobs(n=7)
    found = kmeans.fit(x, 7, seed=0, mesh=mesh)
    assert sorted(found.assignment) == list(range(7))
    assert found.inertia == pytest.approx(0, abs=1e-6)


def test_clusters_are_sorted_by_size(mesh):
    x = blobs()
    sizes = np.bincount(kmeans.fit(x, 5, seed=0, mesh=mesh).assignment)
    assert (np.diff(sizes) <= 0).all()


def test_the_last_block_counts_each_row_once(one_device):
    n = lloyd._CPU_BLOCK_ROWS + 37
    x = blobs(n=n, d=3)
    rows = lloyd.place(x, np.zeros(3, np.float32), one_device)
    fit = lloyd.iterate(
        rows, x[:1], tolerance=np.float32(0), max_iterations=np.int32(1), mesh=one_device
    )
    np.testing.assert_allclose(fit.centers[0], x.mean(axis=0), atol=1e-6)
    assert fit.inertia == pytest.approx(np.square(x - x.mean(axis=0)).sum(), rel=1e-5)


def plain_lloyd(x, centers, iterations):
    """Labels after `iterations` updates, by the definition and in float64."""
    for i in range(iterations + 1):
        labels = np.square(x[:, None] - centers[None]).sum(axis=2).argmin(axis=1)
        if i < iterations:
            centers = np.stack([x[labels == j].mean(axis=0) for j in range(len(centers))])
    return labels


@pytest.mark.parametrize("scale", [1, 1e-3, 1e4])
def test_rows_that_are_skipped_would_have_stayed(mesh, scale):
    x = blobs(n=600, spread=1.2) * np.float32(scale)
    x[::7] *= 30  # far rows move their centres far, and others by little
    for iterations in (1, 2, 4, 8, 16):
        found = kmeans.fit(
            x, 5, seed=0, mesh=mesh, centers=x[1:6], max_iterations=iterations, tolerance=0
        )
        oracle = plain_lloyd(x.astype(np.float64), x[1:6].astype(np.float64), iterations)
        np.testing.assert_array_equal(found.assignment, oracle)


def test_no_move_of_the_centers_within_the_gap_changes_a_label():
    x, rng = blobs(), np.random.default_rng(5)
    centers = blobs(n=5, seed=3)
    labels, gaps = map(np.asarray, lloyd._nearest(x, np.square(x).sum(axis=1), centers))
    assert np.median(gaps) > 0.3
    for row in range(len(x)):
        own, other = labels[row], (labels[row] + rng.integers(1, 5)) % 5
        to_row = x[row] - centers[[own, other]].astype(np.float64)
        share, length = rng.random(), np.linalg.norm(to_row, axis=1)
        moved = centers.astype(np.float64)
        moved[own] -= share * gaps[row] * to_row[0] / length[0]  # the worst there is
        moved[other] += (1 - share) * gaps[row] * to_row[1] / length[1]
        assert np.square(x[row] - moved).sum(axis=1).argmin() == own


def test_only_rows_with_a_closed_gap_are_looked_at(one_device):
    x = blobs()
    rows = lloyd.place(x, np.zeros(19, np.float32), one_device)
    gaps = np.where(np.arange(203) % 3, 1, -1).astype(np.float32)
    wrong = np.full(203, 9, np.int32)
    labels, found = lloyd._assign(rows, x[:5], wrong, gaps, block=64)
    expected = np.square(x[:, None] - x[None, :5]).sum(axis=2).argmin(axis=1)
    np.testing.assert_array_equal(labels, np.where(gaps > 0, wrong, expected))
    np.testing.assert_array_equal(found[gaps > 0], 1)


def test_sums_on_accelerators_equal_those_on_a_cpu():
    x = blobs()
    left, joined = np.random.default_rng(2).integers(6, size=(2, 203))
    start = jnp.ones((5, 19)), jnp.ones(5)
    cpu = lloyd._move_rows(*start, x, left, joined, on_cpu=True)
    accelerator = lloyd._move_rows(*start, x, left, joined, on_cpu=False)
    for a, b in zip(cpu, accelerator, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    assert cpu[1].sum() == 5 + (joined < 5).sum() - (left < 5).sum()


def test_leaves_its_input_alone(mesh):
    x = blobs(n=204) + 5  # needs no padding
    before = x.copy()
    kmeans.fit(x, 5, seed=0, mesh=mesh, centers=x[:5])
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("n", [1, 203, 1300])
def test_assign_is_the_nearest_center(n):
    x, centers = blobs(n=n) + 1000, blobs(n=7, seed=3) + 1000
    distances = np.square(x.astype(np.float64)[:, None] - centers.astype(np.float64)[None]).sum(2)
    found = kmeans.assign(x, centers)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, distances.argmin(axis=1))


def test_assign_takes_the_first_of_equals():
    x = np.zeros((3, 2), np.float32)
    assert kmeans.assign(x, np.array([[2, 0], [0, 1], [1, 0]], np.float32)).tolist() == [1] * 3


def test_assign_repeats_fit(mesh):
    x = blobs()
    found = kmeans.fit(x, 5, seed=0, mesh=mesh)
    np.testing.assert_array_equal(kmeans.assign(x, found.centers), found.assignment)


def test_purity():
    assignment, labels = np.array([0, 0, 0, 1, 1, 2]), np.array([5, 5, 3, 3, 3, 0])
    assert kmeans.purity(assignment, labels) == pytest.approx(5 / 6)
    assert kmeans.purity(assignment, np.array([5, -1, 3, 3, -1, -1])) == pytest.approx(2 / 3)
    assert np.isnan(kmeans.purity(assignment, np.full(6, -1)))


@pytest.mark.parametrize("k", [0, 4])
def test_impossible_numbers_of_clusters(mesh, k):
    with pytest.raises(UserError, match=rf"{k} clusters of 3 images.*ask for 1 to 3"):
        kmeans.fit(blobs(n=3), k, seed=0, mesh=mesh)


def test_too_few_distinct_rows(mesh):
    x = np.repeat(blobs(n=3), 5, axis=0)
    x[0] = 0
    x[1] = -0.0
    with pytest.raises(UserError, match="only 4 have distinct features; ask for at most 4"):
        kmeans.fit(x, 5, seed=0, mesh=mesh)
    found = kmeans.fit(x, 4, seed=0, mesh=mesh)
    assert found.inertia == pytest.approx(0, abs=1e-6)


def test_rows_that_differ_by_less_than_rounding(mesh):
    x = np.full((203, 19), 1e4, np.float32)
    x[::2] *= -1
    x[:, 0] = 1e-3 * np.arange(203)
    with pytest.raises(UserError, match=r"3 of 5 clusters are empty .* at most 2 clusters"):
        kmeans.fit(x, 5, seed=0, mesh=mesh, centers=x[:5])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_the_first_row_that_is_not_finite_is_named(mesh, value):
    x = blobs()
    x[[17, 90], 3] = value
    with pytest.raises(UserError, match="row 17 of 203 is not finite"):
        kmeans.fit(x, 3, seed=0, mesh=mesh)


def test_shapes_that_do_not_fit(mesh):
    with pytest.raises(AssertionError, match=r"\(4, 19\).*\(5, 19\)"):
        kmeans.fit(blobs(), 5, seed=0, mesh=mesh, centers=np.zeros((4, 19)))
    with pytest.raises(AssertionError, match="rank"):
        kmeans.fit(blobs()[0], 5, seed=0, mesh=mesh)
