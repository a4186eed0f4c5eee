"""`medbert predict` and `medbert external-validation`: a kept model on patients whom it has not seen."""

from medbert_jax.prediction.options import ExternalValidationOptions, PredictOptions


def predict(options: PredictOptions) -> None:
    """Write the scores; print what they are, who was not scored, and how they are spread."""
    from medbert_jax.cohorts.meds_labels import read_times
    from medbert_jax.prediction.asked_patients import read_patients
    from medbert_jax.prediction.predictor import load_predictor
    from medbert_jax.prediction.score import at_day, score
    from medbert_jax.prediction.shown_scores import score_tables
    from medbert_jax.prediction.stored_scores import check_threshold, write_scores
    from medbert_jax.printed_tables import print_tables
    from medbert_jax.training.kept_programs import keep_programs
    from medbert_jax.training.progress import say

    patients = None if options.patients is None else read_patients(options.patients)
    keep_programs()
    predictor = load_predictor(options.model)
    check_threshold(predictor, options.threshold)
    times = read_times(options.times) if options.times else at_day(options.ehr, options.at) if options.at else None
    asked = {"patients": patients, "times": times, "unknown_code_limit": options.unknown_code_limit}
    found = score(predictor, options.ehr, **asked, announce=say)
    write_scores(found, predictor, options.out, threshold=options.threshold)
    print(found.ledger.render(), end="\n\n")
    print_tables(score_tables(found, predictor))
    print(f"predictions in {options.out}: patient-level data, which must not leave the site")


def external_validation(options: ExternalValidationOptions) -> None:
    """Write the evaluation and what it rests on; print its tables."""
    from medbert_jax.evaluation.evaluate import EvaluationSettings
    from medbert_jax.evaluation.evaluation_tables import evaluation_tables
    from medbert_jax.prediction.external_validation import validate_at
    from medbert_jax.prediction.predictor import load_predictor
    from medbert_jax.prediction.stored_validation import write_validation
    from medbert_jax.printed_tables import print_tables
    from medbert_jax.training.kept_programs import keep_programs
    from medbert_jax.training.progress import say

    keep_programs()
    predictor = load_predictor(options.model)
    asked = {name: getattr(options, name) for name in ("labels", "fit_share", "unknown_code_limit")}
    settings = EvaluationSettings(risks=options.risks, draws=options.draws, seed=options.seed)
    found = validate_at(predictor, options.ehr, settings=settings, announce=say, **asked)
    write_validation(found, predictor, options.out)
    print(found.ledger.render(), *found.said, sep="\n", end="\n\n")
    print_tables(evaluation_tables(found.evaluation))
    print(f"evaluation in {options.out}; its predictions are patient-level data, which must not leave the site")
