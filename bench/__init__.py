"""The benchmark for adversarially robust image anomaly detection.

`from bench import Detector` is what a plug-in needs; `bench.load_data`, `bench.fit_or_load`, `bench.evaluate` and
`bench.load_results` are the harness, `bench.read_results` and `bench.plot` are for notebooks. Nothing heavy is imported
before it is used: `__init__.pyi` says where each name lives.
"""

from typing import Any

import lazy_loader

__getattr__: Any
__dir__: Any
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
