"""`medbert codes`: neighbours of codes in a checkpoint's code table, and how often they are of the same kind."""

from medbert_jax.visualization.inside_options import CodesOptions


def codes(options: CodesOptions) -> None:
    """Print the neighbours and the shares; write them as JSON. ValueError for a code that the checkpoint has not."""
    import numpy as np

    from medbert_jax.data.vocabulary import FIRST_CODE
    from medbert_jax.disk.whole_files import write_json
    from medbert_jax.printed_tables import Table, print_tables
    from medbert_jax.training.pretrained import load_pretrained
    from medbert_jax.training.stored_vectors import CodeVectors
    from medbert_jax.visualization.code_neighbours import (
        NEAREST,
        nearest_codes,
        shared_groups,
        to_dict,
        unit_vectors,
    )

    model = load_pretrained(options.checkpoint)
    vocabulary = model.vocabulary
    if unknown := sorted(set(options.codes) - set(vocabulary.codes)):
        raise ValueError(
            f"a code must be one of the checkpoint's {len(vocabulary.codes):,}, with its system: got"
            f" {', '.join(unknown)}; look for it in vocabulary.tsv of {options.checkpoint}"
        )
    tables = {"checkpoint": np.asarray(model.params["embeddings"]["code_table"])[FIRST_CODE:]}
    kept = np.arange(len(vocabulary.codes))
    if options.vectors is not None:
        vectors = CodeVectors.read(options.vectors)
        if vectors.about["vocabulary_hash"] != vocabulary.hash:
            raise ValueError(
                "vectors side by side must be of the same codes: got vocabulary"
                f" {vectors.about['vocabulary_hash'][:12]} in {options.vectors} and {vocabulary.hash[:12]} in"
                f" {options.checkpoint}; make them of the checkpoint's dataset with medbert code-vectors"
            )
        kept = np.flatnonzero(vectors.counts[FIRST_CODE:] > 0)
        tables["t-W2V"] = vectors.vectors[FIRST_CODE:]
    names = [vocabulary.codes[row] for row in kept]
    place = {code: number for number, code in enumerate(names)}
    if without := [code for code in options.codes if code not in place]:
        raise ValueError(
            f"a code beside --vectors must have a vector there: got {', '.join(without)}, without one in"
            f" {options.vectors}; leave --vectors or the code out"
        )
    titles = [vocabulary.titles[row] for row in kept]
    unit = {name: unit_vectors(table[kept]) for name, table in tables.items()}
    found = {
        code: {name: nearest_codes(vectors, place[code], options.nearest) for name, vectors in unit.items()}
        for code in options.codes
    }
    shares = {name: shared_groups(vectors, names) for name, vectors in unit.items()}
    printed = [
        Table(
            f"Nearest to {code}, {titles[place[code]]}: {name}",
            ("code", "cosine", "title"),
            tuple((names[row], f"{cosine:.3f}".replace("-", "−"), titles[row]) for row, cosine in near),
            "<><",
        )
        for code, of in found.items()
        for name, near in of.items()
    ]
    groups = shares["checkpoint"]
    printed.append(
        Table(
            f"Of the {NEAREST} nearest codes of the same system, the share in the same group",
            ("group", "codes", *tables, "random codes"),
            tuple(
                (group, f"{of.codes:,}", *(f"{shares[name][group].nearest:.3f}" for name in tables), f"{of.random:.3f}")
                for group, of in groups.items()
            ),
            "<>" + ">" * (len(tables) + 1),
            (
                "Over all codes that have such a group"
                + (" and a vector in the file." if options.vectors is not None else "."),
            ),
        )
    )
    print_tables(printed)
    if options.json_out:
        near = {
            code: {
                name: [{"code": names[row], "title": titles[row], "cosine": cosine} for row, cosine in of]
                for name, of in by.items()
            }
            for code, by in found.items()
        }
        stated = {"version": 1, "step": model.step, "vocabulary_hash": vocabulary.hash, "codes": len(names)}
        shared = {name: to_dict(of) for name, of in shares.items()}
        write_json(options.json_out, stated | {"nearest": near, "same_group": shared})
