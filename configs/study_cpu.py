"""Med-BERT on simulated patients and on diabetes130: the study that two CPU cores hold in about twelve hours.

    medbert study study_cpu OUT --data FOLDER --dry-run
    medbert study study_cpu OUT --data FOLDER --results RESULTS --part 0 --parts 2
    medbert study study_cpu OUT --data FOLDER --results RESULTS --part 1 --parts 2

FOLDER holds diabetes130's diabetic_data.parquet. Duration: computed from the rates in
`medbert_jax/experiments/study_rates.py`; the dry run prints it for every stage and run, from what was measured as far
as stages are done. Expected: nothing has been run yet.
Whatever comes out of simulated patients is a result on simulated data. What is tested, and what was left out for lack
of time, is named at the end, before any run.
"""

from dataclasses import replace

from medbert_jax.experiments.study_plan import (
    Block,
    Cohort,
    Confirmatory,
    Fold,
    Ingested,
    Joined,
    LeftOut,
    Pretraining,
    PretrainingData,
    Simulated,
    StudyPlan,
    Tuning,
    Vectors,
)
from medbert_jax.experiments.tuning import TuningConfig
from medbert_jax.training.command_line import shipped_preset

SMALL, TUNED = shipped_preset("pretrain_small"), shipped_preset("table4_tuned")
FOLDS, SEED = range(5), 11
BASES = ("gru", "bi_gru", "retain")

# ── Pretraining: 4 passes over the training patients of 400,000 simulated ones, a second seed, and variants ───────────
PRETRAIN = replace(SMALL, epochs=4, validation_size=5_000)
VARIANTS = {
    "second-seed": Pretraining("second-seed", "cerner", replace(PRETRAIN, seed=1)),
    "exchanged": Pretraining("exchanged", "cerner", replace(PRETRAIN, exchange_codes=True)),
    "without-los": Pretraining(
        "without-los", "cerner", replace(PRETRAIN, tasks=replace(PRETRAIN.tasks, prolonged_los=0.0))
    ),
    "cohort-seen": Pretraining("cohort-seen", "cerner-and-dhf", PRETRAIN),
    "random-order": Pretraining("random-order", "cerner-random", PRETRAIN),
}
# How soon another second task is learned, and whether by more than its prevalence, one pass shows (claim of the paper's
# Methods); nothing is fine-tuned from these.
OTHER_TASKS = tuple(
    Pretraining(labels, "cerner", replace(PRETRAIN, epochs=1), labels=labels) for labels in ("mortality", "readmission")
)
DHF = Cohort("dhf-matched", "dhf-matched", "cerner-dhf", "cerner", (11_300, 1_600, 3_200), mean_codes=40.0)
# Variants of other datasets have the same cohort after these.
OF_OTHERS = {"cohort-seen": "dhf-matched-seen", "random-order": "dhf-matched-random"}

# ── Fine-tuning: the rows of Table 4 with what a tuning chose, on subsets with the cohort's share of cases ────────────
GRID = replace(
    TUNED,
    finetune=replace(TUNED.finetune, validation_size=500),  # as many as PaCa has
    replicates=3,
    baselines=("default", *TUNED.baselines),
)
FIG4 = replace(
    GRID,
    train_sizes=(300, 1000),
    rows=(
        *((backbone, head) for head in BASES for backbone in ("none", "pretrained")),
        ("pretrained", "feed_forward"),
        ("untrained", "feed_forward"),
    ),
    baselines=("default", "codes"),
    standing=(),
)
TWO_ROWS = replace(FIG4, train_sizes=(1000,), rows=(("pretrained", "bi_gru"), ("pretrained", "feed_forward")))
CROSS_FITTED = replace(
    FIG4, finetune=shipped_preset("diabetes130").finetune, recipe="shared", train_sizes=(0,), replicates=1
)
TUNING = TuningConfig(finetune=GRID.finetune)
BY_HEAD = {head: tuple(row for row in GRID.rows if row[1] == head) for head in (*BASES, "feed_forward")}

