"""One test bed: normal images to learn from, labelled images to be judged on, and what proves which they were."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import UserError
from .choice import evenly_spread, stratified
from .copies import Glance, Glances, copies, glance
from .images import Record, to_mask, to_tensor
from .protocol import PROTOCOL, Protocol
from .rng import held_out_lot
from .survey import survey

BATCH_SIZE = 32
"""Images at a time where nobody has asked for another number."""

# Decoded images are kept up to this many bytes per set; beyond it every access decodes again, so the
# memory of a run does not grow with the data set.
CACHE_BYTES = 256 * 2**20  # of decoded images that a fit reads again and again
TEST_CACHE_BYTES = 80 * 2**20  # of those that are read a few times: memory must not grow with their number

TEST_CACHE_IMAGES = 1000  # of a larger set the images are small, or too many for the bytes above
AT_ONCE = 64  # images that wait, decoded, to be looked at
NORMAL_ONLY = (
    "all {count} test images are normal: false alarms are measured; AUROC, AP, FPR95 and whatever else needs anomalous "
    "images are absent"
)

# The least held-out normal images for which "5 % false alarms" can be promised: ceil(20 * 0.95) = 19.
MIN_HELD_OUT = 20


class ImageSet(Dataset[Tensor]):
    """Images of float (3, S, S) in [0, 1], decoded when asked for."""

    def __init__(self, records: Sequence[Record], image_size: int):
        self.records = tuple(records)
        self.image_size = image_size
        self._cache: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Tensor:
        return self.image(index)

    def _most(self, size: int) -> int:
        """Decoded images of so many bytes that are kept."""
        return CACHE_BYTES // size

    @cached_property
    def ids(self) -> list[str]:
        return [record.id for record in self.records]

    @cached_property
    def labels(self) -> list[int]:
        return [record.label for record in self.records]

    def image(self, index: int) -> Tensor:
        """The image as float (3, S, S) in [0, 1]."""
        if index in self._cache:
            return self._cache[index]
        image = to_tensor(self.records[index].source.pixels(), self.image_size)
        if len(self._cache) < self._most(image.nbytes):
            self._cache[index] = image
        return image

    def images(self, indices: Sequence[int]) -> Tensor:
        """A batch (B, 3, S, S)."""
        return torch.stack([self.image(i) for i in indices])

    def mask(self, index: int) -> Tensor | None:
        """Where the anomaly is: bool (1, S, S), or None where the data set does not say.

        Any pixel of the mask that is not black marks; so does a pixel of the result in which one of them lies.
        """
        source = self.records[index].mask
        return None if source is None else to_mask(source.pixels(), self.image_size)

    @cached_property
    def glances(self) -> Glances:
        """What tells copies, of every image."""
        return self.glance_at_all()

    def glance_at_all(self) -> Glances:
        """As `glances`, for once; all images are decoded, and kept as far as `image` keeps them."""
        return Glances(self._each_glance())

    def _each_glance(self) -> Iterator[Glance]:
        with ThreadPoolExecutor() as pool:  # decoding releases the interpreter lock
            for start in range(0, len(self), AT_ONCE):
                some = range(start, min(start + AT_ONCE, len(self)))
                yield from pool.map(lambda i: glance(self.records[i].id, self.image(i)), some)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of ids, labels, contents and size: equal fingerprints mean equal images."""
        total = hashlib.sha256(f"{self.image_size}".encode())
        with ThreadPoolExecutor() as pool:  # hashing releases the interpreter lock
            for record, digest in zip(self.records, pool.map(lambda r: r.source.digest(), self.records), strict=True):
                total.update(f"\n{record.id}\t{record.label}\t".encode() + digest)
        return total.hexdigest()


