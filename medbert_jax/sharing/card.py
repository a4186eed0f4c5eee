"""The model card of an exported model."""

from medbert_jax.data.vocabulary import UNK
from medbert_jax.models.config import ModelConfig


def card(config: ModelConfig, codes: int, minimum_patients: int) -> str:
    """The model card: what it is, how it is loaded, what it must not be taken for."""
    if config.serialization == "rank":
        places, said = "rank for visit in visits for rank in range(len(visit))", "ranks within a visit, from 0"
    else:
        places, said = "place for place in range(sum(map(len, visits)))", "places within the patient, from 0"
    return f"""---
library_name: transformers
tags: [EHR, Med-BERT]
---
# Med-BERT over {codes:,} codes

{config.layers} layers of width {config.hidden_size}, pretrained on the structured codes of patients' histories by
medbert_jax. Line i of `vocab.txt`, counted from 0, is code i; `titles.tsv` says what codes mean. Token types are visit
numbers from 1 in time order, below {config.max_visits:,}; position ids are {said}, and must be given.
A patient has at most {config.max_length:,} codes: leave out his oldest visits. Id {UNK} is for codes that are not in
the table, id {config.mask_id} hides one.

```python
import torch
from transformers import BertForMaskedLM

FOLDER = "path/to/this/folder"
model = BertForMaskedLM.from_pretrained(FOLDER).eval()
with open(f"{{FOLDER}}/vocab.txt", encoding="utf-8") as file:
    ids = {{code: number for number, code in enumerate(file.read().splitlines())}}

visits = [["ICD10CM/E11.9", "ICD10CM/I10"], ["ICD10CM/I50.9"]]  # one patient, oldest visit first, in order of priority
given = {{
    "input_ids": [ids.get(code, {UNK}) for visit in visits for code in visit],
    "token_type_ids": [number for number, visit in enumerate(visits, 1) for _ in visit],
    "position_ids": [{places}],
}}
with torch.no_grad():
    out = model(**{{name: torch.tensor([values]) for name, values in given.items()}}, output_hidden_states=True)
states, logits = out.hidden_states[-1], out.logits  # (1, codes, width) and (1, codes, {config.vocabulary_size:,})
```

Several patients in a batch are padded with id 0 and an `attention_mask`. With medbert_jax: `medbert import`.

Codes that fewer than {minimum_patients:,} training patients have are left out, with their rows; counts of patients are
not here. The order of the codes is that of their frequency in training. What the parameters themselves give away of the
training patients has not been measured: whether they may leave the site is for those to say who answer for the data.

This is a research model, not a medical device. What it says about patients of another population is unknown until it
is measured there.
"""
