"""`medbert export` and `medbert import`."""

from medbert_jax.sharing.options import ExportOptions, ImportOptions


def export(options: ExportOptions) -> None:
    """Write the folder; print what is in it and what stays."""
    from medbert_jax.sharing.exported import export as write
    from medbert_jax.training.pretrained import load_pretrained

    _need_safetensors()
    model = load_pretrained(options.checkpoint)
    left = write(model, options.out, minimum_patients=options.minimum_patients)
    print(model)
    print(f"{left:,} codes that fewer than {options.minimum_patients:,} training patients have are left out")
    print(f"in the form of Hugging Face's BertForMaskedLM in {options.out}; README.md there says how to load it")


def import_(options: ImportOptions) -> None:
    """Make the run directory; print what it is."""
    from medbert_jax.sharing.imported import import_run
    from medbert_jax.training.pretrained import load_pretrained

    _need_safetensors()
    import_run(options.source, options.out)
    print(load_pretrained(options.out))
    print(f"run directory in {options.out}")


def _need_safetensors() -> None:
    try:
        import safetensors  # noqa: F401
    except ImportError:
        raise ValueError(
            "models are shared through the package safetensors: got none installed; pip install"
            " 'medbert-jax[huggingface]'"
        ) from None
