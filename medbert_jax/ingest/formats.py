"""The formats of sources, each with its reader; a reader is imported when it is asked for."""

from medbert_jax.ingest.reader import Reader

FORMATS = (
    "omop", "meds", "mimic-iv", "med-bert-tsv", "med-bert-pickles", "pytorch-ehr", "desynpuf", "diabetes130",
    "own-tables",
)  # fmt: skip


def get_reader(format: str) -> Reader:
    """The reader of a format. Raises ValueError for an unknown one."""
    match format:
        case "omop":
            from medbert_jax.ingest.readers.omop import OMOP as reader
        case "meds":
            from medbert_jax.ingest.readers.meds import MEDS as reader
        case "mimic-iv":
            from medbert_jax.ingest.readers.mimic_iv import MIMIC_IV as reader
        case "med-bert-tsv":
            from medbert_jax.ingest.readers.med_bert_tsv import MED_BERT_TSV as reader
        case "med-bert-pickles":
            from medbert_jax.ingest.readers.med_bert_pickles import MED_BERT_PICKLES as reader
        case "pytorch-ehr":
            from medbert_jax.ingest.readers.pytorch_ehr import PYTORCH_EHR as reader
        case "desynpuf":
            from medbert_jax.ingest.readers.desynpuf import DESYNPUF as reader
        case "diabetes130":
            from medbert_jax.ingest.readers.diabetes130 import DIABETES130 as reader
        case "own-tables":
            from medbert_jax.ingest.readers.own_tables import OWN_TABLES as reader
        case _:
            raise ValueError(f"format must be one of {', '.join(FORMATS)}: got {format}; choose the source's")
    return reader
