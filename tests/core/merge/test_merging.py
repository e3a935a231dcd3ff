"""The whole merge: published answers of the reference's unit test, invariants, bad input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from coblend.core.box import Box
from coblend.core.detect.identifiers import decode
from coblend.core.errors import FormatError, ParameterError
from coblend.core.merge.limits import squared_limit
from coblend.core.merge.merging import merge_detections
from coblend.core.params.merge import MergeParams

# fmt: off
ONE = [(40, 40), (220, 35), (40, 48), (220, 50), (67, 67), (150, 50), (40, 90), (70, 160),
       (35, 255), (70, 180), (250, 200), (120, 120), (170, 180), (100, 210), (20, 210)]
TWO = [(43, 45), (215, 31), (171, 258), (211, 117), (48, 99), (70, 160), (125, 45), (251, 33),
       (37, 170), (134, 191), (79, 223), (258, 182)]
THREE = [(70, 170), (219, 41), (253, 173), (253, 192)]
# fmt: on
SKY = (("g", 1.0, ONE), ("r", 2.0, TWO), ("i", 1.3, THREE))


def stars(shape, sigma, positions, flux=1000.0):
    image = np.zeros(shape)
    offset = np.arange(-20, 21)
    stamp = np.exp(-0.5 * (offset / sigma) ** 2)
    stamp = np.outer(stamp, stamp)
    stamp *= flux / stamp.sum()
    padded = np.pad(image, 20)
    for x, y in positions:
        padded[y : y + 41, x : x + 41] += stamp
    return padded[20:-20, 20:-20]


def params(min_new, max_same, **options):
    limits = {"min_new_peak": f"{min_new}px", "max_same_peak": f"{max_same}px"}
    return MergeParams(**limits, **{"sky_objects": 0, "cull": False, **options})


@pytest.fixture
def three_bands(detections_from):
    return [detections_from(stars((301, 301), s, xy), 0.001, band) for band, s, xy in SKY]


def test_inputs_have_the_published_counts(three_bands):
    assert [len(d.parents) for d in three_bands] == [14, 12, 4]
    assert [len(d.peaks) for d in three_bands] == [15, 12, 4]


@pytest.mark.parametrize(
    ("n_band", "min_new", "max_same", "n_parent", "n_peak"),
    [
        (1, -1, -1, 14, 15),
        (2, -1, -1, 22, 23),
        (3, -1, -1, 19, 20),
        (3, 0, -1, 19, 30),
        (3, 10, -1, 19, 25),
        (3, 100, -1, 19, 20),
        (3, 100, 40, 19, 20),
    ],
)
def test_published_counts(three_bands, n_band, min_new, max_same, n_parent, n_peak):
    """The numbers of the reference's own test (afw: test_footprintMergeCatalog)."""
    merged = merge_detections(three_bands[:n_band], params(min_new, max_same))
    assert len(merged.parents) == n_parent
    assert len(merged.peaks) == n_peak
    if max_same == 40:
        assert np.count_nonzero(merged.peaks["n_band"] > 1) == 5


def test_published_areas(three_bands):
    one = merge_detections(three_bands[:1], params(-1, -1))
    assert sorted(one.parents["area"].tolist()) == [69] * 13 + [135]
    three = merge_detections(three_bands, params(-1, -1))
    assert sorted(three.parents["area"].tolist()) == [69] * 7 + [261] * 7 + [
        270, 323, 406, 416, 493]  # fmt: skip


def test_published_bridge(detections_from):
    """A later band joins two parents; the bridge's own peaks lie in the dead zone."""
    first = detections_from(stars((101, 101), 1.0, [(50, 50), (70, 50)]), 0.001, "g")
    second = detections_from(stars((101, 101), 2.0, [(55, 50), (65, 50)]), 0.001, "r")
    merged = merge_detections([first, second], params(10, 3))
    assert len(merged.parents) == 1
    assert sorted(merged.peaks["ix"].tolist()) == [50, 70]
    assert merged.peaks["merge_peak_g"].all()
    assert not merged.peaks["merge_peak_r"].any()
    assert merged.peaks["near_r"].all()  # nothing is lost without trace


def test_merging_a_catalogue_with_itself_returns_it(three_bands):
    first = three_bands[0]
    copy = three_bands[0].__class__(
        ("r",), first.parents, first.peaks, first.footprints, first.box, first.cores, meta={}
    )
    merged = merge_detections([first, copy], params(0, 1.5))
    assert np.array_equal(merged.parents["area"], first.parents["area"])
    assert np.array_equal(merged.footprints.spans, first.footprints.spans)
    for column in ("ix", "iy", "snr"):
        assert np.array_equal(merged.peaks[column], first.peaks[column])
    assert (merged.peaks["n_band"] == 2).all()
    assert np.array_equal(merged.peaks["src_g"], first.peaks["id"])


