"""What the user may type after `medbert COMMAND`: one class a command; `tfds_builders.options` has those of datasets.

What stands below a field is its help.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Generic, Literal, TypeVar

from annotated_types import Ge, Gt, Interval
from tyro.conf import Positional

from medbert_jax.checked_fields import check_fields

ReaderOptions = TypeVar("ReaderOptions")


@dataclass(frozen=True)
class NoReader:
    """The options of a reader that --format does not name yet."""


@dataclass(frozen=True)
class IngestCommand(Generic[ReaderOptions]):
    """Read a source into EHR tables."""

    source: Positional[Path]
    """file or folder of the source."""
    out: Positional[Path]
    """folder that will hold the EHR tables."""
    format: Literal[
        "omop",
        "meds",
        "mimic-iv",
        "med-bert-tsv",
        "med-bert-pickles",
        "pytorch-ehr",
        "desynpuf",
        "diabetes130",
        "own-tables",
    ]
    """what the source is; `medbert ingest --format FORMAT --help` shows the options of its reader."""
    shards: Annotated[int, Ge(0)] = 0
    """parts that the tables are cut into, by a hash of the patient id; 0: as many as keep a worker below 1 GB."""
    workers: Annotated[int, Ge(0)] = 0
    """processes; 0: one per core."""
    outpatient_los_zero: bool = False
    """outpatient visits without a discharge lasted 0 days; else their length of stay is unknown."""
    allow_loss: bool = False
    """exit code 0 although much of a table left for broken links or unreadable cells; else it is 3."""
    options: ReaderOptions = field(kw_only=True)
    """of the reader."""

    def __post_init__(self):
        """Check every field; all faults are in one error."""
        check_fields(self)


@dataclass(frozen=True)
class ValidateOptions:
    """Every fault of EHR tables: rule, table, file, rows, cure. Exit code 1 where there are errors."""

    ehr: Positional[Path]
    """folder of EHR tables."""
    json_out: Path | None = None
    """also write the report there, as JSON."""
    workers: Annotated[int, Ge(0)] = 1
    """processes."""

    def __post_init__(self):
        """Check every field; all faults are in one error."""
        check_fields(self)


@dataclass(frozen=True)
class AttritionOptions:
    """The ledgers of EHR tables and datasets as one table (CSV) and one flow chart (SVG), as in the paper's Fig. 1.

    Where the last folder is a dataset, both end with its splits, and for a cohort with cases and controls of each.
    """

    folders: Positional[tuple[Path, ...]]
    """folders of EHR tables and of the datasets made from them, in this order."""
    out: Path = Path("attrition")
    """path of the two files, without ending."""
    share: bool = False
    """hide counts under 11, and those that would give them away."""

    def __post_init__(self):
        """Check every field; all faults are in one error."""
        check_fields(self)


@dataclass(frozen=True)
class DescribeOptions:
    """What the patients of datasets look like: Table 2 side by side, the measurable rows of Table 3, five timelines."""

    datasets: Positional[tuple[Path, ...]]
    """directories that `medbert prepare` and `medbert cohort` made."""
    out: Path | None = None
    """folder for the tables as markdown, CSV and JSON, and for timelines.html."""
    paper: tuple[Literal["pretraining", "DHF-Cerner", "PaCa-Cerner", "PaCa-Truven"], ...] = ()
    """columns of the paper's Table 2 to stand beside them."""
    share: bool = False
    """for others' eyes: what rests on fewer than 11 patients is hidden, no timelines."""
    max_length: Annotated[int, Ge(1)] = 512
    """codes that a model takes of one patient."""
    seed: Annotated[int, Interval(ge=0, lt=2**32)] = 0
    """who is an example among patients with as many codes."""
    cache_dir: Path | None = None
    """folder where the token store of a dataset that cannot be written, and has none, is kept."""

    def __post_init__(self):
        """Check every field; all faults are in one error."""
        check_fields(self)


