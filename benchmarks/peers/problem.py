"""What a peer is given: score, images and budget, and views of the score that attacks on classifiers understand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench import Score, ThreatModel

REL_STEP = 2.5  # of plain PGD: steps of 2.5 eps / passes, the field's habit (Madry et al. 2018)
OUT_OF_REACH = 1e4  # spreads of the clean scores between an image and a threshold that it must never meet


@dataclass
class Problem:
    """Images x (B, 3, H, W), sign (B,), and a budget of `passes` forward + backward passes per image and draw.

    A score is the mean over `draws`, with noise from torch's global generator, fresh in every call.
    """

    score: Score
    x: Tensor
    sign: Tensor
    threat: ThreatModel
    passes: int
    draws: int

    @property
    def eps(self) -> float:
        return self.threat.radius

    @property
    def step(self) -> float:
        return REL_STEP * self.eps / self.passes

    @property
    def norm(self) -> str:
        """As AutoAttack and its descendants write it."""
        return {"linf": "Linf", "l2": "L2"}[self.threat.norm]

    @property
    def labels(self) -> Tensor:
        """(B,): class 0 is normal, class 1 anomalous."""
        return (self.sign < 0).long()

    def scores(self, x: Tensor) -> Tensor:
        """(B,), differentiable in x. One draw is in memory at a time, as in our own attacks."""
        if self.draws == 1:
            return self.score(x.float())
        mean: Tensor = _MeanOverDraws.apply(x.float(), self.score, self.draws)
        return mean

    def clean(self) -> Tensor:
        """(B,): one forward pass per draw."""
        with torch.no_grad():
            return self.scores(self.x)

    def scalar(self) -> nn.Module:
        """x -> (B, 1), for libraries that take a loss."""
        return View(lambda x: self.scores(x)[:, None])

    def at_clean_score(self) -> nn.Module:
        """[tau - s, s - tau] / spread, where tau is the image's own clean score and spread the standard deviation of
        the clean scores: cross-entropy starts at log 2 and grows with sign * score, so that it saturates nowhere."""
        clean = self.clean()
        return self._two_logits(clean, _spread(clean))

    def out_of_reach(self) -> nn.Module:
        """The same with a threshold that no image can meet, for attacks that stop there; in double precision."""
        clean = self.clean().double()
        spread = _spread(clean)
        return self._two_logits(clean + self.sign * OUT_OF_REACH * spread, spread)

    def between_classes(self) -> nn.Module:
        """The same with one threshold for all, half way between the classes' mean clean scores."""
        clean = self.clean()
        normal = self.sign > 0
        return self._two_logits((clean[normal].mean() + clean[~normal].mean()) / 2, _spread(clean))

    def within_reach(self) -> nn.Module:
        """The same for minimum-norm attacks: tau is the strongest score that one steepest step reaches, of length eps,
        eps / 2, eps / 4 or eps / 8, and its gain is the unit. So the margin of a clean image is -1, and a point of
        the ball is known to be on the other side. One forward + backward pass and four forward ones."""
        point = self.x.clone().requires_grad_(True)
        clean = self.scores(point)
        (gradient,) = torch.autograd.grad(clean.sum(), point)
        clean, sign = clean.detach(), self.sign
        direction = self.threat.steepest(sign.view(-1, 1, 1, 1) * gradient)
        with torch.no_grad():
            steps = [self.threat.project(self.x + self.eps / k * direction, self.x) for k in (1, 2, 4, 8)]
            gain = torch.stack([sign * (self.scores(x) - clean) for x in steps]).amax(0)
        least = 1e-6 * _spread(clean)  # where no such step gains
        gain = gain.maximum(least)
        return self._two_logits(clean + sign * gain, gain)

    def to_the_rim(self, x_adv: Tensor) -> Tensor:
        """What a minimum-norm attack returns, or that stretched to length eps: the better one, for two forwards."""
        shift = x_adv.to(self.x) - self.x
        length = self.threat.distance(x_adv.to(self.x), self.x).to(shift)
        stretched = shift * (self.eps / length.clamp_min(1e-12)).view(-1, 1, 1, 1)
        candidates = [self.threat.project(self.x + s, self.x) for s in (shift, stretched)]
        with torch.no_grad():
            own, rim = (self.sign * self.scores(c) for c in candidates)
        return torch.where((rim > own).view(-1, 1, 1, 1), candidates[1], candidates[0])

    def _two_logits(self, tau: Tensor, scale: Tensor) -> nn.Module:
        def forward(x: Tensor) -> Tensor:
            if tau.ndim and len(x) != len(tau):
                raise ValueError(f"the library split the batch of {len(tau)} images; their thresholds are their own")
            margin = (self.scores(x).to(tau) - tau) / scale
            return torch.stack([-margin, margin], 1)

        return View(forward)


class View(nn.Module):
    """A function as a module. Its one parameter, unused, tells libraries the device."""

    def __init__(self, function: Any):
        super().__init__()
        self.function = function
        self.place = nn.Parameter(torch.zeros(1), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.function(x)
        return result


class _MeanOverDraws(torch.autograd.Function):
    """The gradient is computed with the value, draw by draw."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, score: Score, draws: int) -> Tensor:
        total, gradient = torch.zeros(len(x)).to(x), torch.zeros_like(x)
        for _ in range(draws):
            if not ctx.needs_input_grad[0]:
                total += score(x.detach()) / draws
                continue
            with torch.enable_grad():
                point = x.detach().requires_grad_(True)
                value = score(point)
                gradient += torch.autograd.grad(value.sum(), point)[0] / draws
            total += value.detach() / draws
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return upstream[0].view(-1, 1, 1, 1) * gradient, None, None


def _spread(scores: Tensor) -> Tensor:
    return scores.std(correction=0).clamp_min(torch.finfo(scores.dtype).tiny)