def test_parents_are_disjoint_and_cover_the_union(three_bands):
    merged = merge_detections(three_bands, params(3, 1.5))
    image = np.zeros(merged.box.shape, int)
    for spans in merged.footprints:
        for y, a, b in spans:
            image[y, a : b + 1] += 1
    assert image.max() == 1
    union = np.zeros(merged.box.shape, bool)
    for catalogue in three_bands:
        union |= catalogue.footprints.labels(catalogue.box) > 0
    assert np.array_equal(image > 0, union)
    labels = merged.footprints.labels(merged.box)
    row = np.repeat(np.arange(len(merged.parents)), merged.parents["npeak"])
    assert np.array_equal(labels[merged.peaks["iy"], merged.peaks["ix"]], row + 1)


def test_order_of_bands_changes_no_pixels(three_bands):
    areas = [
        sorted(merge_detections([three_bands[i] for i in order], params(3, 1)).parents["area"])
        for order in ((0, 1, 2), (2, 1, 0), (1, 0, 2))
    ]
    assert areas[0] == areas[1] == areas[2]


def test_a_further_band_only_adds(three_bands):
    """No parent loses a pixel; parents are the components of the overlapping footprints."""
    two = merge_detections(three_bands[:2], params(3, 1))
    three = merge_detections(three_bands, params(3, 1))
    before, after = (d.footprints.labels(d.box) for d in (two, three))
    assert (after[before > 0] > 0).all()
    for row in range(1, len(two.parents) + 1):
        assert len(np.unique(after[before == row])) == 1
    # The same partition from a graph of all footprints, an edge where two share a pixel.
    images = [d.footprints.labels(d.box) for d in three_bands]
    first = np.cumsum([0, *(len(d.parents) for d in three_bands)])
    pairs = [
        (first[a] + images[a][both] - 1, first[b] + images[b][both] - 1)
        for a, b in ((0, 1), (0, 2), (1, 2))
        for both in [(images[a] > 0) & (images[b] > 0)]
    ]
    y, x = (np.concatenate(side) for side in zip(*pairs, strict=True))
    graph = coo_array((np.ones(len(y)), (y, x)), shape=(first[-1],) * 2)
    n_component, _ = connected_components(graph, directed=False)
    assert n_component == len(three.parents)


def test_other_bands_and_their_order_leave_identifiers_alone(three_bands):
    """Far from the peaks of a further band nothing changes, in whatever order it comes."""
    g, r, i = three_bands
    alone = merge_detections([g, r], params(3, 1))
    for order in ([g, r, i], [g, i, r]):
        more = merge_detections(order, params(3, 1))
        distance = np.hypot(
            alone.peaks["x"][:, None] - i.peaks["x"], alone.peaks["y"][:, None] - i.peaks["y"]
        ).min(axis=1)
        far = alone.peaks["id"][distance > 50]
        assert len(far) > 10
        assert np.isin(far, more.peaks["id"]).all()


def test_touching_footprints(detections_from):
    image = np.zeros((40, 40))
    image[10:15, 10:15] = 1
    image[12, 12] = 2
    other = np.roll(image, 5, axis=1)
    pair = [detections_from(image, 0.5, "g"), detections_from(other, 0.5, "r")]
    assert len(merge_detections(pair, params(1, 0)).parents) == 2
    assert len(merge_detections(pair, params(1, 0, connect="touch")).parents) == 1


def test_identifiers_are_unique_positive_and_decode_to_the_peak(three_bands):
    merged = merge_detections(three_bands, params(3, 1, sky_objects=20))
    ids = np.concatenate([merged.parents["id"], merged.peaks["id"]])
    assert len(np.unique(ids)) == len(ids)
    assert (ids > 0).all()
    y, x = decode(merged.peaks["id"], merged.box)
    assert np.array_equal(y, merged.peaks["iy"])
    assert np.array_equal(x, merged.peaks["ix"])


def test_identifiers_do_not_depend_on_distant_sources(detections_from):
    near = [(40, 40), (44, 43), (60, 45)]
    few = detections_from(stars((301, 301), 2.0, near), 0.001, "g")
    many = detections_from(stars((301, 301), 2.0, [*near, (250, 250)]), 0.001, "g")
    ids = [set(merge_detections([d], params(3, 1)).peaks["id"].tolist()) for d in (few, many)]
    assert ids[0] < ids[1]


