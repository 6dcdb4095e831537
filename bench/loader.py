"""What a training step sees: pictures in the epoch's order, rendered as the method's views."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from bench import rng
from bench.api import Batch, Batches, DataInfo, Method, TrainSet, View
from bench.data.dataset import Images, Split, resident
from bench.data.few_labels import few_labels
from bench.data.order import endless
from bench.data.views import eval_view, render
from bench.errors import BenchError


class Loader:
    """Batches of a training split on a device, with what the method declares that it needs.

    Every draw is named by (seed, epoch, step, rank), so an epoch can be entered at any step.

    Raises:
        BenchError: there are fewer pictures than one batch holds, or labels than classes.
    """

    def __init__(
        self, method: Method, split: Split, seed: int, device: torch.device, rank: int = 0
    ) -> None:
        self.method, self.split, self.seed = method, split, seed
        self.needs = method.needs_of(method.cfg)
        self.device, self.rank = device, rank
        self.batch_size: int = method.cfg.batch_size
        self.per_epoch = len(split) // self.batch_size
        if self.per_epoch == 0 and method.cfg.epochs:
            raise BenchError(
                f"a batch of {self.batch_size} needs that many pictures; there are {len(split)}. "
                "Use a smaller --batch-size"
            )
        self.views = tuple(method.views())
        self.images = resident(split.images, device)
        self.tokens = self._tokens()
        # Which pictures have a label that may be used, [n]; None where the method asks for none.
        self.labeled = (
            few_labels(split, method.cfg.labels, seed) if "labeled" in self.needs else None
        )

    def pictures(self) -> TrainSet:
        """The training pictures, for `Method.before_epoch`."""
        return _Pictures(self.images, self.method.data, self.device)

    def batches(self, epoch: int, offset: int, count: int) -> Iterator[Batch]:
        """`count` batches of an epoch, from its step `offset` on."""
        order = self._order(epoch)[offset * self.batch_size :]
        indices = list(order.split(self.batch_size)[:count])
        yield from self.of(indices, epoch, epoch * self.per_epoch + offset)

    def of(self, indices: Sequence[Tensor], epoch: int = 0, first: int = 0) -> Iterator[Batch]:
        """A batch of the pictures at each tensor of positions, from step `first` of a run on."""
        frames = self._frames(indices)
        labeled = self._labeled(range(first, first + len(indices)))
        for step, (index, pixels) in enumerate(self.images.stream(indices), first):
            index, pixels = _refill(index, pixels, len(indices[step - first]))
            batch = self._batch((self.seed, epoch, step, self.rank), index, pixels, frames)
            batch.labeled = next(labeled, None)
            yield batch

    def _order(self, epoch: int) -> Tensor:
        """The epoch's order of pictures: each once, or drawn by the method's weights."""
        draw = rng.generator(self.seed, "order", epoch)
        weights = self.method.sample_weights()
        if weights is None:
            return torch.randperm(len(self.split), generator=draw)
        return torch.multinomial(weights.cpu(), len(self.split), replacement=True, generator=draw)

    def _labeled(self, steps: range) -> Iterator[Batch]:
        """The labelled pictures of each step, in an order of their own."""
        if self.labeled is None:
            return
        assert self.split.labels is not None
        size: int = self.method.cfg.labeled_batch_size
        chosen = self.labeled
        order = (
            chosen[endless(len(chosen), size, step, self.seed, "labeled", self.rank)]
            for step in steps
        )
        for step, (index, pixels) in zip(steps, self.images.stream(order), strict=True):
            index, pixels = _refill(index, pixels, size)
            x, aspect = pixels.to(self.device, non_blocking=True), self._aspect(index)
            where = (self.seed, step, self.rank, "labeled")
            yield Batch(
                views={
                    v.name: render(v, x, self._draw(where, v), aspect)
                    for v in self.views
                    if v.labeled
                },
                index=index.to(self.device),
                label=self.split.labels[index].to(self.device),
            )

    def _aspect(self, index: Tensor) -> Tensor | None:
        aspect = self.split.images.aspect
        return None if aspect is None else aspect[index].to(self.device)

    def _draw(self, where: tuple[int | str, ...], view: View) -> torch.Generator:
        return rng.generator(*where, "view", view.name, device=self.device)

    def _frames(self, indices: Sequence[Tensor]) -> Batches | None:
        if "frames" not in self.needs:
            return None
        assert self.split.frames is not None
        return self.split.frames.stream(indices)

    def _tokens(self) -> Tensor | None:
        """Every caption's tokens `[N, L]`, made once."""
        if "text" not in self.needs:
            return None
        from bench.data.text import tokenize  # its tokenizer takes seconds to import

        assert self.split.text is not None
        return tokenize(self.split.text)

    def _batch(
        self,
        where: tuple[int, int, int, int],
        index: Tensor,
        pixels: Tensor,
        frames: Batches | None,
    ) -> Batch:
        needs, split = self.needs, self.split
        sources = {"image": pixels.to(self.device, non_blocking=True)}
        if frames is not None:
            sources["frame"] = next(frames)[1].to(self.device, non_blocking=True)
        aspect = self._aspect(index)
        label = split.labels if "labels" in needs else None
        motion = split.motion if "motion" in needs else None
        return Batch(
            views={
                v.name: render(v, sources[v.source], self._draw(where, v), aspect)
                for v in self.views
                if not v.labeled
            },
            index=index.to(self.device),
            label=None if label is None else label[index].to(self.device),
            text=None if self.tokens is None else self.tokens[index].to(self.device).long(),
            motion=None if motion is None else motion[index].to(self.device),
        )


class _Pictures(TrainSet):
    def __init__(self, images: Images, info: DataInfo, device: torch.device) -> None:
        self._images, self._info, self._device = images, info, device

    def __len__(self) -> int:
        return len(self._images)

    @torch.no_grad()
    def features(self, module: nn.Module, first: int | None = None) -> Tensor:
        """`module`'s output on every picture, `[N, D]`, in data order; a broken one's are zeros."""
        count = len(self) if first is None else min(first, len(self))
        was_training = module.training
        module.eval()
        rows: Tensor | None = None
        for index, x in self._rendered(torch.arange(count).split(512)):
            out = module(x).float()
            if rows is None:
                rows = out.new_zeros(count, out.shape[1])
            rows[index] = out
        module.train(was_training)
        assert rows is not None
        return rows

    def sample(self, count: int) -> Tensor:
        """`count` pictures drawn by the global generator; broken ones are left out."""
        index = torch.randperm(len(self))[:count]
        return torch.cat([x for _, x in self._rendered(index.split(512))])

    def _rendered(self, indices: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        view, images = eval_view(self._info), self._images
        for index, pixels in images.stream(indices):
            aspect = None if images.aspect is None else images.aspect[index].to(self._device)
            unused = rng.generator("eval", device=self._device)
            (x,) = render(view, pixels.to(self._device), unused, aspect)
            yield index.to(self._device), x


def _refill(index: Tensor, pixels: Tensor, batch_size: int) -> tuple[Tensor, Tensor]:
    """A full batch again where broken pictures were left out: its first pictures, repeated."""
    missing = batch_size - len(index)
    if missing <= 0:
        return index, pixels
    if len(index) == 0:
        raise BenchError("every picture of a batch is broken; remove the broken ones")
    again = torch.arange(missing) % len(index)
    return torch.cat([index, index[again]]), torch.cat([pixels, pixels[again.to(pixels.device)]])
