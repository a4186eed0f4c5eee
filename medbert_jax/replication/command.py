"""`medbert tables`: the paper's evidence from a results folder alone."""

import sys

from medbert_jax.replication.options import TablesOptions


def tables(options: TablesOptions) -> None:
    """Write the page with its figures; print where they are."""
    from medbert_jax.evaluation.filed_patients import file_test_patients
    from medbert_jax.replication.document import write_tables
    from medbert_jax.replication.kept import keep_results
    from medbert_jax.replication.study import read_study

    for dataset in options.cohorts:
        if file_test_patients(options.results, dataset, cache_dir=options.cache_dir) is None:
            raise ValueError(
                f"test patients are filed from a cohort dataset with its table of patients: got {dataset}, which an"
                " earlier version made without; prepare the cohort again"
            )
    study = read_study(
        options.results,
        experiments=options.experiments,
        draws=options.draws,
        seed=options.seed,
        tell=lambda line: print(line, file=sys.stderr, flush=True),
    )
    for line in study.unfiled:
        print(f"in no table, for its test patients are not filed (--cohorts): {line}", file=sys.stderr)
    if options.keep is not None:
        print(f"results kept in {keep_results(options.results, options.keep)}")
    page, *rest = write_tables(study, options.out)
    print(f"{page}, and {len(rest)} files in {rest[0].parent}")
