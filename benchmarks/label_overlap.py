"""What the pretraining's own label tells of a cohort's: the share of both classes with a prolonged stay, and the AUROC.

python benchmarks/label_overlap.py data/disease_cohort/los-next/1.0.0 data/ehr_pretraining/diabetes130/1.0.0
"""

import json
from pathlib import Path

import numpy as np
import tyro

from medbert_jax.data.token_store import open_token_store
from medbert_jax.metrics.discrimination import auroc


def main(cohort: tyro.conf.Positional[Path], pretraining: tyro.conf.Positional[Path], /) -> None:
    """Print the figures of the training patients.

    Args:
        cohort: directory of the cohort dataset.
        pretraining: directory of the pretraining dataset.
    """
    chosen, seen = open_token_store(cohort, "train"), open_token_store(pretraining, "train")
    place = {patient: number for number, patient in enumerate(seen.patient_id.tolist())}
    numbers = np.array([place.get(patient, -1) for patient in chosen.patient_id.tolist()])
    label, known = chosen.outcomes["label"], numbers >= 0
    prolonged = seen.outcomes["prolonged_los"][numbers[known]]
    label = np.asarray(label)[known]
    record = {
        "training_patients": len(known),
        "of_them_in_the_pretraining": int(known.sum()),
        "prolonged_among_cases": float(prolonged[label == 1].mean()),
        "prolonged_among_controls": float(prolonged[label == 0].mean()),
        "auroc_of_the_pretraining_label": auroc(label, prolonged),
    }
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    tyro.cli(main)