class TrainSet(ImageSet):
    """Normal images only: `train[i]` is an image.

    fold: its name, empty of the first, and the ids that are held out of it, whatever the seed.
    """

    def __init__(self, records: Sequence[Record], image_size: int, fold: tuple[str, frozenset[str]] | None = None):
        super().__init__(records, image_size)
        self.fold = fold

    def split(self, seed: int) -> tuple[TrainSet, TrainSet]:
        """Images to fit on, and held-out ones on which a threshold may be set.

        A tenth is held out, but at least 20 images while that is at most a quarter. The choice depends on
        the seed and the ids alone: not on the order of the files or on a library's random generator.
        """
        chosen = self._drawn(seed)[: self._held_out] if self.fold is None else self.fold[1]
        fit = [r for r in self.records if r.id not in chosen]
        held = [r for r in self.records if r.id in chosen]
        return TrainSet(fit, self.image_size), TrainSet(held, self.image_size)

    def folds(self, seed: int, count: int) -> list[TrainSet]:
        """The same images, `count` times: each is held out once. The first is split as this set is, and the others
        share evenly what it does not hold out. Raises UserError where more than a quarter would be held out at once.
        """
        drawn, first = self._drawn(seed), self._held_out
        held = [drawn[:first], *(drawn[first + i :: count - 1] for i in range(count - 1))]
        fewest = -(-(len(self) - first) // (len(self) // 4)) + 1
        if not fewest <= count <= len(self) - first + 1:
            raise UserError(
                f"--threshold-folds {count}: {len(self)} normal images, {first} of them held out of the first, make "
                f"{fewest} to {len(self) - first + 1} folds, so that none holds out more than a quarter of them"
            )
        names = ["", *(f"{number} of {count}" for number in range(2, count + 1))]
        parts = zip(names, map(frozenset, held), strict=True)
        return [TrainSet(self.records, self.image_size, part) for part in parts]

    @property
    def _held_out(self) -> int:
        return min(max(MIN_HELD_OUT, len(self) // 10), len(self) // 4)

    def _drawn(self, seed: int) -> list[str]:
        """The ids in the order in which they are held out."""
        return sorted(self.ids, key=lambda name: held_out_lot(seed, name))


class TestSet(ImageSet):
    """Images to be judged: `test[i]` is `(image, label, id)`."""

    __test__ = False  # not a pytest class

    def _most(self, size: int) -> int:
        return min(TEST_CACHE_BYTES // size, TEST_CACHE_IMAGES)

    def __getitem__(self, index: int) -> tuple[Tensor, int, str]:  # type: ignore[override]
        record = self.records[index]
        return self.image(index), record.label, record.id

    def of_each_class(self, count: int) -> list[int]:
        """Indices of the first `count` images of each class, normal ones before anomalous ones."""
        return [i for label in (0, 1) for i in [j for j, y in enumerate(self.labels) if y == label][:count]]

    def chosen(self, limit: int, protocol: Protocol = PROTOCOL) -> TestSet:
        """`limit` images of both labels, as far as it has both, in the order of this set; `choice` says which."""
        if limit >= len(self):
            return self
        if limit < 2:
            raise UserError(f"--limit must be at least 2 (a normal and an anomalous image), got {limit}")
        choose = evenly_spread if protocol == 1 else stratified
        ids = choose({record.id: record.label for record in self.records}, limit)
        return TestSet([r for r in self.records if r.id in ids], self.image_size)


@dataclass(frozen=True)
class Data:
    """One category of a data set at one image size.

    `train[i]` is a normal image, `test[i]` is `(image, label, id)`; images are float (3, S, S) in [0, 1].
    Every file's header has been looked at: what cannot be judged, or mixes meanings of a pixel, raises UserError.
    """

    name: str
    category: str
    image_size: int
    train: TrainSet
    test: TestSet
    remarks: tuple[str, ...] = ()
    """What its reader found worth saying, such as folders that are not read; one sentence each."""
    version: int = 1
    """Of the data set: cells of two versions never stand on one board."""

    def __post_init__(self) -> None:
        self._refuse_what_no_record_can_hold()
        where = f"{self.name}/{self.category}"
        if self.image_size < 8:
            raise UserError(f"--image-size must be at least 8 pixels, got {self.image_size}")
        if len(self.train) < 4:
            raise UserError(f"{where} has {len(self.train)} normal training images; at least 4 are needed")
        if any(self.train.labels):
            raise UserError(f"{where} has anomalous images among its training images")
        if 0 not in self.test.labels:
            raise UserError(
                f"{where} has no normal test image, so false alarms cannot be seen and there is nothing to rank; put "
                "normal images that are not trained on beside the anomalous ones (test/good)"
            )
        if len(self.test) < 2:
            raise UserError(f"{where} has one test image; at least 2 are needed")
        for images in (self.train, self.test):
            twice = [i for i, n in Counter(images.ids).items() if n > 1]
            if twice:
                raise UserError(f"{where} has two images with the id {twice[0]!r}; ids must be unique")
        survey(where, {"train": self.train.records, "test": self.test.records})

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """The remarks, and sentences on what is missing, or in the data twice. The first call decodes every image."""
        alone = [NORMAL_ONLY.format(count=len(self.test))] * self.normal_only
        return (*self.remarks, *alone, *copies(self.train.glances, self.test.glance_at_all()))

    @property
    def normal_only(self) -> bool:
        """No test image is anomalous: false alarms can be measured, and nothing ranked."""
        return 1 not in self.test.labels

    def folds(self, seed: int, count: int) -> list[Data]:
        """As of `TrainSet.folds`."""
        return [replace(self, train=train) for train in self.train.folds(seed, count)]

    def _refuse_what_no_record_can_hold(self) -> None:
        for name in (self.name, self.category, *self.train.ids, *self.test.ids):
            try:
                name.encode()
            except UnicodeEncodeError:
                raise UserError(
                    f"the name {name!a} is not UTF-8: rename it, or, where the locale is C, set PYTHONUTF8=1"
                ) from None

    def limited(self, limit: int | None, protocol: Protocol = PROTOCOL) -> Data:
        """The same data with at most `limit` test images, chosen as the protocol says."""
        return self if limit is None else replace(self, test=self.test.chosen(limit, protocol))