@dataclass(frozen=True)
class EvaluateOptions:
    """Every metric of any models' predictions with its interval, by groups, and the differences of the models."""

    files: Positional[tuple[Path, ...]]
    """PREDICTIONS … COHORT: Parquet files of predictions (MEDS schema), several of which stand side by side, those of
    one model as its replicates; at last the directory of the cohort dataset, whose test patients are asked for, or a
    folder of MEDS labels."""
    out: Path | None = None
    """folder for the figures and curve points as Parquet, with evaluation.json and evaluation.md."""
    names: tuple[str, ...] = ()
    """what to call the models, one for each file."""
    reference: str = ""
    """name of the model that the others are compared with; the first."""
    risks: tuple[Annotated[float, Interval(gt=0, lt=1)], ...] = (0.05, 0.1, 0.2, 0.3)
    """risks at which somebody would act, chosen before the figures are seen."""
    specificities: tuple[Annotated[float, Interval(ge=0, le=1)], ...] = (0.8, 0.9, 0.95)
    """specificities at which the sensitivity is given."""
    draws: Annotated[int, Ge(100)] = 2000
    """of the bootstrap."""
    seed: Annotated[int, Interval(ge=0, lt=2**32)] = 0
    """of the bootstrap."""
    cache_dir: str = ""
    """folder where the token store of a dataset that cannot be written, and has none, is kept."""

    def __post_init__(self):
        """Check every field; all faults are in one error."""
        check_fields(self)

    @property
    def predictions(self) -> tuple[Path, ...]:
        """All but the last."""
        return self.files[:-1]

    @property
    def cohort(self) -> Path:
        """The last."""
        return self.files[-1]


@dataclass(frozen=True)
class ReportOptions:
    """Print the tables of an experiment, and make one page of it: report.html, with every table as CSV and every figure
    as SVG and PNG. Predictions that are not evaluated yet are evaluated."""

    results: Positional[Path]
    """folder of results."""
    out: Path | None = None
    """folder of the page; RESULTS/report, with --share RESULTS/report-to-share. A FILE.md: the printed tables alone, as
    markdown."""
    share: bool = False
    """for others' eyes: counts under 11 are hidden, and those that would give them away; between two points of a curve
    lie 11 patients or more."""
    cohorts: tuple[Path, ...] = ()
    """directories of the cohort datasets that the results are of; those found below --data-dir."""
    data_dir: Path = Path("data")
    """folder of all datasets."""
    ehr: Path | None = None
    """folder of the EHR tables that the cohorts were made of: the flow then begins with what was read."""
    draws: Annotated[int, Ge(100)] = 2000
    """of the bootstrap."""
    seed: Annotated[int, Interval(ge=0, lt=2**32)] = 0
    """of the bootstrap."""
    cache_dir: str = ""
    """folder where the token store of a dataset that cannot be written, and has none, is kept."""

    def __post_init__(self):
        """Check every field; all faults are in one error."""
        check_fields(self)

    @property
    def folder(self) -> Path:
        """Of the page."""
        return self.out or self.results / ("report-to-share" if self.share else "report")

    @property
    def is_markdown(self) -> bool:
        """Whether the tables alone are wanted, in a file."""
        return self.out is not None and self.out.suffix in (".md", ".markdown", ".txt")


@dataclass(frozen=True)
class DemoSizes:
    """What the demo's minutes are made of, where nothing else is asked for."""

    cohorts: tuple[str, ...]
    """each an experiment of its own, in this order."""
    pretraining_epochs: float
    train_size: int
    """training patients of a cohort."""
    patients_of_a_code: int
    """who must have a code for it to have a row of the decoder."""
    patience: int = 2
    """epochs without a better validation AUROC after which a fine-tuning stops."""
    short_row: int = 32
    """most of the demo's patients have few codes, and the cost of attention grows with the row."""


