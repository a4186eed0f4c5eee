"""PatientSequences: taking and cutting histories, and what a model asks of them."""

from dataclasses import replace

import numpy as np
import pytest

from medbert_jax.data import sequence_faults as module
from medbert_jax.data.sequence_faults import sequence_faults
from medbert_jax.data.sequences import PatientSequences


def histories(*patients):
    """Each patient is the numbers of codes of his visits; every code and every visit is told apart."""
    visits = [count for patient in patients for count in patient]
    code_offsets = np.cumsum([0, *map(sum, patients)])
    n, v, c = len(patients), len(visits), code_offsets[-1]
    return PatientSequences(
        patient_id=np.array([f"p{i}".encode() for i in range(n)]),
        code_offsets=code_offsets,
        code_ids=np.arange(16, 16 + c, dtype=np.int32),
        visit_ids=np.repeat([i + 1 for patient in patients for i in range(len(patient))], visits).astype(np.int32),
        serialization_ids=np.concatenate([np.arange(0), *map(np.arange, visits)]).astype(np.int32),
        visit_offsets=np.cumsum([0, *map(len, patients)]),
        visit_days=np.arange(v, dtype=np.int32),
        age_days=np.arange(v, dtype=np.int32) + 1000,
        length_of_stay=np.arange(v, dtype=np.int32) + 2000,
        sex=np.arange(n, dtype=np.int32) % 3,
        race=np.arange(n, dtype=np.int32) % 4,
        outcomes={"prolonged_los": np.arange(n, dtype=np.int32) % 2},
    )


def as_lists(sequences):
    """Each patient in plain Python: what two sequences are compared by."""
    patients = []
    for i in range(len(sequences)):
        codes = slice(*sequences.code_offsets[i : i + 2])
        visits = slice(*sequences.visit_offsets[i : i + 2])
        patients.append(
            (
                sequences.patient_id[i],
                [getattr(sequences, name)[codes].tolist() for name in ("code_ids", "visit_ids", "serialization_ids")],
                [getattr(sequences, name)[visits].tolist() for name in ("visit_days", "age_days", "length_of_stay")],
                int(sequences.sex[i]),
                int(sequences.race[i]),
                {name: int(values[i]) for name, values in sequences.outcomes.items()},
            )
        )
    return patients


def cut_one_by_one(sequences, max_length):
    """The rule of `truncate`, in words of one patient at a time."""
    patients = []
    for patient, columns, visit_columns, *rest in as_lists(sequences):
        visits = sorted(set(columns[1]))
        while len(visits) > 1 and sum(visit in visits for visit in columns[1]) > max_length:
            visits.pop(0)
        kept = [k for k, visit in enumerate(columns[1]) if visit in visits][:max_length]
        codes = [[column[k] for k in kept] for column in columns]
        codes[1] = [visit - visits[0] + 1 for visit in codes[1]] if visits else []
        shown = [[column[visit - 1] for visit in visits] for column in visit_columns]
        patients.append((patient, codes, shown, *rest))
    return patients


def test_one_visit_of_700_codes_keeps_its_512_of_highest_priority():
    cut = histories([700]).truncate(512)
    assert cut.lengths.tolist() == [512]
    assert cut.serialization_ids.tolist() == list(range(512))
    assert cut.code_ids.tolist() == list(range(16, 16 + 512))
    assert cut.visit_days.tolist() == [0]


def test_300_and_700_codes_keep_the_last_visit_alone_cut_by_priority():
    cut = histories([300, 700]).truncate(512)
    assert cut.serialization_ids.tolist() == list(range(512))
    assert cut.code_ids.tolist() == list(range(16 + 300, 16 + 300 + 512))
    assert set(cut.visit_ids.tolist()) == {1}
    assert (cut.visit_days.tolist(), cut.length_of_stay.tolist()) == ([1], [2001])


def test_300_and_400_codes_keep_the_last_400_and_nothing_of_the_older_visit():
    cut = histories([300, 400]).truncate(512)
    assert cut.lengths.tolist() == [400]
    assert set(cut.visit_ids.tolist()) == {1}


def test_visits_are_renumbered_and_ranks_kept():
    cut = histories([100, 200, 312], [5]).truncate(512)
    assert cut.lengths.tolist() == [512, 5]
    assert cut.visit_ids.tolist() == [1] * 200 + [2] * 312 + [1] * 5
    assert cut.serialization_ids[:512].tolist() == [*range(200), *range(312)]
    assert cut.visit_days.tolist() == [1, 2, 3]


def test_truncation_equals_the_rule_applied_one_by_one_and_the_comparison_sees_a_fault():
    rng = np.random.default_rng(0)
    made = [rng.integers(1, 9, rng.integers(1, 7)).tolist() for _ in range(200)]
    sequences = histories(*made, [], [40])
    for max_length in (1, 3, 7, 8, 20):
        cut = sequences.truncate(max_length)
        assert as_lists(cut) == cut_one_by_one(sequences, max_length)
        assert cut.lengths.max() <= max_length and cut.serialization_ids.max() < max_length
    cut.serialization_ids[3] += 1
    assert as_lists(cut) != cut_one_by_one(sequences, 20)