CONFIG = StudyPlan(
    tables=(
        Simulated("cerner", 400_000, SEED),
        # Cohorts' patients are others, of whom the members alone are kept.
        Simulated("cerner-dhf", 2_000_000, SEED + 1, keep=("dhf", "dhf-matched")),
        Simulated("cerner-paca", 16_000_000, SEED + 2, keep=("paca-matched",)),
        Simulated("truven-paca", 20_000_000, SEED + 3, site="truven", keep=("paca-matched",)),
        Ingested("diabetes130"),
        *(Fold(f"diabetes130-{fold}", "diabetes130", fold, len(FOLDS)) for fold in FOLDS),
        Joined("cerner-and-dhf", "cerner", "cerner-dhf"),
    ),
    datasets=(
        PretrainingData("cerner", "cerner", expected=205_000, minimum_patients=5),
        *(
            PretrainingData(f"diabetes130-{fold}", f"diabetes130-{fold}", expected=50_000, mean_codes=4.0)
            for fold in FOLDS
        ),
        PretrainingData("cerner-and-dhf", "cerner-and-dhf", expected=230_000, vocabulary_of="cerner"),
        PretrainingData("cerner-random", "cerner", expected=205_000, vocabulary_of="cerner", code_order="random"),
    ),
    pretrainings=(
        Pretraining("cerner", "cerner", PRETRAIN),
        *(
            Pretraining(
                f"diabetes130-{fold}",
                f"diabetes130-{fold}",
                replace(SMALL, epochs=10, rows=replace(SMALL.rows, short_row=32), seed=fold),
            )
            for fold in FOLDS
        ),
        *VARIANTS.values(),
        *OTHER_TASKS,
    ),
    vectors=(Vectors("cerner", "cerner"),),
    cohorts=(
        DHF,
        Cohort("paca-matched", "paca-matched", "cerner-paca", "cerner", (4_300, 620, 1_240), mean_codes=25.0),
        Cohort(
            "paca-matched-truven",
            "paca-matched",
            "truven-paca",
            "cerner",
            expected=(4_400, 640, 1_280),
            mean_codes=15.0,
            called="paca-matched-truven",
        ),
        Cohort("dhf", "dhf", "cerner-dhf", "cerner", (24_700, 3_500, 7_000), mean_codes=40.0, controls_per_case=2),
        *(
            Cohort(
                f"hf-later-{fold}",
                "hf-later",
                f"diabetes130-{fold}",
                f"diabetes130-{fold}",
                (9_460, 1_350, 2_700),
                mean_codes=6.0,
                seen=True,
            )
            for fold in FOLDS
        ),
        replace(DHF, name="dhf-matched-seen", dataset="cerner-and-dhf", seen=True),
        replace(DHF, name="dhf-matched-random", dataset="cerner-random"),
    ),
    tunings=(
        *(
            Tuning(head, "dhf-matched", "cerner", replace(TUNING, rows=rows), vectors="cerner")
            for head, rows in BY_HEAD.items()
        ),
        Tuning("baselines", "dhf-matched", "cerner", replace(TUNING, baselines=(*TUNED.baselines, *TUNED.standing))),
    ),
    # Hours by the rates, before anything was measured: of a block's runs, and of what it needs and no block before it.
    blocks=(
        # 2.8 and 3.9
        Block(
            "table-4",
            ("dhf-matched", "paca-matched", "paca-matched-truven", "dhf"),
            "cerner",
            replace(GRID, train_sizes=(3000,)),
            experiment="table 4 and fig. 4, simulated",
            vectors="cerner",
            tunings=(*BY_HEAD, "baselines"),
        ),
        # 1.1 and 0
        Block(
            "fig-4",
            ("dhf-matched", "paca-matched"),
            "cerner",
            FIG4,
            experiment="table 4 and fig. 4, simulated",
            tunings=(*BY_HEAD, "baselines"),
        ),
        # 0.4 and 0.5. A replicate is a fold: every patient is tested once, by models that know nothing of his fold.
        *(
            Block(
                f"cross-fitted-{fold}",
                (f"hf-later-{fold}",),
                f"diabetes130-{fold}",
                replace(CROSS_FITTED, first_replicate=fold),
                experiment="diabetes130, cross-fitted",
            )
            for fold in FOLDS
        ),
        # 0.5 and 2.9; other second tasks, from which nothing is fine-tuned, 0.3
        *(
            Block(
                f"variant-{name}",
                (OF_OTHERS.get(name, "dhf-matched"),),
                name,
                replace(TWO_ROWS, baselines=()),
                experiment=f"variant, simulated: {name}",
                tunings=(*BY_HEAD, "baselines"),
            )
            for name in VARIANTS
        ),
    ),
    confirmatory=(
        Confirmatory("table-4", ("dhf-matched", "paca-matched", "paca-matched-truven"), BASES, train_size=3000),
    ),
    left_out=(
        LeftOut("more than 3 replicates", "the paper has 10; each one more costs a third of every block"),
        LeftOut("more than 3,000 training patients", "the paper has 50,000 of DHF and 20,000 of PaCa"),
        LeftOut("Fig. 4 of PaCa at truven and of dhf", "half an hour for each cohort"),
        LeftOut("t-W2V and the frozen model in Fig. 4", "four rows more than eight"),
        LeftOut(
            "fine-tuning after death or readmission in place of prolonged stays", "two pretrainings of four passes"
        ),
        LeftOut("20 passes on diabetes130, as docs/results.md has", "five pretrainings of twice the time"),
        LeftOut(
            "the world bag: two rows, two sizes",
            "an hour: a pretraining, its cohort and 24 runs",
        ),
        LeftOut("labels permuted before the split", "cohorts of their own; docs/simulation.md has them for regression"),
        LeftOut("dhf-landmark and the oracle", "docs/simulation.md: a lead of order takes 272,770 training patients"),
    ),
)
