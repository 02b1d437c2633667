"""Evaluation: the paper's protocol on labelled data (ALGORITHM sections 6 and 7; supplement, Tables 1 to 6).

- :func:`evaluate_class`     one class, one corruption level, one training order -> :class:`ClassResult`
- :func:`run_ablation`       the seven rows of the supplement's Table 2 for one class -> list of ClassResult
- :func:`run_depth_sweep`    depths ``1..13,PC`` of the supplement's Figure 1 -> list of ClassResult
- :func:`read_dataset`       a labelled folder (``layout="mvtec"`` or ``"folder"``) -> :class:`Dataset`
- :func:`list_classes`       the class folders in a root folder
- :func:`make_training_set`  good images and corruptions, in order or shuffled, with their provenance
- :func:`format_table`, :func:`format_summary`   Markdown or plain tables, with the supplement's figures
- :func:`write_csv`, :func:`write_json`   the same results as files
- :func:`make_texture_set`   the demo's data: real textures with hidden defects and their masks
- :func:`supplement_table`   Tables 1 to 6 of the supplement as data
- figures: :func:`auroc`, :func:`average_precision`, :func:`best_f1`, :func:`aupro`,
  :func:`nominal_precision_recall`

Importing this package imports no scikit-learn, scikit-image or torch.
"""

from __future__ import annotations

from .ablation import ABLATION_ROWS, depth_list, run_ablation, run_depth_sweep
from .feature_cache import FeatureCache
from .metrics import aupro, auroc, average_precision, best_f1, nominal_precision_recall
from .mvtec import Dataset, Sample, TrainingSet, list_classes, make_training_set, read_dataset
from .protocol import ClassResult, Figures, evaluate_class
from .report import format_summary, format_table, write_csv, write_json
from .supplement import corruption_list, supplement_table
from .synthetic import TextureSet, make_texture_set

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
