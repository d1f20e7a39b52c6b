"""Distance of small patches to the nearest ones of normal images, with exact bounds of the score over a ball.

A patch is compared with patches of the training images: with those at its own place where the place matters (objects
that are registered), with those of any place where it does not (textures). As a nearest-neighbour score of image
patches this is the oldest baseline of the field (Boiman & Irani 2007, https://doi.org/10.1007/s11263-006-0009-9); its
bounds are those of nearest-prototype classifiers (Saralajew et al. 2020, "Fast adversarial robustness certification of
nearest prototype classifiers for arbitrary seminorms", NeurIPS) for an anomaly score: the root mean square of a patch
moves no further than the largest change of a pixel. docs/certificates.md has the theorem, its proof and what rounding
does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from bench import Detector, Rng, ThreatModel

from ._coreset import k_center_greedy

REGISTERED, FREE = 4, 3  # side of a patch where nothing is said
NEAREST = 2  # entries whose exact distances a score is the least of; the search is rounded
COMPARED = 6  # entries that are bounded each by itself; the rest by the next one's distance
ROLLED = 0.25  # of the side: how far images are shifted to see whether the place of a patch matters
PLACE_MATTERS = 1.5  # mean distance at the wrong place over that at the right one, from which on it does
SUBSAMPLE = 8  # entries of a free bank are chosen among so many times as many patches
BLOCK = 1 << 23  # distances at a time
UNIT = 2.0**-24  # rounding of single precision
PRODUCTS = {"highest": UNIT, "high": 2.0**-11, "medium": 2.0**-8}
"""Rounding of the products of single precision, by `torch.get_float32_matmul_precision()`."""
Place = Literal["auto", "registered", "free"]


class NearestPatch(Detector):
    """Score = mean of the `top` largest standardised distances of patches to their nearest normal patch.

    The distance is the root mean square over the pixels of a patch; it is standardised by mean and standard deviation
    of what training images have there, each compared with the others. Images whose side is above `side` are averaged
    down to it, which moves no pixel further than the image.

    patch: side of a patch in pixels, at `side`; 4 in a registered bank and 3 in a free one, where nothing is said.
    stride: between patches. shift: of a registered bank, how far in pixels an entry may be from its place. place:
    `registered`, `free`, or `auto`, which asks the training images: where patches fit as well at another place of the
    image it is `free`. entries: patches kept for each place of a registered bank. patches: patches kept in a free one.
    top: patches whose mean is the score. spread: how much of the mean standard deviation is added to that of each
    place. side: largest side that is not averaged down, in pixels.
    """

    bounded = ("linf", "l2")
    scoring_parameters = frozenset({"top"})
    toy_parameters: ClassVar = {"entries": 64, "patches": 2000}

    def __init__(
        self,
        *,
        patch: Annotated[int, Field(ge=1)] | None = None,
        stride: PositiveInt = 2,
        shift: Annotated[int, Field(ge=0)] = 2,
        place: Place = "auto",
        entries: PositiveInt = 512,
        patches: PositiveInt = 8000,
        top: PositiveInt = 2,
        spread: Annotated[float, Field(gt=0)] = 2.0,
        side: PositiveInt = 64,
    ):
        super().__init__()
        self.patch, self.stride, self.shift, self.place = patch, stride, shift, place
        self.entries, self.patches, self.top, self.spread, self.side = entries, patches, top, spread, side
        self.register_buffer("bank", torch.zeros(0, 0, 0))  # (places or 1, entries, 3 * patch^2)
        self.register_buffer("center", torch.zeros(0, 0))  # (places or 1, 3 * patch^2): what the search subtracts
        # of the search, made of these two after a fit and after loading
        self.register_buffer("centered", torch.zeros(0, 0, 0), persistent=False)  # bank - center
        self.register_buffer("lengths", torch.zeros(0, 0), persistent=False)  # (places or 1, entries): squares of those
        self.register_buffer("mean", torch.zeros(0))  # (places,) or (1,), of distances of normal patches
        self.register_buffer("deviation", torch.ones(0))
        self.bank: Tensor
        self.center: Tensor
        self.centered: Tensor
        self.lengths: Tensor
        self.mean: Tensor
        self.deviation: Tensor

    def fit(self, normal: DataLoader[Tensor]) -> None:
        x = torch.cat([self._reduced(images.to(self.device)) for images in normal])
        if min(x.shape[-2:]) < self._patch(True):
            raise ValueError(f"a patch of {self._patch(True)} pixels is larger than an image of {min(x.shape[-2:])}")
        registered = self.place == "registered" or (self.place == "auto" and self._place_matters(x))
        self.bank, owners = self._registered(x) if registered else self._free(x)
        self.center = self.bank.mean(1)
        self._index()
        distance = self._left_out(x, owners)
        if not registered:
            distance = distance.flatten()[:, None]
        self.mean, deviation = distance.mean(0), distance.std(0)
        self.deviation = (deviation + self.spread * deviation.mean()).clamp_min(1e-6)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        found = super().load_state_dict(state_dict, strict, assign)
        self._index()
        return found

    def score(self, x: Tensor, rng: Rng | None = None) -> Tensor:
        return self.score_with_evidence(x)[0]

    def score_with_evidence(self, x: Tensor, rng: Rng | None = None) -> tuple[Tensor, Tensor]:
        """The evidence (B, L) is the standardised distances."""
        patches = self._unfolded(self._reduced(x))
        with torch.no_grad():
            nearest = self._nearest(patches, NEAREST)[1]
        z = (self._exact(patches, nearest).amin(2) - self.mean) / self.deviation
        return self._pooled(z), z

    def anomaly_map(self, x: Tensor) -> Tensor:
        """(B, 1, H, W): of every pixel the mean over the patches that hold it."""
        reduced = self._reduced(x)
        patch, size = self._fitted_patch, (reduced.shape[-2], reduced.shape[-1])
        z = self.score_with_evidence(x)[1][:, None].expand(-1, patch**2, -1)
        total = F.fold(z, size, patch, stride=self.stride)
        count = F.fold(torch.ones_like(z), size, patch, stride=self.stride)
        return F.interpolate(total / count.clamp_min(1), x.shape[-2:], mode="bilinear", align_corners=False)

    def bounds(self, x: Tensor, threat: ThreatModel) -> tuple[Tensor, Tensor]:
        """By theorem 2 of docs/certificates.md, in double precision, and widened by what single precision may do."""
        reduced, eps, off = self._reduced(x.double()), self._reach(x, threat), self._averaging(x)
        least: Tensor | None = None
        most: Tensor | None = None
        if threat.norm == "linf":  # a rounded average of ones may be above 1
            least, most = (self._unfolded((reduced + move).clamp(-off, 1 + off)) for move in (-eps, eps))
        patches = self._unfolded(reduced)
        distance, nearest = self._nearest(patches.to(self.bank.dtype), COMPARED + 1)
        low, high = self._of_pairs(patches, least, most, nearest[..., :COMPARED], eps)
        slip = self._slip(patches, eps)
        if self.bank.shape[1] > COMPARED:  # the others are no nearer than the last one, but for what the search misses
            rest = (distance[..., COMPARED].double().square() - slip).clamp_min(0).sqrt()
            low = torch.minimum(low, (rest * (1 - UNIT) - eps).clamp_min(0))
        return self._widened(patches, low, high, slip)

    def _of_pairs(
        self, patches: Tensor, least: Tensor | None, most: Tensor | None, nearest: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        """(B, L) each: the least and the most that the distance to the nearest of these entries can be."""
        lows, highs = [], []
        for k in range(nearest.shape[2]):
            entry = self._entries(nearest[..., k : k + 1])[:, :, 0].double()
            if least is None or most is None:
                d = (patches - entry).square().mean(-1).sqrt()
                lows.append((d - eps).clamp_min(0))
                highs.append(d + eps)
            else:
                near = torch.maximum(least - entry, entry - most).clamp_min(0)
                far = torch.maximum(entry - least, most - entry)
                lows.append(near.square().mean(-1).sqrt())
                highs.append(far.square().mean(-1).sqrt())
        return torch.stack(lows).amin(0), torch.stack(highs).amin(0)

    def _slip(self, patches: Tensor, eps: float) -> Tensor:
        """(B, L): by how much the mean square of an entry may be further than that of the nearest one when the search,
        in single precision and by scalar products, takes it for the nearest."""
        n, unit = patches.shape[-1], PRODUCTS[torch.get_float32_matmul_precision()]
        longest = self.lengths.double().amax(1).sqrt()
        length = (patches - self.center.double()).square().sum(-1).sqrt() + eps * math.sqrt(n) + longest
        return 2 * 1.01 * (n + 12) * unit * length.square() / n

    def _widened(self, patches: Tensor, low: Tensor, high: Tensor, slip: Tensor) -> tuple[Tensor, Tensor]:
        """Bounds (B,) of the score as single precision computes it, from those (B, L) of exact distances."""
        n, m = patches.shape[-1], min(self.top, low.shape[1])
        relative = 1.01 * (n + 6) * UNIT  # of a sum of n squares, its root, and the differences in it
        low = low * (1 - relative) - 1e-12
        high = (high.square() + slip).sqrt() * (1 + relative) + 1e-12
        mean, deviation = self.mean.double(), self.deviation.double()
        off = 4 * UNIT * (high + mean.abs()) / deviation
        bounds = []
        for z in ((low - mean) / deviation - off, (high - mean) / deviation + off):
            top = z.topk(m, dim=1).values
            bounds.append((top.mean(1), (m + 3) * UNIT * top.abs().amax(1) + 1e-12))
        return bounds[0][0] - bounds[0][1], bounds[1][0] + bounds[1][1]

    def _reach(self, x: Tensor, threat: ThreatModel) -> float:
        """How far the root mean square of a patch of the reduced image can be moved, its rounding included."""
        if threat.norm == "linf":
            return threat.radius + self._averaging(x)
        gain = self._gain(x.shape[-2]) * self._gain(x.shape[-1])
        return threat.radius * gain / math.sqrt(self.bank.shape[-1]) + self._averaging(x)

    def _gain(self, size: int) -> float:
        """Of the averaging along one side, in l2: the root of the largest sum of the weights of a pixel, as the weights
        of an average sum to 1."""
        if size <= self.side:
            return 1.0
        impulse = torch.eye(size, dtype=torch.float64)[:, None]
        sums = F.adaptive_avg_pool1d(impulse, self.side).sum((1, 2))
        return math.sqrt(float(sums.max())) * (1 + 1e-12)

    def _averaging(self, x: Tensor) -> float:
        """By how much rounding can move a pixel of the reduced image; 0 where nothing is averaged."""
        height, width = (math.ceil(size / self.side) + 1 if size > self.side else 1 for size in x.shape[-2:])
        return 2 * (height * width + 2) * UNIT if height * width > 1 else 0.0

    def _reduced(self, x: Tensor) -> Tensor:
        """At most `side` pixels high and wide: averages of equal weights."""
        height, width = (min(size, self.side) for size in x.shape[-2:])
        return x if (height, width) == tuple(x.shape[-2:]) else F.adaptive_avg_pool2d(x, (height, width))

    def _unfolded(self, x: Tensor, patch: int | None = None) -> Tensor:
        """(B, 3, h, w) -> (B, L, 3 * patch^2); by default patches as those of the bank."""
        return F.unfold(x, patch or self._fitted_patch, stride=self.stride).mT

    def _patch(self, registered: bool) -> int:
        """Side of a patch of such a bank."""
        return self.patch or (REGISTERED if registered else FREE)

    @property
    def _fitted_patch(self) -> int:
        """Side of a patch of the bank that was fitted."""
        return math.isqrt(self.bank.shape[-1] // 3)

    def _pooled(self, z: Tensor) -> Tensor:
        return z.topk(min(self.top, z.shape[1]), dim=1).values.mean(1)

    def _entries(self, index: Tensor) -> Tensor:
        """(B, L, K) -> (B, L, K, n): entries of the bank of each place."""
        if len(self.bank) == 1:
            return self.bank[0][index]
        places = torch.arange(len(self.bank), device=index.device)[None, :, None].expand_as(index)
        return self.bank[places, index]

    def _exact(self, patches: Tensor, index: Tensor) -> Tensor:
        """(B, L, K): root mean squares of differences, without a gradient where a patch is met exactly."""
        square = (patches[:, :, None] - self._entries(index)).square().mean(-1)
        return torch.where(square > 0, square.clamp_min(1e-20).sqrt(), 0)

    def _registered(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """For each place, patches of images at most `shift` pixels from it; and the image of each entry.

        All those that are not shifted come first; others are drawn.
        """
        near = [(dy, dx) for dy in range(-self.shift, self.shift + 1) for dx in range(-self.shift, self.shift + 1)]
        near.sort(key=lambda move: (abs(move[0]) + abs(move[1]) > 0, move))
        still = torch.arange(len(x))
        moved = len(x) + torch.randperm(len(x) * (len(near) - 1))
        chosen = torch.cat([still, moved])[: max(self.entries, len(x))]
        padded = F.pad(x, (self.shift,) * 4, mode="replicate") if self.shift else x
        height, width = x.shape[-2:]
        entries = []
        for number in chosen.tolist():
            dy, dx = (self.shift + d for d in near[number // len(x)])
            moved_image = padded[number % len(x), :, dy : dy + height, dx : dx + width][None]
            entries.append(self._unfolded(moved_image, self._patch(True))[0])
        return torch.stack(entries, 1), (chosen % len(x)).to(x.device)

    def _free(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Patches of any place, far from each other; and the image of each."""
        every = F.unfold(x, self._patch(False)).mT
        owners = torch.arange(len(x)).repeat_interleave(every.shape[1])
        some = torch.randperm(len(owners))[: SUBSAMPLE * self.patches].to(x.device)
        points, owners = every.flatten(0, 1)[some], owners.to(x.device)[some]
        count = min(self.patches, len(points))
        chosen = k_center_greedy(points, count, self.progress.update)
        return points[chosen][None], owners[chosen]

    def _place_matters(self, x: Tensor) -> bool:
        """Whether patches of training images fit worse to those at another place than to those at their own."""
        some = x[: min(len(x), 64)]
        moved = some.roll([round(ROLLED * x.shape[-1])] * 2, (2, 3))
        patches, elsewhere = (self._unfolded(images, self._patch(True)) for images in (some, moved))
        right, wrong = (self._least_of_others(part, patches) for part in (patches, elsewhere))
        return float(wrong.mean()) > PLACE_MATTERS * float(right.mean())

    @staticmethod
    def _least_of_others(queries: Tensor, patches: Tensor) -> Tensor:
        """(L, N): distance of each image's patch to the nearest at the same place of the other images."""
        found = torch.cdist(queries.transpose(0, 1), patches.transpose(0, 1))
        return found.masked_fill(torch.eye(len(patches), dtype=torch.bool, device=patches.device), torch.inf).amin(2)

    def _left_out(self, x: Tensor, owners: Tensor) -> Tensor:
        """(N, L): distances of every training image's patches to the entries that are not its own."""
        found = []
        for i, image in enumerate(x):
            patches = self._unfolded(image[None])
            found.append(self._nearest(patches, 1, owners != i)[0][0, :, 0])
        return torch.stack(found)

    def _index(self) -> None:
        """What every search needs of the bank."""
        self.centered = self.bank - self.center[:, None]
        self.lengths = self.centered.square().sum(-1)

    def _nearest(self, patches: Tensor, count: int, counts: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, L, K) each: distances to the nearest entries, and which these are. counts: (entries,), those that do."""
        (batch, places, n), bank, lengths = patches.shape, self.centered, self.lengths
        if counts is not None:
            lengths = lengths.masked_fill(~counts, torch.inf)
        shifted = (patches - self.center).transpose(0, 1)  # (L, B, n)
        if len(bank) == 1:  # every place meets the same entries
            shifted = shifted.reshape(1, places * batch, n)
        rows = max(BLOCK // bank.shape[1] // shifted.shape[1], 1) if len(bank) > 1 else 1
        columns = max(BLOCK // bank.shape[1], 1)
        found = [
            torch.baddbmm(lengths[i : i + rows, None], shifted[i : i + rows, j : j + columns], bank[i : i + rows].mT,
                          alpha=-2).topk(min(count, bank.shape[1]), dim=2, largest=False)
            for i in range(0, len(bank), rows)
            for j in range(0, shifted.shape[1], columns)
        ]  # fmt: skip
        across = 1 if len(bank) == 1 else 0
        square, index = (torch.cat(parts, across).view(places, batch, -1) for parts in zip(*found, strict=True))
        square = square + shifted.view(places, batch, n).square().sum(-1, keepdim=True)
        return (square.clamp_min(0) / n).sqrt().transpose(0, 1), index.transpose(0, 1)
