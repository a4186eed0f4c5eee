"""`medbert attention`: the page of one patient, and shares of attention."""

from medbert_jax.visualization.inside_options import AttentionOptions


def attention(options: AttentionOptions) -> None:
    """Write the page, and the shares as JSON; print what is in it and how large it is."""
    from medbert_jax.data.token_store import open_token_store, read_metadata, read_vocabulary
    from medbert_jax.disk.whole_files import write_json, write_whole
    from medbert_jax.training.lineage import check_vocabulary
    from medbert_jax.training.progress import say
    from medbert_jax.training.sampling import training_subset
    from medbert_jax.visualization.attention_page import ShownAttention, attention_page
    from medbert_jax.visualization.attention_record import find_patient, fitted, load_models, shown_record
    from medbert_jax.visualization.attention_weights import attention_shares, attention_weights

    vocabulary = read_vocabulary(options.dataset)
    check_vocabulary(options.checkpoint, vocabulary)
    models = load_models(options.checkpoint, options.beside)
    patients = open_token_store(options.dataset, options.split, options.cache_dir or "", say)
    number = find_patient(patients, options.patient, options.split)
    first = models[0].model
    asked = patients.take([number])
    patient = fitted(asked, first)
    record = shown_record(patient, vocabulary, number=number, split=options.split, whole=int(asked.lengths[0]))
    others = None
    if options.patients:
        chosen = training_subset(patients.patient_id, min(options.patients, patients.patients), 0)
        others = fitted(patients.take(chosen), first)
    shown = [
        ShownAttention(
            name=one.name,
            weights_NHnn=attention_weights(one.model, patient),
            shares=attention_shares(one.model, patient),
            averaged=None if others is None else attention_shares(one.model, others),
        )
        for one in models
    ]
    id = asked.patient_id[0].decode() if options.show_id else ""
    page = attention_page(record, shown, id=id)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(options.out, page)
    if options.json_out:
        write_json(
            options.json_out,
            {
                "version": 1,
                "dataset_hash": read_metadata(options.dataset)["dataset_hash"],
                "split": record.split,
                "number": record.number,
                "codes": len(record.codes),
                "models": [one.to_dict() for one in shown],
            },
        )
    layers, heads = shown[0].weights_NHnn.shape[:2]
    count, several = len(record.codes), f"{len(shown)} models × " if len(shown) > 1 else ""
    if record.whole > count:
        print(f"the record has {record.whole:,} codes: shown are the {count:,} most recent ones, which the model reads")
    print(f"{several}{layers} layers × {heads} heads × {count:,}² weights")
    print(
        f"attention in {options.out}, {len(page.encode()) / 1e6:,.1f} MB: patient-level data, which must not leave the"
        " site"
    )
