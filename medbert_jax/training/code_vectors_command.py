"""`medbert code-vectors`: t-W2V vectors of the codes of a pretraining dataset's training patients."""

from medbert_jax.training.code_vectors_options import CodeVectorsOptions


def code_vectors(options: CodeVectorsOptions) -> None:
    """Train the vectors and write them; print what they rest on."""
    from medbert_jax.data.token_store import open_token_store, read_metadata, read_vocabulary
    from medbert_jax.training.code_vectors import train_code_vectors
    from medbert_jax.training.lineage import check_dataset
    from medbert_jax.training.progress import say
    from medbert_jax.training.stored_vectors import write_vectors

    metadata = read_metadata(options.dataset)
    check_dataset(metadata, kind="pretraining")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    patients = open_token_store(options.dataset, "train", options.cache_dir or "", say)
    trained = train_code_vectors(patients, read_vocabulary(options.dataset).size, options.training, say)
    write_vectors(options.out, trained, options.training, metadata)
    print(
        f"{trained.pairs:,} pairs of codes within {options.training.window_days} days, of {len(patients):,} training "
        f"patients; {trained.left_out:,} more, too far apart in their records for a block, are left out"
    )
    print(f"code vectors in {options.out}")
