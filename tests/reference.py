"""InReaCh in plain NumPy float64: the executable specification that every faster path is held against.

Nothing here is fast and nothing here is clever. Each function is one step of the method and names its
section of the paper (McIntosh and Branzan Albu, ICCV 2023, and its supplement). It imports nothing of the
package under test.

Distances are decided in float64 and summed over sixteen virtual lanes in a fixed tree, each product rounded
before it is added. That order is part of the specification: it makes every backend give the same bits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Bool = NDArray[np.bool_]

LANES = 16

# --------------------------------------------------------------------------------------------- distances


def sq_distance(x: ArrayLike, y: ArrayLike) -> Float:
    """Squared Euclidean distance over the last axis, broadcast over the others, in the sixteen-lane order.

    Lane l adds the squares of components l, l+16, l+32, ... in that order; then 16 lanes fold to 8, 4, 2, 1.
    """
    d = np.asarray(x, np.float64) - np.asarray(y, np.float64)
    dim = d.shape[-1]
    padded = np.zeros((*d.shape[:-1], -(-dim // LANES) * LANES))
    padded[..., :dim] = d
    lanes = np.zeros((*d.shape[:-1], LANES))
    for start in range(0, dim, LANES):
        block = padded[..., start : start + LANES]
        lanes = lanes + block * block
    t8 = lanes[..., :8] + lanes[..., 8:]
    t4 = t8[..., :4] + t8[..., 4:]
    t2 = t4[..., :2] + t4[..., 2:]
    return np.asarray(t2[..., 0] + t2[..., 1])


def pairwise_sq_distance(a: ArrayLike, b: ArrayLike) -> Float:
    """(m, D) and (n, D) -> (m, n), a few rows of `a` at a time so that the differences stay small."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    out = np.empty((len(a), len(b)))
    step = max(1, (1 << 22) // max(1, b.size))
    for i in range(0, len(a), step):
        out[i : i + step] = sq_distance(a[i : i + step, None, :], b[None, :, :])
    return out


def to_float32(x: Float) -> NDArray[np.float32]:
    """Round to float32; a value beyond float32's range becomes infinity, which is its correct rounding."""
    with np.errstate(over="ignore"):
        return x.astype(np.float32)


def nearest(
    queries: ArrayLike,
    bank: ArrayLike,
    k: int = 1,
    query_group: ArrayLike | None = None,
    bank_group: ArrayLike | None = None,
) -> tuple[Int, NDArray[np.float32]]:
    """Section 6: the k nearest bank rows of each query, nearest first, the lowest index first on ties.

    A bank row whose group equals the query's is passed over. Where fewer than k are left: -1 and infinity.
    """
    distance = pairwise_sq_distance(queries, bank)
    if query_group is not None and bank_group is not None:
        distance[np.asarray(query_group)[:, None] == np.asarray(bank_group)[None, :]] = np.inf
    m, n = distance.shape
    index = np.full((m, k), -1, np.int64)
    value = np.full((m, k), np.inf)
    take = min(k, n)
    order = np.argsort(distance, axis=1, kind="stable")[:, :take]
    value[:, :take] = np.take_along_axis(distance, order, axis=1)
    index[:, :take] = np.where(np.isinf(value[:, :take]), -1, order)
    if k == 1:
        return index[:, 0], to_float32(value[:, 0])
    return index, to_float32(value)


def mutual_nearest(a: ArrayLike, b: ArrayLike) -> tuple[Int, NDArray[np.float32], Int, NDArray[np.float32]]:
    """Section 4: the nearest row of b for each row of a, and of a for each row of b, from one matrix."""
    distance = pairwise_sq_distance(a, b)
    ab, ba = distance.argmin(axis=1), distance.argmin(axis=0)
    return ab, to_float32(distance.min(axis=1)), ba, to_float32(distance.min(axis=0))


def mutual_pairs(ab: ArrayLike, ba: ArrayLike) -> tuple[Int, Int]:
    """The pairs (i, ab[i]) with ba[ab[i]] == i, i ascending."""
    ab, ba = np.asarray(ab), np.asarray(ba)
    i = np.array([i for i in range(len(ab)) if ba[ab[i]] == i], np.int64)
    return i, np.asarray(ab[i], np.int64)


# ------------------------------------------------------------------------------------------- descriptors


def neighbourhood(level: ArrayLike, size: int = 3) -> Float:
    """Section 3, step 1: (C, h, w) -> (C * size * size, h, w), zero padded, in (channel, ky, kx) order."""
    level = np.asarray(level, np.float64)
    channels, h, w = level.shape
    r = size // 2
    padded = np.pad(level, ((0, 0), (r, r), (r, r)))
    out = np.empty((channels, size, size, h, w))
    for ky in range(size):
        for kx in range(size):
            out[:, ky, kx] = padded[:, ky : ky + h, kx : kx + w]
    return out.reshape(channels * size * size, h, w)


def resample_bilinear(x: ArrayLike, height: int, width: int) -> Float:
    """Section 3, step 2: (C, h, w) -> (C, height, width), bilinear, corners not aligned."""
    x = np.asarray(x, np.float64)

    def taps(n_in: int, n_out: int) -> tuple[Int, Int, Float]:
        centre = np.maximum((np.arange(n_out) + 0.5) * (n_in / n_out) - 0.5, 0.0)
        low = np.minimum(centre.astype(np.int64), n_in - 1)
        return low, np.minimum(low + 1, n_in - 1), centre - low

    y0, y1, fy = taps(x.shape[1], height)
    x0, x1, fx = taps(x.shape[2], width)
    rows = x[:, y0] * (1 - fy)[:, None] + x[:, y1] * fy[:, None]
    return np.asarray(rows[:, :, x0] * (1 - fx) + rows[:, :, x1] * fx)


def adaptive_average_pool(x: ArrayLike, m: int) -> Float:
    """Section 3, step 3: pool axis 0 from n to m.

    Output j averages inputs floor(j n / m) .. ceil((j + 1) n / m) - 1.
    """
    x = np.asarray(x, np.float64)
    n = x.shape[0]
    return np.stack([x[j * n // m : -((-(j + 1) * n) // m)].mean(axis=0) for j in range(m)])


def describe(levels: list[ArrayLike], grid: tuple[int, int], dim: int = 1024, size: int = 3) -> Float:
    """Section 3: levels of (C_l, h_l, w_l) -> (P, dim) patch descriptors, by the paper's unfolding route."""
    pooled = [adaptive_average_pool(resample_bilinear(neighbourhood(x, size), *grid), dim) for x in levels]
    return np.ascontiguousarray(adaptive_average_pool(np.concatenate(pooled), dim).reshape(dim, -1).T)


def embed_position(x: ArrayLike, grid: tuple[int, int], weight: float = 5.0) -> Float:
    """Section 3, position embedding: (P, D) -> (P, D + 2) with weight * row / h and weight * column / w."""
    h, w = grid
    row, col = np.divmod(np.arange(h * w), w)
    return np.column_stack([np.asarray(x, np.float64), weight * row / h, weight * col / w])


def transpose_score(mean_image: ArrayLike) -> float:
    """Section 2 (supplement D): mean over pixels and colours of (A - A^T)^2; A is square, in 8-bit units."""
    a = np.asarray(mean_image, np.float64)
    return float(((a - a.transpose(1, 0, 2)) ** 2).mean())


# ------------------------------------------------------------------------------------------- association


class Members(NamedTuple):
    """Channel membership, one entry a member, in (image, patch) order; a seed patch is in its own."""

    image: Int
    patch: Int
    seed_image: Int
    seed_patch: Int


def associate(x: ArrayLike, seeds: ArrayLike, pairs: str = "all") -> Members:
    """Section 4: which patches of (N, P, D) join which channel (s, p).

    pairs="all": a seed image meets every other image (paper); "later": only those after it (reference).
    The seed image whose nearest patch is closest to q decides, the lowest seed image on ties; q joins that
    patch's channel when the two are mutual nearest neighbours, else it joins none.
    """
    x = np.asarray(x)
    seeds = sorted(int(s) for s in np.asarray(seeds))
    n_images, n_patches, _ = x.shape
    members = [(s, p, s, p) for s in seeds for p in range(n_patches)]
    for i in range(n_images):
        best = np.full(n_patches, np.inf)
        seed_image = np.full(n_patches, -1)
        seed_patch = np.full(n_patches, -1)
        mutual = np.zeros(n_patches, bool)
        for s in seeds:
            if i == s or (pairs == "later" and i < s):
                continue
            distance = pairwise_sq_distance(x[i], x[s])
            nn_seed, nn_img = distance.argmin(axis=1), distance.argmin(axis=0)
            closest = distance.min(axis=1)
            closer = closest < best
            best[closer] = closest[closer]
            seed_image[closer] = s
            seed_patch[closer] = nn_seed[closer]
            mutual[closer] = (nn_img[nn_seed] == np.arange(n_patches))[closer]
        members += [(i, q, int(seed_image[q]), int(seed_patch[q])) for q in range(n_patches) if mutual[q]]
    columns = np.array(sorted(members), np.int64).reshape(-1, 4).T
    return Members(*(np.ascontiguousarray(c) for c in columns))


# ----------------------------------------------------------------------------------------------- filters


class Filtered(NamedTuple):
    """keep (n,) bool; then for each living channel, ascending: its id, its members that stay, its sigma."""

    keep: Bool
    channels: Int
    length: Int
    sigma: Float


def filter_channels(
    members: ArrayLike,
    channel: ArrayLike,
    min_length: int | None,
    max_std: float | None,
    rows: ArrayLike | None = None,
    about_mean: bool = False,
) -> Filtered:
    """Section 5: span filter, spread filter, span filter again.

    `channel` is -1 for a row in no channel. Means and standard deviations are sums in the order of the
    members, divided by the count. Where every member is equally far from the mean (sigma 0) all of them stay.
    `about_mean` adds the mean of the distances to what a distance is compared with.
    """
    members = np.asarray(members)
    channel = np.asarray(channel)
    keep = np.zeros(len(channel), bool)
    living: list[tuple[int, int, float]] = []
    for c in np.unique(channel[channel >= 0]):
        own = np.flatnonzero(channel == c)
        if min_length is not None and not len(own) > min_length:
            continue
        x = members[own if rows is None else np.asarray(rows)[own]].astype(np.float64)
        mean = np.zeros(x.shape[1])
        for row in x:
            mean = mean + row
        mean = mean / len(own)
        distance = np.sqrt(sq_distance(x, mean))
        sigma = population_std(distance)
        stays = np.ones(len(own), bool)
        if max_std is not None and sigma > 0:
            total = 0.0
            for value in distance:
                total = total + value
            stays = distance < (total / len(own) if about_mean else 0.0) + max_std * sigma
        length = int(stays.sum())
        if length == 0 or (min_length is not None and not length > min_length):
            continue
        keep[own[stays]] = True
        living.append((int(c), length, sigma))
    return Filtered(
        keep,
        np.array([c for c, _, _ in living], np.int64),
        np.array([n for _, n, _ in living], np.int64),
        np.array([s for _, _, s in living], np.float64),
    )


def population_std(values: Float) -> float:
    """Population standard deviation with both sums in the order of the values."""
    total = 0.0
    for v in values:
        total = total + float(v)
    mean = total / len(values)
    squares = 0.0
    for v in values:
        squares = squares + (float(v) - mean) * (float(v) - mean)
    return float(np.sqrt(squares / len(values)))


class Nominal(NamedTuple):
    """The nominal model of section 5, in (image, patch) order, each patch once."""

    patches: NDArray[np.float32]
    image_index: Int
    patch_index: Int
    channel_seed_image: Int
    channel_seed_patch: Int


def nominal_patches(
    x: ArrayLike, members: Members, min_length: int | None = 3, max_std: float | None = 5.0, about_mean: bool = False
) -> Nominal:
    """Section 5: the members of all living channels of (N, P, D) descriptors.

    A seed image's patch may be in two channels: its own and one that it joined. It is stored once, under
    its own if it stays there, else under the other.
    """
    x = np.asarray(x)
    n_patches = x.shape[1]
    row = members.image * n_patches + members.patch
    channel = members.seed_image * n_patches + members.seed_patch
    kept = filter_channels(x.reshape(-1, x.shape[2]), channel, min_length, max_std, row, about_mean)
    chosen: dict[int, int] = {}
    for r, c in zip(row[kept.keep].tolist(), channel[kept.keep].tolist(), strict=True):
        if r not in chosen or c == r:
            chosen[r] = c
    rows = np.array(sorted(chosen), np.int64)
    channels = np.array([chosen[r] for r in sorted(chosen)], np.int64)
    patches = x.reshape(-1, x.shape[2])[rows]
    return Nominal(patches, *np.divmod(rows, n_patches), *np.divmod(channels, n_patches))


# ----------------------------------------------------------------------------------------------- scoring


def patch_scores(queries: ArrayLike, nominal: ArrayLike, distance: str = "squared_l2") -> Float:
    """Section 6: (P, D) -> (P,) distance to the nearest nominal patch."""
    squared = pairwise_sq_distance(queries, nominal).min(axis=1)
    return np.sqrt(squared) if distance == "l2" else squared


def upsample_nearest(scores: ArrayLike, height: int, width: int) -> Float:
    """Section 6: (h, w) -> (height, width); output row y reads input row floor(y * h / height)."""
    scores = np.asarray(scores, np.float64)
    h, w = scores.shape
    return np.asarray(scores[np.arange(height) * h // height][:, np.arange(width) * w // width])


def anomaly_map(scores: ArrayLike, height: int, width: int, sigma: float = 5.0) -> Float:
    """Section 6: nearest upsampling, then scipy's Gaussian filter (reflected borders, cut at four sigma)."""
    return np.asarray(gaussian_filter(upsample_nearest(scores, height, width), sigma))


def image_score(smoothed: ArrayLike) -> float:
    """Section 6: the image's score is its map's maximum."""
    return float(np.max(smoothed))


def mahalanobis_scores(queries: ArrayLike, mean: ArrayLike, std: ArrayLike) -> Float:
    """Supplement C: distance from each query to its nearest patch's channel, in the channel's deviations.

    `mean` and `std` are (P, D), the channel's statistics looked up for each query (diagonal covariance).
    """
    z = (np.asarray(queries, np.float64) - np.asarray(mean, np.float64)) / np.asarray(std, np.float64)
    return np.asarray(np.sqrt((z * z).sum(axis=1)))


def patchcore_scores(queries: ArrayLike, nominal: ArrayLike, neighbours: int = 9) -> Float:
    """Supplement C, PatchCore's re-weighting: (1 - softmax weight of m* among its neighbours) * d(q, m*).

    m* is the nearest nominal patch of q; its neighbours are the patches nearest to it, itself included.
    """
    queries, nominal = np.asarray(queries, np.float64), np.asarray(nominal, np.float64)
    index, _ = nearest(queries, nominal)
    around, _ = nearest(nominal[index], nominal, k=min(neighbours, len(nominal)))
    around = around.reshape(len(queries), -1)
    distance = np.sqrt(sq_distance(queries, nominal[index]))
    to_neighbours = np.sqrt(sq_distance(queries[:, None, :], nominal[around]))
    shift = to_neighbours.max(axis=1)
    weight = 1.0 - np.exp(distance - shift) / np.exp(to_neighbours - shift[:, None]).sum(axis=1)
    return np.asarray(weight * distance)
