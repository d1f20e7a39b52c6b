"""Models of the library anomalib, trained by it and scored with their true gradient (Akcay et al. 2022).

https://arxiv.org/abs/2202.08341, https://github.com/open-edge-platform/anomalib. Each is a detector of its own,
`anomalib:padim` and so on. They are trained by anomalib's Engine on normal images alone. The score is the model's raw
image score, without the library's normalisation by validation images. The library's own forward pass gives it, while
what cuts the gradient there is switched off; a few scores are written out here, where the library flattens them or
lets them depend on the other images of a batch.
"""

from ._anomalib_discriminators import Draem, GeneralAd, Glass, Supersimplenet
from ._anomalib_flows import Cflow, Csflow, Fastflow, Patchflow, Uflow
from ._anomalib_memory import AnomalyDino, Cfa, Dfkde, MhPatchcore, Padim, Rad, SuperAdd
from ._anomalib_reconstruction import Dfm, Dinomaly, Dsr, FoundAd, Fre, Ganomaly, InpFormer
from ._anomalib_students import EfficientAd, L2bt, ReverseDistillation, Stfpm, UniNet

MEMBERS = {
    "padim": Padim,
    "stfpm": Stfpm,
    "fastflow": Fastflow,
    "cflow": Cflow,
    "cfa": Cfa,
    "dfm": Dfm,
    "reverse_distillation": ReverseDistillation,
    "csflow": Csflow,
    "efficient_ad": EfficientAd,
    "draem": Draem,
    "dinomaly": Dinomaly,
    "ganomaly": Ganomaly,
    "uflow": Uflow,
    "anomaly_dino": AnomalyDino,
    "supersimplenet": Supersimplenet,
    "fre": Fre,
    "dfkde": Dfkde,
    "patchflow": Patchflow,
    "inp_former": InpFormer,
    "l2bt": L2bt,
    "uninet": UniNet,
    "glass": Glass,
    "general_ad": GeneralAd,
    "dsr": Dsr,
    "foundad": FoundAd,
    "rad": Rad,
    "mh_patchcore": MhPatchcore,
    "super_add": SuperAdd,
}
