"""Table 2 of the paper as printed: Rasmy et al. 2021, npj Digital Medicine 4:86, doi 10.1038/s41746-021-00455-y."""

PAPER_TABLE2: dict[str, dict[str, float | None]] = {
    "pretraining": {
        "patients": 28_490_650,
        "event": 15,
        "database": None,
        "age": 41,
        "male": 45,
        "White": 68,
        "African American": 15,
        "Asian/Pacific Islander": 2,
        "visits": 8,
        "codes": 15,
        "vocabulary": 82_603,
        "icd10": 33.8,
    },
    "DHF-Cerner": {
        "patients": 672_647,
        "event": 14,
        "database": None,
        "age": 61,
        "male": 47,
        "White": 72,
        "African American": 16,
        "Asian/Pacific Islander": 2,
        "visits": 17,
        "codes": 33,
        "vocabulary": 26_427,
        "icd10": 13.3,
    },
    "PaCa-Cerner": {
        "patients": 29_405,
        "event": None,
        "database": 0.07,
        "age": 65,
        "male": 45,
        "White": 77,
        "African American": 13,
        "Asian/Pacific Islander": 2,
        "visits": 7,
        "codes": 14,
        "vocabulary": 13_071,
        "icd10": 20.7,
    },
    "PaCa-Truven": {
        "patients": 42_721,
        "event": None,
        "database": 0.06,
        "age": 63,
        "male": 48,
        "White": None,
        "African American": None,
        "Asian/Pacific Islander": None,
        "visits": 19,
        "codes": 18,
        "vocabulary": 7_002,
        "icd10": 0,
    },
}
"""Column → row (keys of `cohort_tables.table2`) → figure; patients and vocabulary are counts, age is in years, visits
and codes are means per patient, the rest are percentages. None: not printed. A fourth race line, 2 %, 2 %, 1 % and NA,
is headed "African American" once more and stands for another group, so it is left out."""

PAPER_NOTES = {
    "pretraining": "the event is a stay of more than 7 days.",
    "DHF-Cerner": "the text counts 39,727 cases, 5.9 % of the patients, where the table prints 14 %.",
    "PaCa-Cerner": "the table prints the cases as a share of the whole database; the text counts 11,486 cases, 39 %"
    " of the patients.",
    "PaCa-Truven": "the table prints the cases as a share of the whole database.",
}
