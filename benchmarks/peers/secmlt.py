"""secml-torch: PGD whose loss is set on the modular object. (`loss_function=` of PGDNative is swallowed: cross-entropy
of one column stays, and no image moves. That is no comparison.)"""

from __future__ import annotations

from importlib import import_module

from torch import Tensor

from .problem import Problem


class SignedScore:
    """Higher is stronger; one value per image."""

    def __call__(self, scores: Tensor, labels: Tensor) -> Tensor:
        return (1 - 2 * labels.to(scores)) * scores[:, 0]


def pgd(problem: Problem) -> Tensor:
    """Returns the best iterate."""
    attack = import_module("secmlt.adv.evasion.pgd").PGDNative(
        perturbation_model=problem.threat.norm,
        epsilon=problem.eps,
        num_steps=problem.passes,
        step_size=problem.step,
        random_start=True,
    )
    attack.loss_function = SignedScore()
    model = import_module("secmlt.models.pytorch.base_pytorch_nn").BasePyTorchClassifier(problem.scalar())
    images, _ = next(iter(attack(model, [(problem.x, problem.labels)], stream=True)))
    x_adv: Tensor = images
    return x_adv
