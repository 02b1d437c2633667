"""Evaluation: the paper's protocol on labelled data (ALGORITHM sections 6 and 7; supplement, Tables 1 to 6).

One function per need:

- :func:`evaluate_class`     one class, one corruption level, one training order -> :class:`ClassResult`
- :func:`run_ablation`       the seven rows of the supplement's Table 2 for one class -> list of ClassResult
- :func:`run_depth_sweep`    depths ``1..13,PC`` of the supplement's Figure 1, likewise
- :func:`read_dataset`       a labelled folder (``layout="mvtec"`` or ``"folder"``) -> :class:`Dataset`
- :func:`list_classes`       the class folders below a root
- :func:`make_training_set`  good images + corruptions, in order or shuffled, with their provenance
- :func:`format_table`, :func:`format_summary`   Markdown or plain tables, the supplement's figures beside
- :func:`write_csv`, :func:`write_json`   the same results as files (written aside, then renamed)
- :func:`make_texture_set`   the demo's data: real textures with hidden defects and their masks
- :func:`supplement_table`   Tables 1 to 6 of the supplement as data
- figures: :func:`auroc`, :func:`average_precision`, :func:`best_f1`, :func:`aupro`,
  :func:`nominal_precision_recall`

Names are loaded on first use: importing this package costs no scikit-learn, scipy or torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .ablation import ABLATION_ROWS, depth_list, run_ablation, run_depth_sweep
    from .feature_cache import FeatureCache
    from .metrics import aupro, auroc, average_precision, best_f1, nominal_precision_recall
    from .mvtec import Dataset, Sample, TrainingSet, list_classes, make_training_set, read_dataset
    from .protocol import ClassResult, Figures, evaluate_class
    from .report import format_summary, format_table, write_csv, write_json
    from .supplement import corruption_list, supplement_table
    from .synthetic import TextureSet, make_texture_set

_HOME = {
    "ABLATION_ROWS": "ablation",
    "depth_list": "ablation",
    "run_ablation": "ablation",
    "run_depth_sweep": "ablation",
    "FeatureCache": "feature_cache",
    "aupro": "metrics",
    "auroc": "metrics",
    "average_precision": "metrics",
    "best_f1": "metrics",
    "nominal_precision_recall": "metrics",
    "Dataset": "mvtec",
    "Sample": "mvtec",
    "TrainingSet": "mvtec",
    "list_classes": "mvtec",
    "make_training_set": "mvtec",
    "read_dataset": "mvtec",
    "ClassResult": "protocol",
    "Figures": "protocol",
    "evaluate_class": "protocol",
    "format_summary": "report",
    "format_table": "report",
    "write_csv": "report",
    "write_json": "report",
    "corruption_list": "supplement",
    "supplement_table": "supplement",
    "TextureSet": "synthetic",
    "make_texture_set": "synthetic",
}

__all__ = [
    "ABLATION_ROWS",
    "ClassResult",
    "Dataset",
    "FeatureCache",
    "Figures",
    "Sample",
    "TextureSet",
    "TrainingSet",
    "aupro",
    "auroc",
    "average_precision",
    "best_f1",
    "corruption_list",
    "depth_list",
    "evaluate_class",
    "format_summary",
    "format_table",
    "list_classes",
    "make_texture_set",
    "make_training_set",
    "nominal_precision_recall",
    "read_dataset",
    "run_ablation",
    "run_depth_sweep",
    "supplement_table",
    "write_csv",
    "write_json",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its module on first use."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