def test_culling_keeps_every_peak_in_one_table_or_the_other(detections_from):
    """40 peaks of one band in one core: ranks 0 to 27 stay, since 28 = 0.7 x 40."""
    x, y = np.meshgrid(np.arange(10, 90, 10), np.arange(10, 60, 10))
    image = np.ones((70, 100))
    for k, (a, b) in enumerate(zip(x.ravel(), y.ravel(), strict=True)):
        image[b, a] = 100 - k
    catalogue = detections_from(image, 0.5, "g")
    assert len(catalogue.peaks) == 40
    merged = merge_detections([catalogue], params(1, 0, cull=True))
    assert len(merged.peaks) == 28
    assert len(merged.culled) == 12
    assert merged.peaks["value"].min() > merged.culled["value"].max()
    assert (merged.culled["parent"] == merged.parents["id"][0]).all()
    assert set(merged.peaks["ix"]) | set(merged.culled["ix"]) == set(catalogue.peaks["ix"])


def test_cores_of_twenty_peaks_are_never_culled(detections_from):
    """Three cores of 20, 20 and 5 peaks in one footprint: ranked in the parent, peaks go."""
    y, x = np.divmod(np.arange(45), 5)
    image = np.full((140, 40), 1.0)
    image[5 + 8 * y + 20 * (np.arange(45) // 20), 4 + 6 * x] = 100 - np.arange(45)
    catalogue = detections_from(image, 0.5, "g")
    high = detections_from(ndimage.grey_dilation(image, (9, 9)) - 1, 0.5, "g").footprints
    assert len(high) == 3
    catalogue = replace(catalogue, cores=high)
    by_core, by_parent = (
        merge_detections([catalogue], params(1, 0, cull=True, cull_family=family))
        for family in ("core", "parent")
    )
    assert len(by_core.peaks) == 45
    assert len(by_parent.peaks) == 30
    assert len(by_parent.culled) == 15


def test_near_misses_can_count_for_culling(detections_from):
    """40 peaks in one core, all missed by 4 px in a second band: near, so none is culled."""
    x, y = np.meshgrid(np.arange(10, 90, 10), np.arange(10, 60, 10))
    image = np.ones((70, 100))
    image[y.ravel(), x.ravel()] = 100 - np.arange(40)
    pair = [detections_from(np.roll(image, 4 * k, axis=1), 0.5, b) for k, b in enumerate("gr")]
    for counted, n in ((False, 28), (True, 40)):
        merged = merge_detections(pair, params(5, 2, cull=True, cull_count_near=counted))
        assert len(merged.peaks) == n


def test_crowded_parents_are_cut_at_their_cores(detections_from):
    """A bridge in the footprint of one band joins cores; --max-peaks parts them again."""
    first = detections_from(stars((80, 120), 1.5, [(30, 40), (60, 40), (90, 40)]), 0.5, "g")
    wide = np.zeros((80, 120))
    wide[38:43, 25:96] = 1
    wide[40, 60] = 2
    bridge = detections_from(wide, 0.5, "r")
    # The bridge is growth, not core: its core is one pixel.
    core = detections_from(wide, 1.5, "r").footprints
    bridge = bridge.__class__(
        ("r",), bridge.parents, bridge.peaks, bridge.footprints, bridge.box, core,
        meta={"GROWRAD1": 20},
    )  # fmt: skip
    whole = merge_detections([first, bridge], params(3, 1))
    cut = merge_detections([first, bridge], params(3, 1, max_peaks=2))
    assert len(whole.parents) == 1
    assert len(cut.parents) == 3
    assert cut.parents["flag_split"].all()
    assert cut.parents["area"].sum() == whole.parents["area"].sum()
    assert len(np.unique(cut.parents["blob"])) == 1
    assert cut.parents["blob"][0] in cut.peaks["id"]
    assert cut.parents["merge_footprint_r"].tolist() == [False, True, False]
    labels = cut.footprints.labels(cut.box)
    assert np.array_equal(labels > 0, whole.footprints.labels(whole.box) > 0)
    row = np.repeat(np.arange(3), cut.parents["npeak"])
    assert np.array_equal(labels[cut.peaks["iy"], cut.peaks["ix"]], row + 1)


def test_cut_keeps_an_isolated_piece_that_has_a_peak_but_no_core(detections_from):
    """Footprints of other programs, and shares of cut ones, may be in several pieces."""
    one = np.zeros((40, 90))
    one[20, 10:31] = 1
    one[20, 12] = one[20, 28] = 9  # two cores on one bridge
    one[20, 60:65] = 1
    one[20, 62] = 5  # far away: a peak below the level of cores
    pieces = detections_from(one, 0.5, "g")
    parents = pieces.parents[:1].copy()
    parents["npeak"] = 3
    footprint = pieces.footprints.__class__(pieces.footprints.spans, np.array([0, 2]))
    cores = detections_from(one, 8, "g").footprints
    catalogue = replace(pieces, parents=parents, footprints=footprint, cores=cores)
    cut = merge_detections([catalogue], params(1, 0, max_peaks=2))
    assert sorted(cut.peaks["ix"].tolist()) == [12, 28, 62]
    assert cut.parents["npeak"].tolist() == [1, 1, 1]
    assert sorted(cut.parents["area"].tolist()) == [5, 10, 11]
    assert cut.parents["merge_footprint_g"].all()
    assert cut.parents["flag_split"].all()
    labels = cut.footprints.labels(cut.box)
    assert labels[cut.peaks["iy"], cut.peaks["ix"]].tolist() == [1, 2, 3]


def test_cut_keeps_an_isolated_piece_that_has_a_core_but_no_peak(detections_from):
    """Nothing grows into it: it goes to the nearest core of its parent, pixels and core."""
    image = np.zeros((40, 120))
    image[20, 10:31] = 1
    image[20, 12] = image[20, 28] = 9  # two cores on one bridge
    image[20, 60:65] = 9  # a piece apart, a core without a peak
    image[30, 100:105] = 9  # another parent, last in every list
    found = detections_from(image, 0.5, "g")
    peaks = found.peaks[found.peaks["ix"] != 62]
    parents = found.parents[[0, 2]].copy()
    parents["npeak"], parents["peak0"] = [2, 1], [0, 2]
    footprints = found.footprints.__class__(found.footprints.spans, np.array([0, 2, 3]))
    cores = detections_from(image, 8, "g").footprints
    catalogue = replace(found, parents=parents, peaks=peaks, footprints=footprints, cores=cores)
    cut = merge_detections([catalogue], params(1, 0, max_peaks=1))
    assert sorted(cut.peaks["ix"].tolist()) == [12, 28, 102]
    labels = cut.footprints.labels(cut.box)
    assert np.array_equal(labels > 0, image > 0)  # the union is unchanged
    assert (labels[20, 60:65] == labels[20, 28]).all()
    assert cut.parents["flag_split"].tolist() == [True, True, False]


@pytest.mark.parametrize("scale", [0.2, 0.2 * (1 + 1e-7), 0.2 * (1 - 1e-7)])
def test_lattice_ties_do_not_depend_on_the_last_digit_of_the_scale(scale, detections_from):
    """1 arcsec is 5 px: an offset of (3, 4) is never farther than that."""
    assert squared_limit("min_new_peak", 1.0, "arcsec", scale) == 25.0
    near, far = [(40, 40)], [(43, 44)]
    pair = [
        detections_from(stars((90, 90), 2.0, xy), 0.001, band)
        for band, xy in (("g", near), ("r", far))
    ]
    merged = merge_detections(pair, MergeParams(sky_objects=0), pixel_scale=scale)
    assert (len(merged.parents), len(merged.peaks)) == (1, 1)
    assert merged.peaks["near_r"].tolist() == [True]


def test_empty_catalogues(detections_from):
    empty = [detections_from(np.zeros((60, 60)), 0.5, band) for band in "gr"]
    merged = merge_detections(empty, params(3, 1, sky_objects=3))
    assert merged.parents["merge_footprint_sky"].tolist() == [True, True, True]
    assert merged.parents["area"].tolist() == [197, 197, 197]


def test_one_band_needs_no_pixel_scale(three_bands):
    """Its peaks meet no others, so limits in arcsec need no WCS."""
    merged = merge_detections(three_bands[:1], MergeParams(sky_objects=0))
    assert len(merged.peaks) == len(three_bands[0].peaks)


def test_bad_input(three_bands):
    with pytest.raises(FormatError, match="two catalogues of band g"):
        merge_detections([three_bands[0], three_bands[0]], params(1, 0))
    with pytest.raises(ParameterError, match="no WCS"):
        merge_detections(three_bands, MergeParams())
    with pytest.raises(ParameterError, match="expected a distance"):
        MergeParams(min_new_peak="one")
    with pytest.raises(ParameterError, match="names a band twice"):
        MergeParams(priority=("g", "g"))
    far = replace(three_bands[1], box=Box(0, 100_000, 301, 301))
    with pytest.raises(FormatError, match=r"too far apart.*: g \[0:301, 0:301\], r \[100000:"):
        merge_detections([three_bands[0], far], params(1, 0))
    other = three_bands[1].__class__(
        ("r",), three_bands[1].parents, three_bands[1].peaks, three_bands[1].footprints,
        three_bands[1].box, meta={"FIELDID": 7},
    )  # fmt: skip
    with pytest.raises(FormatError, match="different fields: 0, 7"):
        merge_detections([three_bands[0], other], params(1, 0))
