"""The paper's three experiments on simulated patients by its own recipe, for a machine with a GPU.

    medbert study study_paper OUT --dry-run
    medbert study study_paper OUT --results RESULTS

Duration: nothing has been measured on a GPU. The rates below are assumed, so the first dry run is a guess; as stages
and runs are done it goes by what they took. Expected: nothing has been run yet.
20 million simulated patients for pretraining, of whom the paper had 28.5 million after its exclusions; its training
sizes, 50,000 of DHF and all that there are of PaCa; ten replicates. Whatever comes out of simulated patients is a
result on simulated data.
"""

from dataclasses import replace

from medbert_jax.experiments.study_plan import (
    Block,
    Cohort,
    Confirmatory,
    LeftOut,
    Pretraining,
    PretrainingData,
    Simulated,
    StudyPlan,
    Vectors,
)
from medbert_jax.experiments.study_rates import Rates
from medbert_jax.training.command_line import shipped_preset

EX1, EX2, EX3 = (shipped_preset(name) for name in ("ex1_table4", "ex2_base_models", "ex3_sizes"))
LARGE = replace(shipped_preset("pretrain_large_batch"), epochs=10, validation_size=50_000)
SEED, BASES = 41, ("gru", "bi_gru", "retain")
OF_DHF, OF_PACA = ("dhf-matched", "dhf"), ("paca-matched", "paca-matched-truven")


def blocks(name: str, grid) -> tuple[Block, Block]:
    """An experiment of the paper, on as many training patients as it had of each disease."""
    experiment = grid.finetune.experiment
    return (
        Block(
            f"{name}-dhf", OF_DHF, "cerner", replace(grid, train_sizes=(50_000,)), f"{experiment}, simulated", "cerner"
        ),
        Block(f"{name}-paca", OF_PACA, "cerner", grid, f"{experiment}, simulated", "cerner"),
    )


CONFIG = StudyPlan(
    tables=(
        Simulated("cerner", 20_000_000, SEED),
        Simulated("cerner-cohorts", 50_000_000, SEED + 1, keep=("dhf", "dhf-matched", "paca-matched")),
        Simulated("truven-cohorts", 50_000_000, SEED + 2, site="truven", keep=("paca-matched",)),
    ),
    datasets=(PretrainingData("cerner", "cerner", expected=10_000_000, minimum_patients=5),),
    pretrainings=(
        Pretraining("cerner", "cerner", LARGE),
        Pretraining("second-seed", "cerner", replace(LARGE, seed=1)),
    ),
    vectors=(Vectors("cerner", "cerner"),),
    cohorts=(
        Cohort("dhf-matched", "dhf-matched", "cerner-cohorts", "cerner", expected=(300_000, 43_000, 86_000)),
        Cohort("dhf", "dhf", "cerner-cohorts", "cerner", expected=(600_000, 88_000, 176_000), controls_per_case=2),
        Cohort("paca-matched", "paca-matched", "cerner-cohorts", "cerner", expected=(13_600, 1_950, 3_900)),
        Cohort(
            "paca-matched-truven",
            "paca-matched",
            "truven-cohorts",
            "cerner",
            expected=(11_200, 1_600, 3_200),
            called="paca-matched-truven",
        ),
    ),
    blocks=(
        *blocks("ex-1", replace(EX1, standing=())),  # those of Ex-2 stand beside both
        *blocks("ex-2", EX2),
        Block(
            "ex-3",
            ("dhf-matched", "paca-matched"),
            "cerner",
            replace(EX3, train_sizes=tuple(size for size in EX3.train_sizes if size), standing=()),
            "Ex-3, simulated",
            "cerner",
        ),
        Block(
            "second-seed",
            ("dhf-matched",),
            "second-seed",
            replace(EX1, rows=(("pretrained", "bi_gru"),), train_sizes=(50_000,), standing=()),
            "Ex-1, simulated, second seed",
        ),
    ),
    confirmatory=(
        Confirmatory("ex-1-dhf", ("dhf-matched",), BASES, train_size=50_000),
        Confirmatory("ex-1-paca", OF_PACA, BASES, train_size=0),
    ),
    left_out=(
        LeftOut("28.5 million patients of pretraining", "the simulation of 52 million would take longer than all else"),
        LeftOut("Ex-3 of dhf and of PaCa at truven", "1,300 runs more"),
        LeftOut("other pretraining tasks and controls", "study_cpu has them"),
    ),
    rates=Rates(
        simulated=30_000.0,
        selected=400_000.0,
        read=100_000.0,
        pretrained=600_000.0,
        vectors=1_000_000.0,
        finetuned=100_000.0,
        predicted=400_000.0,
        begin_s=60.0,
        baseline_s=60.0,
        passed=((300, 60.0), (10_000, 40.0)),
        processes=1,
    ),
)
