"""Evaluation: the paper's protocol on labelled data (ALGORITHM sections 6 and 7; supplement, Tables 1 to 6).

`evaluate_class` fits and evaluates one class, by InReaCh or another method (`METHODS`); `run_ablation` and
`run_depth_sweep` repeat that for the supplement's Table 2 and Figure 1. `format_table` and `write_csv` report the
results. Importing this package imports no scikit-learn, scikit-image or torch.
"""

from __future__ import annotations

from .ablation import ABLATION_ROWS, depth_list, run_ablation, run_depth_sweep
from .audit_figures import AuditFigures, audit_figures
from .details import Case, ClassDetails, KindFigures
from .feature_cache import FeatureCache
from .metrics import aupro, auroc, average_precision, best_f1, nominal_precision_recall
from .mvtec import Dataset, Sample, TrainingSet, list_classes, make_training_set, read_dataset
from .peers import METHODS, TRAINED_METHODS, check_method
from .protocol import ClassResult, Figures, evaluate_class
from .report import format_summary, format_table, write_csv, write_json
from .supplement import corruption_list, supplement_table
from .synthetic import TextureSet, make_texture_set

__all__ = [
    "ABLATION_ROWS",
    "METHODS",
    "TRAINED_METHODS",
    "AuditFigures",
    "Case",
    "ClassDetails",
    "ClassResult",
    "Dataset",
    "FeatureCache",
    "Figures",
    "KindFigures",
    "Sample",
    "TextureSet",
    "TrainingSet",
    "audit_figures",
    "aupro",
    "auroc",
    "average_precision",
    "best_f1",
    "check_method",
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