@dataclass(frozen=True)
class HealthOptions:
    """Whether a pretraining learned from its patients: masked codes and prolonged stays beside guesses without a model.

    On the validation patients, with the masks of the run's own validations.
    """

    run: Positional[Path]
    """run directory of the pretraining."""
    dataset: Positional[Path]
    """directory of the dataset that it was pretrained on."""
    patients: Annotated[int, Ge(0)] = 0
    """validation patients to ask about; 0, or more than there are, takes all."""
    json_out: Path | None = None
    """also write the figures there, as JSON."""
    cache_dir: Path | None = None
    """folder where the token store of a dataset that cannot be written, and has none, is kept."""

    def __post_init__(self):
        """Check every field; all faults are in one error."""
        check_fields(self)


@dataclass(frozen=True)
class DemoOptions:
    """The whole line in minutes, with nothing but this package: simulate → prepare → pretrain → cohort → fine-tune.

    The patients are simulated, unless --data names a source: what comes out is then a result on simulated data.
    """

    data: Path | None = None
    """a source to ingest in place of simulated patients."""
    out: Path = Path("demo")
    """folder for everything that is made."""
    format: Literal["diabetes130"] = "diabetes130"
    """what the source is."""
    patients: Annotated[int, Ge(1)] = 80_000
    """number of simulated patients; nothing with --data. Fewer leave dhf hardly the 50 test cases that it must have;
    dhf-matched has about 40."""
    seed: Annotated[int, Interval(ge=0, lt=2**32)] = 0
    """of the simulation; nothing with --data."""
    cohort: str | None = None
    """the disease cohort to fine-tune on, alone; otherwise hf-later for diabetes130, and for simulated patients
    dhf-matched, whose controls' records have the shape of the cases', and then dhf, as the paper has it."""
    train_size: Annotated[int, Ge(0)] | None = None
    """training patients of a cohort, 500 of simulated ones, 1,000 of diabetes130; 0, or more than it has, takes all."""
    pretraining_epochs: Annotated[float, Gt(0)] | None = None
    """passes over the pretraining patients; 1.5 for simulated ones, 5 for diabetes130."""

    def __post_init__(self):
        """Check every field; all faults are in one error."""
        check_fields(self)

    @property
    def sizes(self) -> DemoSizes:
        """What is asked for, and for the rest what takes minutes on two cores."""
        # Of thousands of simulated codes most are rare: the commoner ones make the decoder small.
        simulated = DemoSizes(
            ("dhf-matched", "dhf"),
            pretraining_epochs=1.5,
            train_size=500,
            patients_of_a_code=max(1, self.patients // 1500),
        )
        real = DemoSizes(("hf-later",), pretraining_epochs=5, train_size=1000, patients_of_a_code=1)
        sizes = simulated if self.data is None else real
        epochs = self.pretraining_epochs
        return replace(
            sizes,
            cohorts=(self.cohort,) if self.cohort else sizes.cohorts,
            pretraining_epochs=sizes.pretraining_epochs if epochs is None else epochs,
            train_size=sizes.train_size if self.train_size is None else self.train_size,
        )


@dataclass(frozen=True)
class SimulateOptions:
    """A simulated health system, as EHR tables."""

    out: Positional[Path]
    """folder that will hold the EHR tables."""
    patients: Annotated[int, Ge(1)]
    """number of patients."""
    site: Literal["cerner", "truven"] = "cerner"
    """cerner: hospital records 2000–2017, ICD-9-CM and then ICD-10-CM; truven: claims 2011–2015, ICD-9-CM."""
    world: Literal["rich", "bag", "no-synonyms", "independent", "null"] = "rich"
    """what the codes depend on; every other world than rich takes something away."""
    seed: Annotated[int, Interval(ge=0, lt=2**32)] = 0
    """of everything random."""
    shards: Annotated[int, Ge(0)] = 0
    """parts that the tables are cut into; 0: one per 32,768 patients."""
    workers: Annotated[int, Ge(0)] = 0
    """processes; 0: one per core."""
    truth: Path | None = None
    """folder for what is hidden, never inside `out`."""

    def __post_init__(self):
        """Check every field; all faults are in one error."""
        check_fields(self)


@dataclass(frozen=True)
class DoctorOptions:
    """Versions, devices, and what is missing."""
