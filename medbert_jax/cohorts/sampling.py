"""Controls drawn at random from those of a shard, and the weights that make them stand for all."""

import numpy as np
import polars as pl

from medbert_jax.cohorts.spec import Sample
from medbert_jax.ehr.hashing import patient_hash


def sample_controls(patients: pl.DataFrame, sample: Sample) -> pl.DataFrame:
    """`patients` with the controls that were not drawn leaving, and the weights of those who were.

    Within a shard the controls with the lowest hashes stay, `controls_per_case` for each case; a control weighs as many
    as there were for each one drawn. So it depends on the shard, and not on who else is in the tables. Who is censored
    is no control: he stays, for himself.
    """
    stays = patients["leaves_under"].is_null()
    cases = int((stays & patients["label"].fill_null(False)).sum())
    controls = (stays & ~patients["label"].fill_null(True)).to_numpy()
    wanted = min(cases * sample.controls_per_case, int(controls.sum()))
    rank = np.full(len(patients), len(patients))
    if controls.any():
        hashes = patient_hash(patients["patient_id"].filter(pl.Series(controls)), sample.key)
        rank[np.flatnonzero(controls)] = hashes.argsort().argsort()
    left = pl.Series(controls & (rank >= wanted))
    weight = controls.sum() / max(wanted, 1)
    return patients.with_columns(
        leaves_under=pl.when(left).then(pl.lit("not_sampled")).otherwise("leaves_under"),
        weight=pl.when(pl.Series(controls)).then(pl.lit(float(weight))).otherwise("weight"),
    )