def test_who_fits_is_left_alone():
    sequences = histories([512], [200, 312])
    assert sequences.truncate(512) is sequences


def test_drop_lets_patients_leave_whole():
    sequences = histories([3], [2, 2], [4])
    kept = sequences.truncate(3, keep="drop")
    assert sequences.within(3).tolist() == [0]
    assert as_lists(kept) == as_lists(sequences)[:1]


@pytest.mark.parametrize(("max_length", "keep"), [(0, "recent"), (512, "oldest")])
def test_impossible_truncations_are_refused(max_length, keep):
    with pytest.raises(ValueError, match="needs max_length ≥ 1 and keep 'recent' or 'drop': got"):
        histories([3]).truncate(max_length, keep=keep)


def test_take_by_numbers_and_by_mask():
    sequences = histories([3, 1], [], [2], [1, 1])
    everybody = as_lists(sequences)
    assert as_lists(sequences.take([3, 1, 3])) == [everybody[3], everybody[1], everybody[3]]
    assert as_lists(sequences.take(np.array([True, False, True, False]))) == [everybody[0], everybody[2]]
    assert len(sequences.take([])) == 0
    with pytest.raises(ValueError, match="a mask must have one value per patient"):
        sequences.take(np.array([True]))


def test_columns_that_do_not_fit_are_all_named():
    whole = histories([3, 1], [2])
    columns = {name: getattr(whole, name) for name in whole.__dataclass_fields__}
    columns |= {"visit_ids": whole.visit_ids[:-1], "sex": whole.sex[:1]}
    with pytest.raises(ValueError, match=r"visit_ids has 5 instead of 6; sex has 1 instead of 2"):
        PatientSequences(**columns)


def faults_one_by_one(sequences, vocabulary_size):
    """The rules of `sequence_faults`, in words of one patient at a time: rule → the first who breaks it."""
    first = {}
    for i, (_, (codes, visits, ranks), (days, *_), *_) in enumerate(as_lists(sequences)):
        steps = [*zip([0, *visits], visits, strict=False)]
        broken = {
            "codes": not codes,
            "visit_ids": any(b - a not in (0, 1) or (k == 0 and b != 1) for k, (a, b) in enumerate(steps)),
            "serialization_ids": any(
                rank != (ranks[k - 1] + 1 if k and visits[k - 1] == visits[k] else 0) for k, rank in enumerate(ranks)
            ),
            "code_ids": any(not 0 <= code < vocabulary_size for code in codes),
            "reserved": any(0 <= code < 16 and code != 2 for code in codes),
        }
        broken["visits"] = bool(codes) and not broken["visit_ids"] and len(days) != visits[-1]
        for rule in broken:
            if broken[rule]:
                first.setdefault(rule, i)
    return first


@pytest.mark.parametrize("at_once", [1, 5, 1 << 18])
def test_faults_are_those_of_the_rules_applied_one_by_one(monkeypatch, at_once):
    monkeypatch.setattr(module, "_CHECKED_AT_ONCE", at_once)
    rng = np.random.default_rng(3)
    seen = set()
    for _ in range(300):
        made = [rng.integers(1, 4, rng.integers(0, 4)).tolist() for _ in range(6)]
        sequences = histories(*made)
        codes = int(sequences.code_offsets[-1])
        assert not sequence_faults(sequences, vocabulary_size=16 + codes).keys() - {"codes"}
        for name in ("code_ids", "visit_ids", "serialization_ids"):
            for _ in range(rng.integers(0, 2) if codes else 0):
                getattr(sequences, name)[rng.integers(codes)] += rng.integers(-20 if name == "code_ids" else -2, 3)
        expected = faults_one_by_one(sequences, 16 + codes)
        found = sequence_faults(sequences, vocabulary_size=16 + codes)
        if "visit_ids" in expected:  # then nobody can say how many visits there are
            expected.pop("visits", None), found.pop("visits", None)
        assert found.keys() == expected.keys()
        for rule in found.keys() - {"code_ids"}:
            assert f"patient {expected[rule]}" in found[rule]
        seen |= found.keys()
    assert seen == {"codes", "visit_ids", "serialization_ids", "code_ids", "reserved", "visits"}


def test_offsets_types_and_visit_columns_are_told_by_their_rules():
    whole = histories([3, 1], [2])
    falling = replace(whole, code_offsets=np.array([0, 7, 6]))
    assert (
        "code_offsets must start at 0 and never fall: got 7, 6 at patient 1"
        in sequence_faults(falling, vocabulary_size=99)["offsets"]
    )
    late = replace(
        whole,
        code_offsets=whole.code_offsets + 1,
        **{name: np.append(getattr(whole, name), 0) for name in ("code_ids", "visit_ids", "serialization_ids")},
    )
    assert "got 1, 5 at patient 0" in sequence_faults(late, vocabulary_size=99)["offsets"]
    real = replace(whole, visit_ids=whole.visit_ids / 1.0)
    assert sequence_faults(real, vocabulary_size=99)["integers"].startswith("visit_ids must be whole numbers")
    more = histories([3, 1], [2, 2])
    more = replace(more, visit_offsets=np.array([0, 3, 4]))
    assert "got 3 rows and 2 visits for patient 0" in sequence_faults(more, vocabulary_size=99)["visits"]
